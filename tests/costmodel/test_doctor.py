"""Every check passes here, and each fails when what it looks at is broken."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from costmodel import bundle, doctor
from costmodel.doctor import CHECKS, Check, examine

REQUIRES = [
    "numpy>=1.24", 'tomli>=2; python_version < "3.11"', 'torch>=2; extra == "train"', 'gone[x]>=1; extra == "encoder"'
]  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def outcome(name: str, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setattr(doctor, "CHECKS", {name: CHECKS[name]})
    (check,) = examine()
    return check


def test_this_installation_is_sound() -> None:
    checks = examine()
    assert [c.name for c in checks] == list(CHECKS)
    assert not [c for c in checks if not c.ok and c.name not in ("packages", "extras")]
    assert all(c.detail and "\n" not in c.detail for c in checks)


def test_packages_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"numpy": "1.100.0", "torch": "2.13.0+cpu"}[name])
    assert outcome("packages", monkeypatch) == Check("packages", True, "numpy 1.100.0")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.9")
    check = outcome("packages", monkeypatch)
    assert not check.ok
    assert check.detail == "numpy is 1.9, needed is >=1.24; run `pip install -U ledg-cost`"


def test_a_missing_extra_is_told_and_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: REQUIRES)

    def version(name: str) -> str:
        if name == "gone":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.13.0+cpu"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert outcome("extras", monkeypatch) == Check("extras", True, "train: yes, encoder: gone is missing")


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    check = outcome("packages", monkeypatch)
    assert (check.ok, "pip install ." in check.detail) == (False, True)


def test_a_damaged_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.RELEASED, copy)
    monkeypatch.setattr(bundle, "RELEASED", copy)
    assert outcome("bundle", monkeypatch).ok
    raw = bytearray((copy / "head.onnx").read_bytes())
    raw[1000] ^= 1
    (copy / "head.onnx").write_bytes(raw)
    check = outcome("bundle", monkeypatch)
    assert (check.ok, check.detail) == (False, "head.onnx does not match its checksum; reinstall ledg-cost")
    (copy / "config.json").write_text("{")
    assert not outcome("bundle", monkeypatch).ok


def test_a_broken_spec_sheet_of_the_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "devices").mkdir(parents=True)
    (home / "devices" / "mine.toml").write_text("name = 'mine'\n")
    check = outcome("devices", monkeypatch)
    assert not check.ok
    assert "mine.toml" in check.detail


def test_a_home_that_is_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome("user directory", monkeypatch).ok
    home.write_text("")
    check = outcome("user directory", monkeypatch)
    assert (check.ok, "LEDG_COST_HOME" in check.detail) == (False, True)


def test_a_sample_store_that_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from costmodel.samples import SampleStore

    assert outcome("samples", monkeypatch).detail.startswith("none yet")
    with SampleStore(home / "samples.sqlite"):
        pass
    assert outcome("samples", monkeypatch).detail.startswith("0 samples")
    for file in home.glob("samples.sqlite*"):
        file.unlink()
    (home / "samples.sqlite").write_text("no database, but long enough to be looked at" * 100)
    assert not outcome("samples", monkeypatch).ok


def test_a_check_that_falls_over_is_a_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall() -> str:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(doctor, "CHECKS", {"x": fall, "y": lambda: "fine"})
    broken, fine = examine()
    assert broken.detail.startswith("RuntimeError: two lines; reinstall")
    assert (broken.ok, fine.ok) == (False, True)
