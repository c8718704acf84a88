from __future__ import annotations

from pathlib import Path

import pytest

from tests.frontends.relay_programs import CONV_NET
from tools.check_relay import check_forms, check_fuzz, check_types, mutations

TYPED = """#[version = "0.0.5"]
def @main(%x: Tensor[(2, 3), float32] /* ty=Tensor[(2, 3), float32] */) -> Tensor[(3, 2), float32] {
  %0 = exp(%x) /* ty=Tensor[(2, 3), float32] span=a:1:2 */;
  transpose(%0, axes=[1, 0]) /* ty=Tensor[(3, 2), float32] span=a:2:3 */
}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    text = "def @main(%x: Tensor[(2, 3), float32]) { transpose(exp(%x), axes=[1, 0]) }"
    (tmp_path / "net.relay").write_text(text, encoding="utf-8")
    (tmp_path / "net.relay.typed.txt").write_text(TYPED, encoding="utf-8")
    (tmp_path / "conv.relay").write_text(CONV_NET, encoding="utf-8")
    return tmp_path


def test_types_and_forms_agree(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_types(data)
    assert "2 programs parsed; 3 types stated, 3 compared, 3 equal" in capsys.readouterr().out
    assert check_forms(data)
    assert "2 lowered, 1 compared" in capsys.readouterr().out


def test_a_wrong_type_and_a_different_form_are_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = data / "net.relay.typed.txt"
    typed.write_text(
        TYPED.replace("/* ty=Tensor[(3, 2)", "/* ty=Tensor[(3, 9)").replace("exp", "tanh"), encoding="utf-8"
    )
    assert not check_types(data)
    assert "Tensor[(3, 2), float32] instead of Tensor[(3, 9), float32]" in capsys.readouterr().out
    assert not check_forms(data)


def test_mutations_are_many_and_repeatable(data: Path) -> None:
    first = list(mutations(data, 40, seed=1))
    assert first == list(mutations(data, 40, seed=1))
    assert len(set(first)) > 30
    assert first != list(mutations(data, 40, seed=2))


def test_mutated_programs_end_cleanly(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.check_relay.resource.setrlimit", lambda *limits: None)
    assert check_fuzz(data, 60, seed=5)
