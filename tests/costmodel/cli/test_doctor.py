from __future__ import annotations

import pytest

from costmodel import doctor
from tests.costmodel.cli.conftest import Run


def test_one_line_per_check_and_the_exit_status(ledg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"good": lambda: "fine", "better": lambda: "very"})
    status, out, err = ledg("doctor")
    assert (status, err) == (0, "")
    assert out == "ok    good    fine\nok    better  very\n"

    def fall() -> str:
        raise ValueError("no")

    monkeypatch.setitem(doctor.CHECKS, "bad", fall)
    status, out, err = ledg("doctor")
    assert (status, err, len(out.splitlines())) == (1, "", 3)
    assert out.splitlines()[2].startswith("FAIL  bad     ValueError: no")
