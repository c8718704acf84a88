from __future__ import annotations

import logging
import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import frontends
from costmodel.errors import DynamicShapeError, InputError, LedgCostError, ModelLoadError, ShapeInferenceError
from frontends.relay_load import load, sniff
from tests.frontends.relay_programs import CONV_NET, graph, main, ops

DATA = Path(os.environ.get("LEDG_COST_DATA", Path(__file__).parents[3] / "shared" / "datasets")) / "relay"


@pytest.mark.parametrize(
    "head",
    [
        b'#[version = "0.0.5"]\ndef @main() { 1 }',
        b"v0.0.4\nfn (%x: int32) { %x }",
        b"// a comment\n/* and another */\ndef @main(%x: int8) { %x }",
        b"%0 = 1; %0",
        b'{"root": 1, "nodes": [{"type_key": ""}]}',
    ],
)
def test_relay_is_recognised(head: bytes) -> None:
    assert sniff(head)
    assert frontends.sniff(head).name == "relay"


@pytest.mark.parametrize(
    "head", [b"\x08\x07\x12\x04onnx", b"hello", b'{"nodes": []}', b"def main():\n  pass", b"PK\x03\x04", b""]
)
def test_other_content_is_not(head: bytes) -> None:
    assert not sniff(head)


def test_paths_bytes_and_live_modules_are_taken(tmp_path: Path) -> None:
    class Function:
        def astext(self, show_meta_data: bool = False) -> str:
            assert show_meta_data
            return CONV_NET

    path = tmp_path / "net.txt"
    path.write_text(CONV_NET, encoding="utf-8")
    prints = {load(source).fingerprint for source in (path, str(path), CONV_NET.encode(), Function())}
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"\xff\xfedef", "not UTF-8"),
        (b"type nat { zero }", "has no function"),
        (b"def @f() { 1 }\ndef @g() { 2 }", "no @main"),
        (b'{"root": 0}', "no table of nodes"),
        ("/nowhere/net.relay", "cannot be read"),
    ],
)
def test_what_cannot_be_read(source: object, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load(source)


def onnx_twin() -> bytes:
    """CONV_NET as ONNX."""
    nodes = [
        helper.make_node("Conv", ["data", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "fc_b"], ["y"], transB=1),
    ]
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "fc": (10, 4), "fc_b": (10,)}
    weights = [
        helper.make_tensor(n, TensorProto.FLOAT, s, bytes(4 * onnx.numpy_helper.np.prod(s)), raw=True)
        for n, s in shapes.items()
    ]
    graph_ = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))],
        weights,
    )
    return helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def test_a_network_has_the_fingerprint_of_its_onnx_twin() -> None:
    assert frontends.load(CONV_NET.encode()).fingerprint == frontends.load(onnx_twin()).fingerprint


@pytest.mark.parametrize("batch", [1, 5])
def test_batch(batch: int) -> None:
    found = graph(CONV_NET, batch=batch)
    assert found.tensors["data"].shape == (batch, 3, 8, 8)
    assert found.tensors[found.outputs[0]].shape == (batch, 10)
    assert found.tensors["w"].shape == (4, 3, 3, 3)


def test_literal_shapes_follow_the_batch() -> None:
    body = """%0 = reshape(%x, newshape=[2, 12]); %1 = zeros(shape=[2, 12], dtype="float32"); %2 = add(%0, %1);
    %3 = reshape(%2, newshape=[2, -1, 4]); %4 = (%3, meta[relay.Constant][0] /* ty=Tensor[(2, 1, 4), float32] */);
    concatenate(%4, axis=1)"""
    found = main("%x: Tensor[(2, 3, 4), float32]", body, batch=7)
    assert found.tensors[found.outputs[0]].shape == (7, 4, 4)


def test_declared_types_inside_do_not_hold_under_another_batch() -> None:
    row = "Tensor[(1, 4), float32]"
    body = f"let %y: {row} = exp(%x); %0 = fn (%p: {row}, Primitive=1) -> {row} {{ tanh(%p) }}; %0(%y)"
    found = main("%x: Tensor[(1, 4), float32]", body, batch=3)
    assert {found.tensors[n.outputs[0]].shape for n in found.nodes} == {(3, 4)}


def test_unknown_axes_need_a_batch_or_a_shape() -> None:
    params, body = "%x: Tensor[(?, 3, ?), float32]", "reshape(%x, newshape=[0, -1])"
    with pytest.raises(DynamicShapeError) as caught:
        main(params, body)
    assert caught.value.symbols == ("x",)
    found = main(params, body, shapes={"x": (2, 3, 5)})
    assert found.tensors[found.outputs[0]].shape == (2, 15)
    assert main("%x: Tensor[(?, 3), float32]", "exp(%x)", batch=4).tensors["x"].shape == (4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "not positive"),
        ({"shapes": {"data": (1, 2)}}, "one per axis"),
        ({"shapes": {"data": (1, 3, -1, 8)}}, "not a shape"),
    ],
)
def test_impossible_sizes(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        graph(CONV_NET, **options)


def test_constants_without_a_type_are_reported_not_guessed(caplog: pytest.LogCaptureFixture) -> None:
    params, body = "%x: Tensor[(2, 3), float32]", "%0 = add(%x, meta[relay.Constant][0]); exp(%0)"
    with pytest.raises(ShapeInferenceError, match=r"meta\[relay.Constant\]\[0\]"):
        main(params, body)
    found = main(params, body, shapes={"meta[relay.Constant][0]": (4, 1, 3)})
    assert found.tensors[found.outputs[0]].shape == (4, 2, 3)
    text = "def @main(%x: Tensor[(2, 3), float32]) -> Tensor[(2, 3), float32] { add(%x, meta[relay.Constant][0]) }"
    with caplog.at_level(logging.WARNING):
        assert ops(graph(text)) == ["Add"]
    assert "meta[relay.Constant][0]" in caplog.text
    with pytest.raises(ShapeInferenceError):
        graph(text, strict=True)


@pytest.mark.skipif(not DATA.is_dir(), reason="no recorded Relay programs: set LEDG_COST_DATA to the datasets' folder")
def test_recorded_programs_have_one_graph_in_every_form() -> None:
    compared, messages = 0, []
    for path in sorted(DATA.glob("*.relay")):
        prints = set()
        for form in (path, Path(f"{path}.json"), Path(f"{path}.typed.txt")):
            if form.exists():
                try:
                    prints.add(load(form).fingerprint)
                except LedgCostError as error:
                    messages.append(str(error))
        assert len(prints) <= 1, path.name
        compared += bool(prints)
    assert compared > 15
    assert not any("\n" in message for message in messages)
