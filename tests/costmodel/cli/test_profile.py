"""`ledg-cost profile` as a user meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from costmodel.samples import SampleStore
from profiler.backends import get_backend
from profiler.request import Measurement, Request
from tests.costmodel.cli.conftest import Run
from tests.profiler.models import conv_net

FAST = ("--seconds", "0.02", "--as", "epyc_9654")


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.onnx"
    onnx.save(conv_net(), path)
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "samples.sqlite"


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "costmodel.cli", "profile", *map(str, args), *FAST]


def test_measures_every_setting_once(ledg: Run, net: str, store: Path) -> None:
    args = (net, "gen/nasbench201/0", "-p", "fp32,int8", "-b", "1,2", "--store", store, *FAST)
    status, out, err = ledg("profile", *args)
    assert status == 0, err
    assert "8 measured, 0 already there, 0 failed" in out
    assert len(out.splitlines()) <= 15
    samples = SampleStore(store).query(device="epyc_9654", runtime="onnxruntime")
    settings = {(s.name, s.precision, s.batch) for s in samples}
    assert settings == {(n, p, b) for n in ("net", "gen/nasbench201/0") for p in ("fp32", "int8") for b in (1, 2)}
    assert all(s.environment["cpu"]["model"] for s in samples)
    status, out, _ = ledg("profile", *args)
    assert (status, len(SampleStore(store))) == (0, 8)
    assert "0 measured, 8 already there" in out


def test_a_fixed_batch_is_kept_unless_another_is_asked_for(ledg: Run, store: Path, tmp_path: Path) -> None:
    model = conv_net()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "three.onnx")
    for more in ((), ("-b", 2)):
        status, _, err = ledg("profile", tmp_path / "three.onnx", "--store", store, *FAST, *more)
        assert status == 0, err
    assert [s.batch for s in SampleStore(store).query()] == [3, 2]
    status, out, _ = ledg("profile", tmp_path / "three.onnx", "--store", store, *FAST)
    assert "0 measured, 1 already there" in out


def test_lists_and_families(ledg: Run, net: str, store: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"timm/net\t{net}\n\ngen/nasbench201/3\n")
    status, _out, err = ledg(
        "profile", "--list", tmp_path / "list.txt", "--family", "nasbench201:3-4", "--store", store, *FAST
    )
    assert status == 0, err
    names = [s.name for s in SampleStore(store).query()]
    assert names == ["timm/net", "gen/nasbench201/3", "gen/nasbench201/4"]


def test_a_measurement_is_held_against_earlier_ones(
    ledg: Run, net: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that differ by more than 3 % the slower one is flagged, whichever came first."""

    def ran(self: object, request: Request) -> Measurement:
        ms = times.pop(0)
        return Measurement(
            latency_ms=ms, p90_ms=ms, p99_ms=ms, cv=0.0, half_width=0.0, drift=0.0, repeats=9, precision="fp32",
            runtime=get_backend("onnxruntime").runtime(), batch=1, threads=1,
        )  # fmt: skip

    times = [10.0, 8.0, 8.1, 8.8, 8.7, 8.6]
    monkeypatch.setattr("profiler.isolation.Worker.run", ran)
    for _ in range(4):
        status, _, err = ledg("profile", net, "--store", store, "--again", *FAST)
        assert status == 0, err
    slower = ("noisy", "slower-than-before")
    found = [(s.latency_ms, s.flags) for s in SampleStore(store).query()]
    assert found == [(10.0, ("noisy", "faster-since")), (8.0, ()), (8.1, ()), (8.6, slower)]


def test_a_failure_does_not_stop_the_rest(ledg: Run, net: str, store: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(Path(net).read_bytes()[:40])
    status, out, err = ledg("profile", bad, net, "--store", store, *FAST)
    assert status == 0
    assert "1 measured, 0 already there, 1 failed" in out
    assert "bad" in err
    status, _, err = ledg("profile", bad, "--store", store, *FAST)
    assert status == 2
    assert err.splitlines()[-1].startswith("error: ")


def test_the_first_use_describes_the_machine(
    ledg: Run, net: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    status, out, err = ledg("profile", net, "--seconds", "0.02")
    assert status == 0, err
    assert "ledg-cost devices show mine" in err
    assert str(tmp_path / "samples.sqlite") in out
    status, out, _ = ledg("estimate", net, "--target", "mine", "--cost-model", "roofline")
    assert status == 0
    status, _, err = ledg("profile", net, "--threads", "2")
    assert status == 2
    assert "use another --as" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "nothing to measure"),
        (("absent.onnx",), "absent.onnx"),
        (("gen/nonsense/1",), "nonsense"),
        (("--family", "resnet"), "resnet:150"),
        (("--list", "absent.txt"), "absent.txt"),
        (("gen/resnet/1", "-p", "fp8"), "no chosen backend computes in fp8"),
        (("gen/resnet/1", "--backend", "nonsense"), "use one of"),
        (("gen/resnet/1", "--cpus", "x"), "--cpus 1"),
    ],
)
def test_wrong_use_is_one_line(ledg: Run, store: Path, args: tuple[str, ...], words: str) -> None:
    status, _out, err = ledg("profile", *args, "--store", store, *FAST)
    assert status == 2
    assert words in err
    assert err.count("error: ") == 1
    assert len(err.splitlines()) == 1


def test_an_interrupt_keeps_what_was_measured_and_the_next_run_continues(store: Path) -> None:
    args = command("--family", "nasbench201:40", "--store", store)  # more than a busy machine measures meanwhile
    heeding = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - shells let background jobs ignore it
    process = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heeding)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/40]"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    kept = len(SampleStore(store))
    assert 2 <= kept < 40
    assert "not reached" in out
    again = command("--family", f"nasbench201:{kept + 2}", "--store", store)
    done = subprocess.run(again, capture_output=True, text=True, timeout=120)
    assert f"2 measured, {kept} already there" in done.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_kill_loses_nothing_that_was_reported(store: Path) -> None:
    args = command("--family", "nasbench201:6", "--store", store)
    process = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/6]"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert len(SampleStore(store)) >= 2
    time.sleep(0.1)
    subprocess.run(args, check=True, capture_output=True, timeout=120)
    samples = SampleStore(store).query()
    assert len({s.fingerprint for s in samples}) == len(samples) == 6
