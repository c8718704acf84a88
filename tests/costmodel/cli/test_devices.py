from __future__ import annotations

from pathlib import Path

import pytest

from tests.costmodel.cli.conftest import Run


def test_list_names_at_least_forty_devices(ledg: Run) -> None:
    _, out, _ = ledg("devices", "list")
    names = {line.split()[0] for line in out.splitlines()[1:]}
    assert len(names) >= 40
    assert {"t4", "gtx1660", "rtx4090", "rtx5090", "rtxpro6000maxq", "a100-sxm", "i7_12700h"} <= names


def test_show_tells_numbers_and_source(ledg: Run) -> None:
    status, out, _ = ledg("devices", "show", "Tesla T4")
    assert status == 0
    assert "320 GB/s" in out
    assert "data sheet" in out


def test_add_keeps_a_sheet_and_its_name_is_a_target(
    ledg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet50: str
) -> None:
    from costmodel import devices

    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path / "home"))
    sheet = (Path(devices.__file__).parent / "t4.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(sheet.replace('name = "t4"', 'name = "mine"'))
    assert ledg("devices", "add", path)[0] == 0
    assert ledg("estimate", resnet50, "-t", "mine")[0] == 0
    path.write_text(sheet)
    assert ledg("devices", "add", path)[0] == 2


def test_unknown_device_suggests_the_nearest(ledg: Run) -> None:
    status, _, err = ledg("devices", "show", "rtx409")
    assert status == 2
    assert "rtx4090" in err
