"""Answers from the sample store, and from the model where it has none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import costmodel
from costmodel.canonical import canonical
from costmodel.errors import DataError
from costmodel.estimates import CostModel, Estimate, Roofline
from costmodel.ir import Graph, GraphBuilder
from costmodel.measured import MeasuredModel, interval_ms, provenance, with_measurements
from costmodel.platforms import Platform, resolve
from costmodel.samples import Sample, SampleStore
from tests.samples.conftest import measured, network

T4, P4 = resolve("t4", "fp32", "tensorrt"), resolve("p4", "fp32", "tensorrt")
BARE = {"p90_ms": None, "p99_ms": None, "cv": None, "repeats": None, "operators": (), "flags": ()}


class Spy(Roofline):
    """The roofline, remembering which platforms it was asked about."""

    asked: list[Platform]

    def __init__(self) -> None:
        self.asked = []

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        self.asked += platforms
        return super().estimate_many(graph, platforms)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.sqlite"


def model_of(path: Path, *samples: Sample) -> tuple[MeasuredModel, Spy]:
    spy, store = Spy(), SampleStore(path)
    store.add_many((sample, None) for sample in samples)
    return MeasuredModel(store, lambda: spy), spy


def test_what_is_measured_is_not_predicted(path: Path) -> None:
    model, spy = model_of(path, measured())
    known, unknown = model.estimate_many(network(), [T4, P4])
    assert spy.asked == [P4]
    assert known.latency_ms == 1.5
    assert known.provenance == "measured here, 50 repeats, cv 2.0 %"
    assert (known.target, known.precision, known.runtime, known.batch) == ("t4", "fp32", "tensorrt-8.6.1", 1)
    assert known.interval_ms[0] < 1.5 < known.interval_ms[1]
    assert known.flops == unknown.flops > 0
    assert unknown == Roofline().estimate(network(), P4)


def test_order_of_platforms_is_kept(path: Path) -> None:
    model, _ = model_of(path, measured(device="p4"))
    assert [e.target for e in model.estimate_many(network(), [T4, P4, T4, P4])] == ["t4", "p4", "t4", "p4"]


def test_the_model_is_loaded_only_for_what_is_not_measured(path: Path) -> None:
    def load() -> CostModel:
        raise AssertionError("loaded")

    SampleStore(path).add(measured())
    model = MeasuredModel(SampleStore(path), load)
    assert model.estimate(network(), T4).latency_ms == 1.5
    with pytest.raises(AssertionError, match="loaded"):
        model.estimate(network(), P4)


def test_other_networks_batches_and_precisions_are_predicted(path: Path) -> None:
    model, spy = model_of(path, measured())
    for graph, platform in (
        (network(width=5), T4), (network(batch=2), T4), (network(), resolve("t4", "int8", "tensorrt")),
        (network(), resolve("t4", "fp32", "onnxruntime")), (network(), resolve("t4", "fp32", "tensorrt-7.1")),
    ):  # fmt: skip
        assert not model.estimate(graph, platform).provenance.startswith("measured")
    assert len(spy.asked) == 5


def test_another_spelling_of_the_network_is_found(path: Path) -> None:
    b = GraphBuilder("net")
    x = b.input((1, 4, 1, 1))
    graph = b.build([b.node("Relu", [b.node("Flatten", [x], (1, 4), axis=1)], (1, 4))])
    assert canonical(graph).fingerprint != graph.fingerprint
    for kept in (graph, canonical(graph)):
        model, _ = model_of(path.with_name(kept.fingerprint), measured(kept))
        assert model.estimate(graph, T4).latency_ms == 1.5
    assert model.estimate(canonical(graph), T4).latency_ms == 1.5


def test_operator_times_come_from_the_measurement_where_it_names_the_nodes(path: Path) -> None:
    model, _ = model_of(path, measured(operators=(("Conv_0", 0.9), ("Relu_1", 0.3))))
    nodes = model.estimate(network(), T4).operators
    assert [node.share for node in nodes] == pytest.approx([0.75, 0.25])
    assert sum(node.latency_ms for node in nodes) == pytest.approx(1.5)


@pytest.mark.parametrize("operators", [(), (("fused", 1.4), ("Relu_1", 0.1))])
def test_operator_times_follow_the_roofline_elsewhere(path: Path, operators: tuple[tuple[str, float], ...]) -> None:
    model, _ = model_of(path, measured(operators=operators))
    nodes, frame = model.estimate(network(), T4).operators, Roofline().estimate(network(), T4).operators
    assert [node.share for node in nodes] == pytest.approx([node.share for node in frame])
    assert sum(node.latency_ms for node in nodes) == pytest.approx(1.5)


def test_a_noisy_measurement_says_so(path: Path) -> None:
    model, _ = model_of(path, measured())
    assert "the measurement was flagged noisy" in model.estimate(network(), T4).warnings


def test_a_time_under_the_bound_is_told_and_kept(path: Path) -> None:
    model, _ = model_of(path, measured(latency_ms=1e-9, p90_ms=None, p99_ms=None, flags=()))
    found = model.estimate(network(), T4)
    assert found.latency_ms == 1e-9 < found.bound_ms
    assert any("check the spec sheet of t4" in note for note in found.warnings)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"repeats": 30, "cv": 0.004}, "measured here, 30 repeats, cv 0.4 %"),
        ({"repeats": 1}, "measured here, 1 repeat"),
        ({"source": "import:nnlqp"}, "measured (import:nnlqp)"),
        ({"environment": {"threads": 1}}, "measured here, 1 thread"),
        ({"environment": {"threads": 8}}, "measured here, 8 threads"),
    ],
)
def test_provenance_says_who_measured_and_how(changes: dict, expected: str) -> None:
    assert provenance(measured(**BARE | changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (10.0, 10.0)),
        ({"cv": 0.01}, (10 - 0.1645, 10 + 0.1645)),
        ({"p90_ms": 11.0}, (9.0, 11.0)),
        ({"p90_ms": 11.0, "p99_ms": 12.0}, (10 - 1.30103, 10 + 1.30103)),
        ({"p90_ms": 9.0, "p99_ms": 8.0}, (10.0, 10.0)),
        ({"p90_ms": 50.0}, (0.0, 50.0)),
    ],
)
def test_the_interval_follows_the_quantiles(changes: dict, expected: tuple[float, float]) -> None:
    assert interval_ms(measured(**BARE | {"latency_ms": 10.0} | changes)) == pytest.approx(expected, rel=1e-5)


def test_the_interval_of_an_exponential_tail_holds_nine_in_ten_above_the_median() -> None:
    """Times 1 + Exp(1): the upper end is the distribution's 95 % quantile."""
    import math

    sample = measured(**BARE | {
        "latency_ms": 1 + math.log(2), "p90_ms": 1 + math.log(10), "p99_ms": 1 + math.log(100)
    })  # fmt: skip
    assert interval_ms(sample)[1] == pytest.approx(1 + math.log(20))


def test_without_a_store_the_model_itself_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(path.parent / "empty"))
    spy = Spy()
    assert with_measurements(lambda: spy) is spy
    assert not (path.parent / "empty").exists()


def test_a_store_that_is_named_must_exist(path: Path) -> None:
    with pytest.raises(DataError, match="no sample store"):
        with_measurements(Spy, path)


def test_the_users_store_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(path.parent))
    SampleStore().add(measured())
    assert with_measurements(Spy).estimate(network(), T4).latency_ms == 1.5


def test_no_database_is_loaded_without_a_store() -> None:
    code = (
        "import sys\nfrom costmodel.measured import with_measurements\nfrom costmodel.estimates import Roofline\n"
        "with_measurements(Roofline)\nprint('sqlite3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_python_api_asks_the_store_first(path: Path) -> None:
    with SampleStore(path) as store:
        store.add(measured(), network())
    assert costmodel.estimate(network(), "t4", store=path).latency_ms == 1.5
    assert not costmodel.estimate(network(), "t4", store=path, measured=False).provenance.startswith("measured")
    assert not costmodel.estimate(network(), "t4").provenance.startswith("measured")
    assert costmodel.estimate(network(), "t4", store=path, cost_model=Roofline()).provenance == "roofline"
