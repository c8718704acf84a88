"""Patterns on hand-made node lists; no TVM needed."""

from __future__ import annotations

from costmodel.ir import Node, TensorSpec
from frontends.onnx_values import Value
from frontends.relax_compose import compose

SHAPE = (2, 4, 5, 5)


def composed(
    nodes: list[Node],
    params: dict[str, tuple[int, ...]],
    scalars: dict[str, float] | None = None,
    shape: tuple[int, ...] = SHAPE,
    outputs: tuple[str, ...] = ("y",),
    transposed: dict[str, Value] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> list[Node]:
    names = {t for n in nodes for t in (*n.inputs, *n.outputs)}
    tensors = {t: TensorSpec(params.get(t, (shapes or {}).get(t, shape))) for t in names}
    return compose(nodes, tensors, set(params), outputs, transposed or {}, scalars or {}, {})


def node(op: str, inputs: str, output: str, **attrs: object) -> Node:
    return Node(op, tuple(inputs.split()), (output,), attrs, output)  # type: ignore[arg-type]


def test_bias_joins_its_convolution() -> None:
    conv = node("Conv", "x w", "c", group=1)
    found = composed([conv, node("Add", "c b", "y")], {"w": (4, 4, 1, 1), "b": (1, 4, 1, 1)})
    assert [(n.op, n.inputs, n.attrs) for n in found] == [("Conv", ("x", "w", "b.flat"), {"group": 1})]


def test_bias_stays_apart_when_the_convolution_has_another_reader() -> None:
    nodes = [node("Conv", "x w", "c"), node("Add", "c b", "y"), node("Relu", "c", "z")]
    found = composed(nodes, {"w": (4, 4, 1, 1), "b": (1, 4, 1, 1)}, outputs=("y", "z"))
    assert [n.op for n in found] == ["Conv", "Add", "Relu"]


def test_a_row_is_no_bias_of_a_convolution() -> None:
    nodes = [node("Conv", "x w", "c"), node("Add", "c b", "y")]
    assert [n.op for n in composed(nodes, {"w": (4, 4, 1, 1), "b": (5,)})] == ["Conv", "Add"]


def test_product_and_row_are_gemm_with_the_weight_as_it_was() -> None:
    source = Value("w", (7, 3), TensorSpec((1,)).dtype, const=True)
    found = composed(
        [node("MatMul", "x w.T", "m"), node("Add", "m b", "y")],
        {"w.T": (3, 7), "b": (7,)},
        shapes={"x": (2, 3), "m": (2, 7), "y": (2, 7)},
        transposed={"w.T": source},
    )
    assert [(n.op, n.inputs, n.attrs) for n in found] == [("Gemm", ("x", "w", "b"), {"transA": 0, "transB": 1})]


def test_batched_product_stays_matmul() -> None:
    shapes = {"x": (2, 5, 3), "m": (2, 5, 7), "y": (2, 5, 7)}
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    assert [n.op for n in composed(nodes, {"w": (3, 7), "b": (7,)}, shapes=shapes)] == ["MatMul", "Add"]


def test_batch_normalisation() -> None:
    channel = (1, 4, 1, 1)
    nodes = [node("Sub", "x m", "a"), node("Div", "a d", "b"), node("Mul", "b g", "c"), node("Add", "c s", "y")]
    found = composed(nodes, dict.fromkeys("mdgs", channel))
    assert [(n.op, n.inputs) for n in found] == [("BatchNormalization", ("x", "g.flat", "s.flat", "m.flat", "d.flat"))]


def test_layer_normalisation_as_decomposed() -> None:
    nodes = [
        node("ReduceMean", "x", "mean", axes=(2,), keepdims=1),
        node("Sub", "x mean", "centred"),
        node("ReduceMean", "x", "mean2", axes=(2,), keepdims=1),
        node("Sub", "x mean2", "distance"),
        node("Mul", "distance distance", "square"),
        node("ReduceMean", "square", "variance", axes=(2,), keepdims=1),
        node("Add", "variance eps", "shifted"),
        node("Sqrt", "shifted", "root"),
        node("Div", "centred root", "normal"),
        node("Mul", "normal g", "scaled"),
        node("Add", "scaled b", "y"),
    ]
    found = composed(nodes, {"eps": (), "g": (8,), "b": (8,)}, {"eps": 1e-5}, shape=(2, 3, 8))
    assert [(n.op, n.inputs, n.attrs) for n in found] == [("LayerNormalization", ("x", "g", "b"), {"axis": 2})]


def test_clip_hard_sigmoid_and_hard_swish() -> None:
    scalars = {"lo": 0.0, "hi": 1.0, "a": 0.2, "h": 0.5, "three": 3.0, "six": 6.0}
    params: dict[str, tuple[int, ...]] = dict.fromkeys(scalars, ())
    bounds = [node("Max", "x lo", "a1"), node("Min", "a1 hi", "y")]
    assert [(n.op, n.attrs) for n in composed(bounds, params, scalars)] == [("Clip", {"min": 0.0, "max": 1.0})]
    sigmoid = [node("Mul", "a x", "m"), node("Add", "m h", "s"), node("Clip", "s", "y", min=0.0, max=1.0)]
    assert [(n.op, n.attrs) for n in composed(sigmoid, params, scalars)] == [
        ("HardSigmoid", {"alpha": 0.2, "beta": 0.5})
    ]
    swish = [
        node("Add", "x three", "s"), node("Clip", "s", "c", min=0.0, max=6.0),
        node("Div", "c six", "d"), node("Mul", "x d", "y"),
    ]  # fmt: skip
    assert [(n.op, n.inputs) for n in composed(swish, params, scalars)] == [("HardSwish", ("x",))]
    elsewhere = [*swish[:3], node("Mul", "z d", "y")]
    assert [n.op for n in composed(elsewhere, params, scalars)] == ["Add", "Clip", "Div", "Mul"]


def test_unbounded_clip_keeps_no_bound() -> None:
    found = composed([node("Max", "x lo", "y")], {"lo": ()}, {"lo": -float("inf")})
    assert [(n.op, n.attrs) for n in found] == [("Clip", {})]


def test_stack_and_sum_are_add_and_a_lone_stack_is_concat() -> None:
    stacked = {"s": (2, *SHAPE)}
    nodes = [node("relax.stack", "x z", "s", axis=0), node("ReduceSum", "s", "y", axes=(0,), keepdims=0)]
    assert [(n.op, n.inputs) for n in composed(nodes, {}, shapes=stacked)] == [("Add", ("x", "z"))]
    alone = composed(nodes[:1], {}, shapes=stacked, outputs=("s",))
    assert [n.op for n in alone] == ["Unsqueeze", "Unsqueeze", "Concat"]


def test_root_of_squares_and_reciprocal() -> None:
    nodes = [
        node("Mul", "x x", "q"), node("ReduceSum", "q", "t", axes=(1,), keepdims=1), node("Sqrt", "t", "r"),
        node("Div", "one r", "y"),
    ]  # fmt: skip
    found = composed(nodes, {"one": ()}, {"one": 1.0})
    assert [n.op for n in found] == ["ReduceL2", "Reciprocal"]
    assert found[0].attrs == {"axes": (1,), "keepdims": 1}


def test_local_response_normalisation() -> None:
    nodes = [
        node("Mul", "x x", "q"), node("Unsqueeze", "q", "u", axes=(1,)),
        node("AveragePool", "u", "p", kernel_shape=(5, 1, 1)), node("Squeeze", "p", "s", axes=(1,)),
        node("Mul", "s alpha", "m"), node("Add", "m k", "a"), node("Pow", "a beta", "w"), node("Div", "x w", "y"),
    ]  # fmt: skip
    scalars = {"alpha": 1e-4, "k": 1.0, "beta": 0.75}
    found = composed(nodes, dict.fromkeys(scalars, ()), scalars)
    assert [(n.op, n.attrs) for n in found] == [("LRN", {"size": 5})]


def test_softmax_over_flattened_axes() -> None:
    nodes = [node("Reshape", "x", "f"), node("Softmax", "f", "s", axis=1), node("Reshape", "s", "y")]
    wide = composed(nodes, {}, shape=(1, 9, 2, 1), shapes={"f": (1, 18), "s": (1, 18)})
    assert [(n.op, n.attrs) for n in wide] == [("Softmax", {"axis": 1, "flatten": 1})]
    narrow = composed(nodes, {}, shape=(1, 9, 1, 1), shapes={"f": (1, 9), "s": (1, 9)})
    assert [(n.op, n.attrs) for n in narrow] == [("Softmax", {"axis": 1})]
