"""Split files compute what the whole computes, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from costmodel.api import load_graph
from costmodel.errors import InputError
from costmodel.estimates import Roofline
from costmodel.ir import Graph
from costmodel.partition import partition
from costmodel.partition.split import file_cuts, split_model, split_plan, write_parts
from costmodel.platforms import resolve
from tests.frontends.onnx_models import conv_net, floats, info, ints, model, node


def run(proto: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime computes without fusing, which rounds quantised networks differently."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def chained(parts: Sequence[ModelProto], feeds: Mapping[str, np.ndarray], results: Sequence[str]) -> list[np.ndarray]:
    """Runs the parts one after the other, each on what the inputs and the parts before it give."""
    known = dict(feeds)
    for part in parts:
        weights = {t.name for t in part.graph.initializer}
        wanted = {i.name: known[i.name] for i in part.graph.input if i.name not in weights}
        known |= dict(zip([o.name for o in part.graph.output], run(part, wanted), strict=True))
    return [known[name] for name in results]


def assert_same(proto: ModelProto, parts: Sequence[ModelProto], feeds: Mapping[str, np.ndarray]) -> None:
    results = [o.name for o in proto.graph.output]
    for whole, pieced in zip(run(proto, feeds), chained(parts, feeds, results), strict=True):
        np.testing.assert_allclose(pieced, whole, rtol=0, atol=1e-6)


def cut_everywhere(proto: ModelProto, graph: Graph) -> list[list[ModelProto]]:
    """All two-part splits of a pipeline over the graph's own units."""
    from costmodel.partition.links import LINKS
    from costmodel.partition.problem import build

    platforms = [resolve("t4"), resolve("p4")]
    estimates = Roofline().estimate_many(graph, platforms)
    problem = build(graph, estimates, platforms, LINKS["pcie3x16"], file=file_cuts(proto, graph))
    found = []
    for position in range(1, len(problem.units)):
        if np.isfinite(problem.transfer_ms[position]):
            sides = problem.units[:position], problem.units[position:]
            made = [[t for unit in side for i in unit for t in graph.nodes[i].outputs] for side in sides]
            found.append(split_model(proto, made, graph.tensors))
    return found


OPS = {"Sigmoid": 1, "Softmax": 1, "Relu": 1, "Add": 2, "Mul": 2, "Concat": 2, "Slice": 1}


@st.composite
def random_nets(draw: st.DrawFn) -> ModelProto:
    """Graphs whose tensors are read several times, by nodes and as results."""
    tensors, nodes = ["x", "z"], []
    for i in range(draw(st.integers(2, 9))):
        op = draw(st.sampled_from(sorted(OPS)))
        reads = [tensors[-1 - draw(st.integers(0, min(4, len(tensors) - 1)))] for _ in range(OPS[op])]
        if op == "Slice":
            nodes.append(node("Slice", [*reads, "zero", "four", "one"], [f"t{i}"], name=f"n{i}"))
        else:
            attrs = {"axis": 1} if op in ("Softmax", "Concat") else {}
            nodes.append(node(op, reads, [f"c{i}" if op == "Concat" else f"t{i}"], name=f"n{i}", **attrs))
        if op == "Concat":  # back to the common width, with a weight that two nodes share
            nodes.append(node("MatMul", [f"c{i}", "w"], [f"t{i}"], name=f"m{i}"))
        tensors.append(f"t{i}")
    results = draw(st.sets(st.sampled_from(tensors[2:]), min_size=1, max_size=3)) | {tensors[-1]}
    return model(
        nodes,
        {"x": [2, 4], "z": [2, 4]},
        [info(name, [2, 4]) for name in sorted(results)],
        {"w": floats(8, 4), "zero": ints(0), "four": ints(4), "one": ints(1)},
    )


@settings(max_examples=40, deadline=None)
@given(proto=random_nets())
def test_every_cut_of_a_random_net_computes_the_same(proto: ModelProto) -> None:
    feeds = {"x": floats(2, 4), "z": floats(2, 4) * 2 + 1}
    graph = load_graph(proto)
    assume(len(graph))  # a Slice that takes everything leaves nothing to distribute
    for parts in cut_everywhere(proto, graph):
        for part in parts:
            onnx.checker.check_model(part)
        assert_same(proto, parts, feeds)


