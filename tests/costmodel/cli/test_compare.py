from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.costmodel.cli.conftest import Run


def test_the_table_has_every_supported_combination(ledg: Run, resnet50: str) -> None:
    status, out, err = ledg(
        "compare", resnet50, "--targets", "t4,p100", "--precisions", "fp32,int8", "--batches", "1,8"
    )
    assert (status, err) == (0, "")
    heads, *rows = out.splitlines()
    for word in ("latency", "90 % interval", "images/s", "images/s/W", "memory"):
        assert word in heads
    assert [tuple(r.split()[:4]) for r in rows[:6]] == [
        (d, p, "tensorrt", b) for d, p in (("t4", "fp32"), ("t4", "int8"), ("p100", "fp32")) for b in ("1", "8")
    ]
    assert "not supported: p100 has no int8" in out


def test_json_agrees_with_estimate_and_names_the_cheapest(ledg: Run, resnet50: str) -> None:
    args = ("-t", "t4,a10", "-p", "fp16,int8", "-b", "1,8")
    compared = json.loads(
        ledg("compare", resnet50, *args, "--latency-budget", "5", "--price", "a10=0.2,t4=0.5", "--json")[1]
    )
    estimated = json.loads(ledg("estimate", resnet50, *args, "--json")[1])["estimates"]
    assert compared["schema"] == 1
    for choice, estimate in zip(compared["choices"], estimated, strict=True):
        for key in ("target", "precision", "batch", "latency_ms", "interval_ms", "peak_memory_bytes"):
            assert choice[key] == estimate[key]
        assert choice["images_per_second"] == pytest.approx(1e3 * choice["batch"] / choice["latency_ms"])
        low, high = choice["interval_ms"]
        assert (choice["meets_budget"] == "yes") == (high <= 5)
        assert (choice["meets_budget"] == "no") == (low > 5)
    assert compared["cheapest"]["target"] == "a10"


def test_a_budget_nothing_meets_names_the_fastest(ledg: Run, resnet50: str) -> None:
    status, out, _ = ledg("compare", resnet50, "-t", "t4", "-p", "fp32", "-b", "1,8", "--latency-budget", "0.001")
    assert status == 0
    assert out.splitlines()[-1].startswith("none is within 0.001 ms; the fastest is t4 fp32 tensorrt batch 1 (")


def test_a_budget_between_the_ends_is_only_likely(ledg: Run, resnet50: str) -> None:
    args = ("compare", resnet50, "-t", "t4", "-p", "fp32", "-b", "1")
    (choice,) = json.loads(ledg(*args, "--json")[1])["choices"]
    budget = (choice["latency_ms"] + choice["interval_ms"][1]) / 2
    out = ledg(*args, "--latency-budget", budget)[1]
    assert "likely within" in out.splitlines()[-1]
    assert "cheapest within" not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-t", "t5"), "did you mean"),
        (("-t", "p100", "-p", "int8,bf16"), "use one of fp32, fp16"),
        (("-t", "t4", "--price", "t4"), "DEVICE=PRICE"),
        (("-t", "t4", "--price", "t4=-1"), "DEVICE=PRICE"),
        (("-t", "t4", "--price", "t5=1"), "unknown device"),
        (("-t", "t4", "--latency-budget", "0"), "--latency-budget"),
        (("-t", "t4", "-b", "none"), "--batch"),
        (("-t", "t4", "-r", "caffe"), "tensorrt"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    ledg: Run, model: Callable[..., str], args: tuple[str, ...], message: str
) -> None:
    status, out, err = ledg("compare", model(), *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
