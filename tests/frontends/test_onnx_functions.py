from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper

from costmodel.errors import InputError
from frontends import load, onnx_functions
from tests.frontends.onnx_models import floats, info, ints, model, node, run


def test_local_functions_are_inlined_with_their_attributes() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    scaled = node("LeakyRelu", ["m"], ["z"])
    reference = scaled.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "slope", 1
    inner = helper.make_function("local", "Act", ["m"], ["z"], [scaled], imports, ["slope"])
    call = node("Act", ["m"], ["z"], domain="local")
    passed = call.attribute.add()
    passed.name, passed.ref_attr_name, passed.type = "slope", "slope", 1
    outer = helper.make_function(
        "local", "Block", ["a", "w", "bias"], ["z"], [node("MatMul", ["a", "w"], ["m"]), call], imports, ["slope"]
    )
    nodes = [
        node("Block", ["x", "w"], ["h"], domain="local", name="one", slope=0.25),
        node("Block", ["h", "w"], ["y"], domain="local", name="two", slope=0.5),
    ]
    graph = load(model(nodes, {"x": ["N", 4]}, ["y"], {"w": floats(4, 4)}, functions=[inner, outer], local=1))
    assert [(n.op, n.attrs.get("alpha")) for n in graph.nodes] == [
        ("MatMul", None), ("LeakyRelu", 0.25), ("MatMul", None), ("LeakyRelu", 0.5),
    ]  # fmt: skip
    plain = [
        node("MatMul", ["x", "w"], ["a"]),
        node("LeakyRelu", ["a"], ["b"], alpha=0.25),
        node("MatMul", ["b", "w"], ["c"]),
        node("LeakyRelu", ["c"], ["y"], alpha=0.5),
    ]
    assert load(model(plain, {"x": ["N", 4]}, ["y"], {"w": floats(4, 4)})).fingerprint == graph.fingerprint


def test_a_function_that_calls_itself_is_refused() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    loop = helper.make_function("local", "F", ["a"], ["b"], [node("F", ["a"], ["b"], domain="local")], imports)
    with pytest.raises(InputError, match="calls itself"):
        load(model([node("F", ["x"], ["y"], domain="local")], {"x": [2]}, ["y"], functions=[loop], local=1))


def branches() -> dict[str, object]:
    small = helper.make_graph([node("Relu", ["x"], ["out"])], "small", [], [info("out", None)])
    large = helper.make_graph([node("MatMul", ["x", "w"], ["out"])], "large", [], [info("out", None)])
    return {"then_branch": small, "else_branch": large}


def test_if_takes_the_known_branch_else_the_costlier_one() -> None:
    weights = {"w": floats(4, 4), "yes": np.array(True)}
    fixed = model([node("If", ["yes"], ["y"], **branches())], {"x": ["N", 4]}, ["y"], weights)
    assert [n.op for n in load(fixed).nodes] == ["Relu"]
    inputs = [info("x", ["N", 4]), info("c", [], TensorProto.BOOL)]
    open_ = model([node("If", ["c"], ["y"], **branches())], inputs, ["y"], weights)
    assert [n.op for n in load(open_).nodes] == ["MatMul"]


def body() -> object:
    """Adds x to the carried state and emits it."""
    return helper.make_graph(
        [node("Add", ["state", "x"], ["next"]), node("Identity", ["keep"], ["go"]), node("Relu", ["next"], ["row"])],
        "body",
        [info("i", [], TensorProto.INT64), info("keep", [], TensorProto.BOOL), info("state", [2, 3])],
        [info("go", [], TensorProto.BOOL), info("next", [2, 3]), info("row", [2, 3])],
    )


def test_a_short_loop_is_unrolled() -> None:
    proto = model(
        [node("Loop", ["trips", "", "x"], ["last", "rows"], body=body())],
        {"x": [2, 3]},
        [info("last", [2, 3]), info("rows", [None, 2, 3])],
        {"trips": np.array(4)},
    )
    graph = load(proto)
    assert [n.op for n in graph.nodes].count("Add") == 4
    found = [graph.tensors[t].shape for t in graph.outputs]
    assert found == [out.shape for out in run(proto, {"x": floats(2, 3)})] == [(2, 3), (4, 2, 3)]