def shaped_net() -> ModelProto:
    """A tensor resized to another's shape, which is computed at run time and folded in the IR."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["x", "w"], ["b"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("MaxPool", ["b"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Shape", ["p"], ["s"]),
        node("Resize", ["a", "", "", "s"], ["r"], mode="nearest"),
        node("Add", ["r", "p"], ["q"]),
        node("Shape", ["x"], ["sx"]),
        node("Reshape", ["q", "sx"], ["y"]),
    ]
    return model(nodes, {"x": [1, 3, 8, 8]}, [info("y", [1, 3, 8, 8])], {"w": floats(3, 3, 3, 3)})


def test_shapes_computed_at_run_time_cross_the_cut() -> None:
    proto = shaped_net()
    graph = load_graph(proto)
    cuts = file_cuts(proto, graph)
    assert [(h.tensor, h.sources, h.readers) for h in cuts.hidden] == [("s", ("p",), ("r",))]
    splits = cut_everywhere(proto, graph)
    assert len(splits) >= 3
    for parts in splits:
        assert_same(proto, parts, {"x": floats(1, 3, 8, 8)})


def test_a_part_that_would_need_a_later_one_is_refused() -> None:
    with pytest.raises(InputError, match="onnxsim"):
        split_model(shaped_net(), [["a", "r"], ["b", "p", "q", "y"]])


def quantised_net() -> ModelProto:
    """Two convolutions between QuantizeLinear and DequantizeLinear."""
    scale, zero = numpy_helper.from_array(np.float32(0.05), "s"), numpy_helper.from_array(np.uint8(128), "z")
    weight = numpy_helper.from_array((floats(3, 3, 3, 3) * 40).astype(np.int8), "w")
    weight_scale, weight_zero = (
        numpy_helper.from_array(np.float32(0.02), "ws"),
        numpy_helper.from_array(np.int8(0), "wz"),
    )
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["xq"])]
    before = "xq"
    for i in range(2):
        nodes += [
            node("DequantizeLinear", [before, "s", "z"], [f"d{i}"]),
            node("DequantizeLinear", ["w", "ws", "wz"], [f"wd{i}"]),
            node("Conv", [f"d{i}", f"wd{i}"], [f"c{i}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("MaxPool", [f"c{i}"], [f"m{i}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("QuantizeLinear", [f"m{i}", "s", "z"], [f"q{i}"]),
        ]
        before = f"q{i}"
    nodes.append(node("DequantizeLinear", [before, "s", "z"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "q",
        [info("x", [1, 3, 6, 6])],
        [info("y", [1, 3, 6, 6])],
        [scale, zero, weight, weight_scale, weight_zero],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_quantised_tensors_cross_as_int8() -> None:
    proto = quantised_net()
    splits = cut_everywhere(proto, load_graph(proto))
    assert splits
    crossing = set()
    for parts in splits:
        assert_same(proto, parts, {"x": floats(1, 3, 6, 6)})
        crossing |= {(o.name, o.type.tensor_type.elem_type) for o in parts[0].graph.output if o.name != "y"}
    assert ("q0", TensorProto.UINT8) in crossing


def test_a_plan_is_carried_out_on_light_resnet50(tmp_path: Path) -> None:
    """Names stay, and the parts make up the whole."""
    path = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    proto = onnx.load(path)
    graph = load_graph(proto)
    plan = partition(
        graph, [resolve("t4", "int8"), resolve("p4")], unsupported={0: ["MaxPool", "Softmax"]}, cost_model=Roofline(),
        file=file_cuts(proto, graph),
    )  # fmt: skip
    parts = split_plan(proto, plan)
    assert [plan.platforms[p.device].device.name for p in plan.parts] == ["p4", "t4", "p4"]
    placed = [n.output[0] for part in parts for n in part.graph.node if n.op_type != "ConstantOfShape"]
    assert sorted(placed) == sorted(n.output[0] for n in proto.graph.node if n.op_type != "ConstantOfShape")
    written = write_parts(path, parts, ["p4", "t4", "p4"], tmp_path)
    assert [p.name for p in written] == [f"light_resnet50.part{i}.{d}.onnx" for i, d in enumerate(("p4", "t4", "p4"))]
    for file in written:
        onnx.checker.check_model(str(file))


def test_external_weights_go_with_their_parts(tmp_path: Path) -> None:
    proto = conv_net(1)
    source, target = tmp_path / "whole", tmp_path / "parts"
    source.mkdir()
    onnx.save_model(proto, str(source / "net.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    stored = onnx.load(str(source / "net.onnx"), load_external_data=False)
    parts = split_model(stored, [["c", "r"], ["p", "f", "y"]])
    files = write_parts(source / "net.onnx", parts, ["a", "b"], target)
    loaded = [onnx.load(str(f)) for f in files]
    assert [sorted(t.name for t in p.graph.initializer) for p in loaded] == [["b", "w"], ["v"]]
    assert_same(conv_net(1), loaded, {"x": floats(1, 3, 8, 8)})


def test_absent_weights_stay_absent(tmp_path: Path) -> None:
    proto = conv_net(1)
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "nowhere.bin"
    parts = split_model(proto, [["c", "r"], ["p", "f", "y"]])
    files = write_parts(tmp_path / "net.onnx", parts, ["a", "b"], tmp_path)
    for file in files:
        part = onnx.load(str(file), load_external_data=False)
        assert all(t.data_location == TensorProto.EXTERNAL for t in part.graph.initializer)
        assert not list(tmp_path.glob("*.data"))


def test_one_part_is_the_model_itself() -> None:
    proto = conv_net(1)
    assert split_model(proto, [["c", "r", "p", "f", "y"]]) == [proto]
