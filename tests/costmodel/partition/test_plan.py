"""Plans of real graphs: what crosses, what is counted, and how sure a plan is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from costmodel.errors import InputError, PartitionError
from costmodel.estimates import Estimate, Roofline
from costmodel.fusion import fusion_groups
from costmodel.ir import Graph, GraphBuilder
from costmodel.partition import partition
from costmodel.partition.picture import dot
from costmodel.platforms import Platform, resolve


class Scaled(Roofline):
    """Roofline times scaled per device, with intervals of a given half-width."""

    def __init__(self, half: float, **factor: float) -> None:
        self.half, self.factor = half, factor

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        found = []
        for p, e in zip(platforms, super().estimate_many(graph, platforms), strict=True):
            f = self.factor.get(p.device.name, 1.0)
            operators = tuple(replace(o, latency_ms=o.latency_ms * f) for o in e.operators)
            ms = e.latency_ms * f
            interval = (ms * (1 - self.half), ms * (1 + self.half))
            found.append(replace(e, latency_ms=ms, interval_ms=interval, operators=operators))
        return found


def chain(blocks: int = 6, skip: bool = True) -> Graph:
    """Convolutions with activations and residual sums; a skip from the first to the last."""
    b = GraphBuilder("chain")
    x = b.input((1, 16, 32, 32))
    first = None
    for _ in range(blocks):
        weight = b.param((16, 16, 3, 3))
        y = b.node(
            "Conv", [x, weight], (1, 16, 32, 32), kernel_shape=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1),
            dilations=(1, 1), group=1,
        )  # fmt: skip
        y = b.node("Relu", [y], (1, 16, 32, 32))
        x = b.node("MaxPool", [y], (1, 16, 32, 32), kernel_shape=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))
        first = first or x
    if skip and first:
        x = b.node("Concat", [x, first], (1, 32, 32, 32), axis=1)
    return b.build([x])


PAIR = [resolve("t4"), resolve("p4")]


@pytest.mark.parametrize("objective", ["latency", "throughput", "memory"])
def test_a_plan_covers_every_node_once_and_keeps_fusion_groups_whole(objective: str) -> None:
    plan = partition(chain(), PAIR, "pcie3x16", objective, cost_model=Roofline())
    nodes = [i for part in plan.parts for i in part.nodes]
    assert sorted(nodes) == list(range(len(plan.graph)))
    place = {i: p for p, part in enumerate(plan.parts) for i in part.nodes}
    groups = fusion_groups(plan.graph)
    assert all(place[i] == place[j] for i, g in enumerate(groups) for j, h in enumerate(groups) if g == h)
    assert plan.exact


def test_a_skip_is_forwarded_over_both_cuts_of_a_pipeline() -> None:
    devices = [resolve("t4"), resolve("p4"), resolve("v100")]
    plan = partition(chain(), devices, "nvlink3", "throughput", cost_model=Roofline())
    assert len(plan.parts) == 3
    hops = {(t.tensor, t.source, t.target) for t in plan.transfers}
    skip = plan.graph.nodes[next(i for i, n in enumerate(plan.graph.nodes) if n.op == "Concat")].inputs[1]
    assert {(skip, 0, 1), (skip, 1, 2)} <= hops
    assert all(target == source + 1 for _, source, target in hops)
    sent = sum(t.ms for t in plan.transfers)
    assert plan.latency_ms == pytest.approx(sum(p.compute_ms for p in plan.parts) + sent)
    assert plan.bottleneck_ms < min(ms for ms in plan.single_ms if ms)


def test_transfers_are_as_large_as_their_tensors() -> None:
    plan = partition(chain(skip=False), PAIR, "nvlink3", "throughput", cost_model=Roofline())
    (transfer,) = plan.transfers
    assert transfer.size == 16 * 32 * 32 * 4
    assert transfer.spec == "float32[1,16,32,32]"
    assert transfer.ms == pytest.approx(0.008 + transfer.size / 300e6)


def test_unsupported_operators_go_elsewhere() -> None:
    plan = partition(chain(), PAIR, unsupported={0: ["MaxPool"]}, cost_model=Scaled(0.1, p4=50.0))
    ops = {plan.graph.nodes[i].op for part in plan.parts if part.device == 0 for i in part.nodes}
    assert plan.splits
    assert "Conv" in ops
    assert "MaxPool" not in ops
    assert plan.single_ms[0] is None
    with pytest.raises(PartitionError, match="no device runs MaxPool"):
        partition(chain(), PAIR, unsupported={0: ["MaxPool"], 1: ["MaxPool"]}, cost_model=Roofline())


def test_memory_limits_are_kept() -> None:
    whole = partition(chain(), PAIR, cost_model=Scaled(0.1, p4=9.0))
    assert not whole.splits
    limit = whole.memory_bytes[0] * 0.98 / 1e9
    for method in ("auto", "pipeline"):
        plan = partition(chain(), PAIR, cost_model=Scaled(0.1, p4=9.0), memory_gb={0: limit}, method=method)
        assert plan.memory_bytes[0] <= limit * 1e9
        assert plan.single_ms[0] is None
        assert plan.latency_ms > whole.latency_ms
    with pytest.raises(PartitionError, match="raise --memory"):
        partition(chain(), PAIR, cost_model=Roofline(), memory_gb={0: 1e-6, 1: 1e-6})


def test_a_small_gain_is_a_toss_up_and_a_large_one_is_not() -> None:
    sure = partition(chain(), PAIR, "nvlink3", "throughput", cost_model=Scaled(0.02))
    unsure = partition(chain(), PAIR, "nvlink3", "throughput", cost_model=Scaled(0.9))
    assert sure.gain == pytest.approx(unsure.gain)
    assert not sure.toss_up
    assert "at least" in sure.verdict
    assert unsure.toss_up
    assert "measure both" in unsure.verdict


def test_the_error_of_a_gain_is_that_of_both_devices() -> None:
    """Latency of a forced split: with device factors f, gain = min(f_d T_d) - sum(f_d s_d) - transfers."""
    plan = partition(chain(), PAIR, unsupported={0: ["Concat"]}, cost_model=Scaled(0.5, p4=4.0))
    spent = np.zeros(2)
    for part in plan.parts:
        spent[part.device] += part.compute_ms
    alone = plan.single_ms[1]
    assert alone is not None
    losses = [0.5 * spent[0], 0.5 * (alone - spent[1])]
    assert plan.gain_error == pytest.approx(np.hypot(*losses))


def test_json_is_stable_and_names_what_the_split_needs() -> None:
    plan = partition(chain(), PAIR, "nvlink3", "throughput", cost_model=Roofline())
    record = json.loads(json.dumps(plan.as_record()))
    assert record["schema"] == 1
    assert record["fingerprint"] == plan.graph.fingerprint
    made = [t for part in record["parts"] for t in part["tensors"]]
    assert sorted(made) == sorted(plan.graph.producer)
    assert {t["tensor"] for t in record["transfers"]} <= set(made)


def test_the_picture_shows_parts_and_transfers() -> None:
    plan = partition(chain(), PAIR, "nvlink3", "throughput", cost_model=Roofline())
    text = dot(plan)
    assert text.count("subgraph cluster_") == len(plan.parts)
    assert text.count("penwidth=3") == len(plan.transfers)
    assert text.count("->") == len(plan.graph.edges)
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "speed"}, "unknown objective"),
        ({"platforms": PAIR[:1]}, "two or more"),
        ({"objective": "memory", "method": "placement"}, "use --method pipeline"),
        ({"platforms": [*PAIR, resolve("v100")], "method": "placement"}, "two devices"),
    ],
)
def test_arguments_that_do_not_fit_are_told(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        partition(chain(), **{"platforms": PAIR, "cost_model": Roofline()} | arguments)


def test_a_graph_without_operators_is_told() -> None:
    b = GraphBuilder()
    with pytest.raises(InputError, match="no operators"):
        partition(b.build([b.input((1,))]), PAIR, cost_model=Roofline())
