"""The forms of networks, against onnxruntime's own folding and each other, and what the estimates make of them."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from costmodel import load_graph
from costmodel.canonical import canonical
from costmodel.corpora import build
from costmodel.corpora.blocks import NetBuilder
from costmodel.features import platform_rates, roofline_times
from costmodel.forms import Rewritten, rewrite
from costmodel.ir import Graph, Node, TensorSpec
from costmodel.platforms import resolve
from costmodel.predictor import LeDGFormerModel, load

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def exported(graph: Graph) -> Rewritten:
    found = rewrite(canonical(graph), exported=True)
    assert found is not None
    return found


def block(bias: bool = False, **options: int) -> Graph:
    """Conv, BatchNormalization, Relu."""
    net = NetBuilder()
    y = net.conv(net.input((2, 3, 8, 8)), 16, 3, bias=bias, **options)
    return net.build([net.unary("Relu", net.batch_norm(y))])


def plain() -> Graph:
    net = NetBuilder()
    return net.build([net.unary("Relu", net.conv(net.input((2, 3, 8, 8)), 16, 3, bias=True))])


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_takes_in_what_normalises_it(bias: bool) -> None:
    found = exported(block(bias))
    assert found.graph.fingerprint == plain().fingerprint
    assert (found.before.tolist(), found.after.tolist()) == ([0, 0, 2], [0, 2])
    assert rewrite(found.graph, exported=True) is None
    assert rewrite(block(bias), exported=False) is None


def caffe(spread: tuple[int, ...], first: bool = False) -> Graph:
    """Conv, BatchNormalization and a Scale layer, whose factors have the shape `spread`, or the layer before."""
    net = NetBuilder()
    y = net.conv(net.input((2, 3, 8, 8)), 16, 3)
    y = y if first else net.batch_norm(y)
    for op, swap in (("Mul", False), ("Add", True)):
        operands = [y, net.param(spread)]
        y = net.node(op, operands[::-1] if swap else operands, net.shape(y))
    y = net.batch_norm(y) if first else y
    return net.build([net.unary("Relu", y)])


@pytest.mark.parametrize("spread", [(16, 1, 1), (1, 16, 1, 1), (1,), ()])
def test_a_scale_layer_behind_goes_with_it(spread: tuple[int, ...]) -> None:
    found = exported(caffe(spread))
    assert found.graph.fingerprint == plain().fingerprint
    assert (found.before.tolist(), found.after.tolist()) == ([0, 0, 0, 0, 4], [0, 4])


def test_a_scale_per_pixel_or_before_the_normalisation_stays() -> None:
    assert [n.op for n in exported(caffe((8, 8))).graph.nodes] == ["Conv", "Mul", "Add", "Relu"]
    assert rewrite(caffe((16, 1, 1), first=True), exported=True) is None


def normalised_first(net: NetBuilder) -> str:
    return net.conv(net.unary("Relu", net.batch_norm(net.input((2, 3, 8, 8)))), 16, 3)


def read_twice(net: NetBuilder) -> str:
    y = net.conv(net.input((2, 3, 8, 8)), 16, 3)
    return net.plus(net.batch_norm(y), y)


def with_weights_of_the_run(net: NetBuilder) -> str:
    y = net.node("Conv", [net.input((2, 3, 8, 8)), net.input((16, 3, 1, 1))], (2, 16, 8, 8), kernel_shape=(1, 1))
    return net.batch_norm(y)


def with_statistics_of_the_run(net: NetBuilder) -> str:
    y = net.conv(net.input((2, 3, 8, 8)), 16, 3)
    mean = net.input((16,))
    return net.node("BatchNormalization", [y, net.param((16,)), net.param((16,)), mean, net.param((16,))], net.shape(y))


@pytest.mark.parametrize(
    "layers", [normalised_first, read_twice, with_weights_of_the_run, with_statistics_of_the_run]
)  # fmt: skip
def test_other_normalisations_stay(layers: Callable[[NetBuilder], str]) -> None:
    net = NetBuilder()
    assert rewrite(net.build([layers(net)]), exported=True) is None


def test_a_result_that_is_given_out_stays() -> None:
    net = NetBuilder()
    y = net.conv(net.input((2, 3, 8, 8)), 16, 3)
    assert rewrite(net.build([net.batch_norm(y), y]), exported=True) is None


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "shufflenet"])
def test_onnxruntime_folds_the_same(name: str, tmp_path: Path) -> None:
    path = LIGHT / f"light_{name}.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    theirs = canonical(load_graph(tmp_path / "folded.onnx"))
    ours = exported(load_graph(path)).graph
    mine, other = (Counter(n.op for n in g.nodes) for g in (ours, theirs))
    for op in ("BatchNormalization", "Mul", "Add"):
        assert mine[op] == other[op], op


def test_rewriting_keeps_the_canonical_order() -> None:
    """So `after` holds for the graph that is analysed."""
    rng = random.Random(0)
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    cells = ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*rng.choices(ops, k=6)) for _ in range(20)]
    files = [load_graph(LIGHT / f"light_{name}.onnx") for name in ("densenet121", "inception_v2", "shufflenet")]
    for graph in [*files, *(build(f"nb201/{cell}") for cell in cells)]:
        found = exported(graph)
        assert canonical(found.graph) is found.graph
        assert sorted(set(found.before)) == sorted(set(found.after))
    for graph in (transformer(), transformer(gelu=False), transformer(norm=False)):
        for form in (True, False):
            rewritten = rewrite(graph, form)
            assert rewritten is None or canonical(rewritten.graph) is rewritten.graph


def transformer(norm: bool = True, gelu: bool = True, twice: bool = False, axis: int = 2) -> Graph:
    """Two layers of LayerNormalization, MatMul and Gelu with a residual, whole or in their parts."""
    net = NetBuilder()
    x = net.input((2, 7, 16))
    for _ in range(2):
        y = whole_norm(net, x) if norm else written_out_norm(net, x, twice, axis)
        y = net.node("MatMul", [y, net.param((16, 16))], (2, 7, 16))
        y = net.node("Gelu", [y], (2, 7, 16), approximate="none") if gelu else written_out_gelu(net, y)
        x = net.plus(x, y)
    return canonical(net.build([x]))


def whole_norm(net: NetBuilder, x: str) -> str:
    return net.node("LayerNormalization", [x, net.param((16,)), net.param((16,))], net.shape(x), axis=2)


def written_out_norm(net: NetBuilder, x: str, twice: bool, axis: int) -> str:
    def centre() -> str:
        return net.node("Sub", [x, net.mean(x, axis)], net.shape(x))

    mean = centre()
    other = net.node("Sub", net.nodes[-1].inputs, net.shape(x)) if twice else mean
    variance = net.mean(net.scalar("Pow", mean), axis)
    y = net.node("Div", [other, net.unary("Sqrt", net.scalar("Add", variance))], net.shape(x))
    for op in ("Mul", "Add"):
        y = net.node(op, [y, net.param((16,))], net.shape(x))
    return y


def written_out_gelu(net: NetBuilder, x: str) -> str:
    one_more = net.scalar("Add", net.unary("Erf", net.scalar("Div", x)))
    return net.scalar("Mul", net.node("Mul", [x, one_more], net.shape(x)))


@pytest.mark.parametrize("twice", [False, True])
def test_a_layer_norm_in_its_parts_is_one_in_both_forms(twice: bool) -> None:
    parts = transformer(norm=False, twice=twice)
    assert exported(parts).graph.fingerprint == exported(transformer()).graph.fingerprint
    layers = rewrite(parts, exported=False)
    assert layers is not None
    assert layers.graph.fingerprint == transformer().fingerprint
    assert np.bincount(layers.before).max() == 9 + twice


def test_what_is_no_layer_norm_stays_in_its_parts() -> None:
    """Means over another axis, and a mean that is read elsewhere."""
    other = transformer(norm=False, axis=1)
    assert Counter(n.op for n in exported(other).graph.nodes)["Sqrt"] == 2
    net = NetBuilder()
    y = written_out_norm(net, net.input((2, 7, 16)), twice=False, axis=2)
    mean = next(n.outputs[0] for n in net.nodes if n.op == "ReduceMean")
    assert rewrite(net.build([y, mean]), exported=True) is None


def test_gelu_is_a_layer_or_in_its_parts() -> None:
    parts, whole = transformer(gelu=False), transformer()
    assert exported(whole).graph.fingerprint == parts.fingerprint
    assert rewrite(parts, exported=True) is None
    layers = rewrite(parts, exported=False)
    assert layers is not None
    assert layers.graph.fingerprint == whole.fingerprint
    assert rewrite(whole, exported=False) is None


def test_swish_is_written_out() -> None:
    net = NetBuilder()
    x = net.node("Swish", [net.conv(net.input((1, 3, 8, 8)), 8, 3)], (1, 8, 8, 8), alpha=1.0)
    assert [n.op for n in exported(net.build([x])).graph.nodes] == ["Conv", "Sigmoid", "Mul"]


def test_new_tensors_take_no_name_that_is_taken() -> None:
    specs = {"x": TensorSpec((2, 8)), "y": TensorSpec((2, 8)), "y.0": TensorSpec((2, 8)), "y.half": TensorSpec((2, 8))}
    nodes = (Node("Gelu", ("x",), ("y",)), Node("Relu", ("y",), ("y.0",)), Node("Add", ("y.0", "y"), ("y.half",)))
    found = exported(Graph(nodes, specs, ("x",), ("y.half",))).graph
    made = [n.outputs[0] for n in found.nodes]
    assert len(set(made)) == len(made) == 7
    assert found.tensors["y.half"].shape == (2, 8)
    assert not found.params & set(made)


def test_layers_in_loops_run_as_often_in_their_parts() -> None:
    net = NetBuilder()
    y = net.node("Gelu", [net.input((2, 7, 16))], (2, 7, 16), approximate="none", trip_count=5)
    parts = exported(net.build([y])).graph
    assert {n.attrs["trip_count"] for n in parts.nodes} == {5}
    whole = rewrite(parts, exported=False)
    assert whole is not None
    assert whole.graph.nodes[0].attrs == {"approximate": "none", "trip_count": 5}


def hard_swish(gate: str, limits: dict[str, float], op: str = "Div") -> Graph:
    net = NetBuilder()
    x = net.input((1, 8, 8, 8))
    if gate == "HardSigmoid":
        return net.build([net.node("Mul", [x, net.node(gate, [x], net.shape(x), **limits)], net.shape(x))])
    y = net.node(gate, [net.scalar("Add", x)], net.shape(x), **limits)
    return net.build([net.scalar(op, net.node("Mul", [y, x], net.shape(x)))])


def test_hard_swish_is_one_node_where_it_is_exported() -> None:
    clip, sigmoid = {"min": 0.0, "max": 6.0}, {"alpha": 0.1666666716337204, "beta": 0.5}
    for graph in (hard_swish("Clip", clip), hard_swish("Clip", clip, "Mul"), hard_swish("HardSigmoid", sigmoid)):
        assert [(n.op, n.inputs) for n in exported(graph).graph.nodes] == [("HardSwish", graph.inputs)]
        assert rewrite(graph, exported=False) is None
    for graph in (hard_swish("Clip", {**clip, "max": 5.0}), hard_swish("HardSigmoid", {**sigmoid, "alpha": 0.2})):
        assert rewrite(graph, exported=True) is None


T4 = [resolve("t4", p) for p in ("int8", "fp16")]
EAGER = [resolve("rtx3090", "fp16", "pytorch-eager"), resolve("titan_rtx", "fp32", "pytorch-eager")]


def test_a_network_is_estimated_alike_however_it_is_written() -> None:
    """But for PyTorch at fp32, where training had BatchNormalization as nodes, and networks are read with them."""
    resnet = canonical(load_graph(LIGHT / "light_resnet50.onnx"))
    pairs = [(resnet, exported(resnet).graph), (transformer(), transformer(norm=False, gelu=False))]
    for one, other in pairs:
        for first, second in zip(*(load().estimate_many(g, [*T4, *EAGER]) for g in (one, other)), strict=True):
            if one is resnet and (first.precision, first.runtime[:7]) == ("fp32", "pytorch"):
                assert abs(first.latency_ms / second.latency_ms - 1) > 0.01
            else:
                assert first.latency_ms == pytest.approx(second.latency_ms, rel=1e-5)
                assert first.interval_ms == pytest.approx(second.interval_ms, rel=1e-5)
                assert first.warnings == second.warnings


def test_the_form_is_that_of_what_was_measured() -> None:
    expected = {
        ("t4", "int8", None): True,
        ("b200", "fp32", "tensorrt"): True,
        ("gtx1660", "fp32", "tensorrt-7.1"): True,
        ("titan_rtx", "fp32", "pytorch-eager"): False,
        ("a100", "fp32", "pytorch-eager"): False,
        ("a100", "fp16", "pytorch-eager"): True,
        ("raspi4", "fp32", "unknown"): False,
    }
    reader = load()._reader
    assert {key: reader.seen(resolve(*key)).exported for key in expected} == expected


def test_the_breakdown_has_the_nodes_of_the_model() -> None:
    for graph in (canonical(load_graph(LIGHT / "light_resnet50.onnx")), transformer(norm=False)):
        found = exported(graph)
        for platform in [*T4, *EAGER[:1]]:
            whole, left = (load().estimate(g, platform) for g in (graph, found.graph))
            assert [o.op for o in whole.operators] == [n.op for n in graph.nodes]
            merged, wanted = (
                np.bincount(groups, [o.latency_ms for o in e.operators])
                for groups, e in ((found.before, whole), (found.after, left))
            )
            np.testing.assert_allclose(merged, wanted, rtol=1e-4)
            columns = load().encode(graph).prepared.features.columns
            times = np.exp(roofline_times(columns, platform_rates(platform))[:, 3])
            first, second = np.flatnonzero(found.before == found.before[1])[:2]
            ratio = whole.operators[first].latency_ms / whole.operators[second].latency_ms
            assert ratio == pytest.approx(times[first] / times[second], rel=1e-3)


def test_latencies_are_those_of_answers_for_any_mix() -> None:
    graphs = [block(), plain(), load_graph(LIGHT / "light_shufflenet.onnx"), transformer(), NetBuilder().build([])]
    platforms = [EAGER[1], *T4, EAGER[0], resolve("raspi4")]
    model = load()
    for before in ([], T4, EAGER):
        table = model.latencies(model.encode_many(graphs, before), platforms)
        for graph, row in zip(graphs, table, strict=True):
            assert row == pytest.approx([e.latency_ms for e in model.estimate_many(graph, platforms)], rel=1e-4)


def test_only_the_form_that_is_asked_for_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = LeDGFormerModel(), []
    encode = model._encode
    monkeypatch.setattr(model, "_encode", lambda pack: read.extend(len(p.graph) for p in pack) or encode(pack))
    model.estimate_many(block(), T4)
    assert read == [2]
    model.answer(model.encode(block(), EAGER[1:]), EAGER[1:])
    assert read == [2, 3]
    model.estimate_many(plain(), [*T4, *EAGER])
    assert read == [2, 3, 2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_estimate_does_not_depend_on_the_opset(tmp_path: Path) -> None:
    """Opset 13 has no HardSwish and LayerNormalization, 17 no Gelu; and one of the files keeps BatchNormalization."""
    torch = pytest.importorskip("torch", reason="exporting needs torch; install the dev extra")
    nn = torch.nn
    convolution = [nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16), nn.Hardswish(), nn.SiLU(), nn.Flatten(2)]
    net = nn.Sequential(*convolution, nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10)).eval()
    kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    files = []
    for opset, options in ((13, kept), (13, {}), (17, {}), (20, {})):
        files.append(tmp_path / f"{len(files)}.onnx")
        torch.onnx.export(net, (torch.ones(1, 3, 32, 32),), files[-1], opset_version=opset, dynamo=False, **options)
    graphs = [load_graph(path) for path in files]
    assert len({g.fingerprint for g in graphs}) == 4
    latencies = load().latencies(load().encode_many(graphs), [*T4, EAGER[0]])
    np.testing.assert_allclose(latencies, latencies[[0] * 4], rtol=1e-4)
