from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from costmodel.errors import LedgCostError, ModelLoadError
from frontends import load
from tests.frontends.onnx_models import conv_net, floats, info, ints, model, node

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

# Million parameters: Krizhevsky 2012, Huang 2017, Szegedy 2015, Ioffe 2015, He 2016, Zhang 2018 (g = 3), Iandola 2016,
# Simonyan 2015, Zeiler 2014, each as its ONNX model zoo file holds it. The weights stand in the file as shapes only.
LIGHT_MODELS = {
    "bvlc_alexnet": (22, 60.97),
    "densenet121": (668, 8.06),
    "inception_v1": (142, 7.00),
    "inception_v2": (371, 11.21),
    "resnet50": (176, 25.56),
    "shufflenet": (203, 1.39),
    "squeezenet": (65, 1.24),
    "vgg19": (44, 143.67),
    "zfnet512": (22, 87.25),
}


@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_light_models_of_the_onnx_package(name: str) -> None:
    from costmodel.analysis import analyze

    nodes, million = LIGHT_MODELS[name]
    graph = load(LIGHT / f"light_{name}.onnx")
    cost = analyze(graph)
    assert len(graph) == nodes
    assert cost.params / 1e6 == pytest.approx(million, abs=0.006)
    assert cost.coverage == 1.0
    assert graph.tensors[graph.outputs[0]].shape[:2] == (1, 1000)
    eight = load(LIGHT / f"light_{name}.onnx", batch=8)
    assert analyze(eight).flops == pytest.approx(8 * cost.flops, rel=1e-9)


def test_placeholders_of_missing_external_data_are_enough(tmp_path: Path) -> None:
    proto = conv_net()
    expected = load(proto).fingerprint
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "weights.bin"
    path = tmp_path / "weightless.onnx"
    path.write_bytes(proto.SerializeToString())
    assert load(path).fingerprint == expected


def test_small_integers_beside_the_model_are_read_for_shape_arithmetic(tmp_path: Path) -> None:
    proto = model([node("Reshape", ["x", "s"], ["y"])], {"x": [4, 6]}, ["y"], {"s": ints(3, -1)})
    path = tmp_path / "m.onnx"
    onnx.save_model(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert "raw_data" not in str(onnx.load(path, load_external_data=False))
    graph = load(path)
    assert graph.tensors[graph.outputs[0]].shape == (3, 8)


def test_external_data_outside_the_models_folder_is_not_opened(tmp_path: Path) -> None:
    proto = model([node("Reshape", ["x", "s"], ["y"])], {"x": [4, 6]}, ["y"], {"s": ints(3, -1)})
    tensor = proto.graph.initializer[0]
    (tmp_path / "outside.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../outside.bin"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(LedgCostError, match="depends on the content of 's'"):
        load(tmp_path / "in" / "m.onnx")


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    content = conv_net().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelLoadError, match=r"truncated ONNX file, at least \d+ bytes are missing"):
        load(path)
    for size in range(1, len(content) - 1, 11):
        with pytest.raises(LedgCostError):
            load(content[:size])


def test_a_protobuf_without_graph_is_refused() -> None:
    empty = helper.make_model(helper.make_graph([], "g", [], []))
    empty.ClearField("graph")
    with pytest.raises(ModelLoadError, match="no ONNX graph"):
        load(empty.SerializeToString())


def test_damaged_models_give_one_line_or_a_graph() -> None:
    """Bytes and fields changed at random never escape as another exception."""
    loop = helper.make_graph(
        [node("Add", ["c", "c"], ["d"]), node("Identity", ["k"], ["l"])],
        "body",
        [info("i", [], TensorProto.INT64), info("k", [], TensorProto.BOOL), info("c", [2, 3])],
        [info("l", [], TensorProto.BOOL), info("d", [2, 3])],
    )
    shaped = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Concat", ["n", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]),
        node("Split", ["r"], ["a", "b"], axis=1),
        node("Loop", ["trips", "", "a"], ["e"], body=loop),
        node("Einsum", ["e", "b"], ["y"], equation="ij,ik->jk"),
    ]
    weights = {"zero": ints(0), "rest": ints(-1), "trips": np.array(3, np.int64)}
    seeds = [conv_net().SerializeToString(), model(shaped, {"x": [2, 3, 2]}, ["y"], weights).SerializeToString()]
    dice = random.Random(0)
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(dice.choice(seeds))
        for _ in range(dice.choice((1, 1, 2, 5))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        message = ""
        try:
            load(bytes(damaged))
            outcomes.add("graph")
        except LedgCostError as error:
            message = str(error)
            outcomes.add(type(error).__name__)
        assert message.isprintable()
    assert {"graph", "ModelLoadError", "InputError"} <= outcomes


def test_weights_are_used_as_often_as_they_are_read() -> None:
    from costmodel.analysis import analyze

    nodes = [
        node("Identity", ["w"], ["same"]),
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "same"], ["y"]),
    ]
    graph = load(model(nodes, {"x": [2, 4]}, ["y"], {"w": floats(4, 4)}))
    assert [n.op for n in graph.nodes] == ["MatMul", "MatMul"]
    assert analyze(graph).params == 32