def test_a_long_or_open_loop_is_lowered_once_and_marked() -> None:
    nodes = [node("Loop", ["trips", "", "x"], ["last", "rows"], body=body())]
    long = load(model(nodes, {"x": [2, 3]}, ["last", "rows"], {"trips": np.array(5000)}))
    assert [(n.op, n.attrs["trip_count"]) for n in long.nodes if n.op == "Add"] == [("Add", 5000)]
    assert long.tensors[long.outputs[1]].shape == (5000, 2, 3)
    inputs = [info("x", [2, 3]), info("trips", [], TensorProto.INT64)]
    open_ = load(model(nodes, inputs, ["last"]))
    assert [(n.op, n.attrs["trip_count"]) for n in open_.nodes] == [("Add", 0)]


def test_trip_counts_of_nested_loops_multiply() -> None:
    inner = node("Loop", ["times", "", "outer"], ["next", "rows"], body=body())
    go = node("Identity", ["outer_keep"], ["outer_go"])
    infos = [info("j", [], TensorProto.INT64), info("outer_keep", [], TensorProto.BOOL), info("outer", [2, 3])]
    results = [info("outer_go", [], TensorProto.BOOL), info("next", [2, 3])]
    outer = helper.make_graph([inner, go], "outer", infos, results)
    nodes = [node("Loop", ["trips", "", "x"], ["last"], body=outer)]
    for trips, expected in ((np.array(6000), 30_000_000), (None, 0)):
        weights = {"times": np.array(5000)} | ({} if trips is None else {"trips": trips})
        inputs = [info("x", [2, 3])] + ([info("trips", [], TensorProto.INT64)] if trips is None else [])
        graph = load(model(nodes, inputs, ["last"], weights))
        assert [n.attrs["trip_count"] for n in graph.nodes if n.op == "Add"] == [expected]


def test_scan_runs_over_the_axis() -> None:
    step = helper.make_graph(
        [node("Add", ["sum", "slice"], ["next"]), node("Identity", ["next"], ["row"])],
        "step",
        [info("sum", [3]), info("slice", [3])],
        [info("next", [3]), info("row", [3])],
    )
    proto = model(
        [node("Scan", ["start", "x"], ["last", "rows"], body=step, num_scan_inputs=1)],
        {"start": [3], "x": [5, 3]},
        [info("last", [3]), info("rows", [5, 3])],
    )
    graph = load(proto)
    assert [n.op for n in graph.nodes].count("Add") == 5
    found = [graph.tensors[t].shape for t in graph.outputs]
    assert found == [out.shape for out in run(proto, {"start": floats(3), "x": floats(5, 3)})]


def test_nested_loops_do_not_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_functions, "MAX_INLINED_NODES", 5000)
    inner = helper.make_graph(
        [node("Loop", ["many", "", "s"], ["n"], body=body_of(1)), node("Identity", ["k"], ["g"])],
        "outer",
        [info("i", [], TensorProto.INT64), info("k", [], TensorProto.BOOL), info("s", [2])],
        [info("g", [], TensorProto.BOOL), info("n", [2])],
    )
    middle = helper.make_graph(
        [node("Loop", ["many", "", "s"], ["n"], body=inner), node("Identity", ["k"], ["g"])],
        "middle",
        [info("i", [], TensorProto.INT64), info("k", [], TensorProto.BOOL), info("s", [2])],
        [info("g", [], TensorProto.BOOL), info("n", [2])],
    )
    proto = model([node("Loop", ["many", "", "x"], ["y"], body=middle)], {"x": [2]}, ["y"], {"many": np.array(2000)})
    with pytest.raises(InputError, match="unroll to more than"):
        load(proto)


def body_of(count: int) -> object:
    names = ["s", *(f"t{i}" for i in range(count))]
    return helper.make_graph(
        [*(node("Relu", [a], [b]) for a, b in pairwise(names)), node("Identity", ["k"], ["g"])],
        "body",
        [info("i", [], TensorProto.INT64), info("k", [], TensorProto.BOOL), info("s", [2])],
        [info("g", [], TensorProto.BOOL), info(names[-1], [2])],
    )


def test_sequences_are_followed() -> None:
    nodes = [
        node("SplitToSequence", ["x", "size"], ["seq"], axis=1),
        node("SequenceAt", ["seq", "one"], ["b"]),
        node("SequenceInsert", ["seq", "b"], ["more"]),
        node("SequenceLength", ["more"], ["n"]),
        node("ConcatFromSequence", ["more"], ["y"], axis=1),
    ]
    proto = model(
        nodes,
        {"x": [2, 6]},
        [info("y", None), info("n", [], TensorProto.INT64)],
        {"size": np.array(2), "one": ints(1)[0]},
    )
    graph = load(proto)
    assert [n.op for n in graph.nodes] == ["Split", "Concat"]
    assert graph.tensors["y"].shape == run(proto, {"x": floats(2, 6)})[0].shape == (2, 8)
