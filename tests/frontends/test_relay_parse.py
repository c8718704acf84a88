from __future__ import annotations

import pytest

from costmodel.errors import ModelLoadError
from frontends.relay_ast import Block, Call, Const, Func, OpRef, Proj, TensorType, Var
from frontends.relay_parse import parse_text
from tests.frontends.relay_programs import graph, main, ops


def body(text: str) -> Block:
    return parse_text(text).functions["main"].body


@pytest.mark.parametrize(("header", "version"), [('#[version = "0.0.5"]', "0.0.5"), ("v0.0.4", "0.0.4"), ("", "")])
def test_versions(header: str, version: str) -> None:
    assert parse_text(f"{header}\nfn (%x: int32) {{ %x }}").version == version


@pytest.mark.parametrize(
    ("literal", "dtype", "value"),
    [
        ("3", "int32", 3),
        ("-2", "int32", -2),
        ("7i64", "int64", 7),
        ("1f", "float32", 1.0),
        ("0.5f16", "float16", 0.5),
        ("1e-05f", "float32", 1e-5),
        ("2.5", "float32", 2.5),
        ("9u8", "uint8", 9),
        ("True", "bool", True),
        ("-inff", "float32", float("-inf")),
    ],
)
def test_literals(literal: str, dtype: str, value: float) -> None:
    found = body(f"fn () {{ {literal} }}").result
    assert isinstance(found, Const)
    assert found.type == TensorType((), dtype)
    assert found.value == value


def test_a_projection_of_a_numbered_value_is_no_fraction() -> None:
    block = body("fn (%x: (int8, int8)) { %0 = (%x, %x); %0.1.0 }")
    outer = block.result
    assert isinstance(outer, Proj)
    assert outer.index == 0
    assert isinstance(outer.tuple, Proj)
    assert outer.tuple.index == 1


@pytest.mark.parametrize("name", ["%conv1.weight", "%features.0.weight", "%aten::conv_0", "%a/b/weights"])
def test_dotted_names(name: str) -> None:
    block = body(f"fn ({name}: float32) {{ {name} }}")
    assert isinstance(block.result, Var)
    assert block.result.name == name[1:]


def test_numbering_may_start_again_inside_a_function() -> None:
    text = """def @main(%x: Tensor[(2), float32]) {
      %0 = nn.relu(%x);
      %1 = fn (%p: Tensor[(2), float32], Primitive=1) { %0 = negative(%p); %1 = exp(%0); tanh(%1) };
      %2 = %1(%0);
      add(%2, %0)
    }"""
    found = graph(text)
    assert ops(found) == ["Relu", "Neg", "Exp", "Tanh", "Add"]
    assert found.nodes[4].inputs == (found.nodes[3].outputs[0], found.nodes[0].outputs[0])


def test_let_may_shadow() -> None:
    found = main("%x: Tensor[(2), float32]", "let %x = exp(%x); let %x = tanh(%x); %x")
    assert ops(found) == ["Exp", "Tanh"]


def test_infix_precedence() -> None:
    found = main("%x: float32, %y: float32", "%x + %y * %x - %y / %x < %x")
    assert ops(found) == ["Mul", "Add", "Div", "Sub", "Less"]


def test_type_arguments_in_calls_are_dropped() -> None:
    block = body('fn (%x: Tensor[(2), int8]) { cast(%x, Tensor[(2), int8], (int8, int8), int8, dtype="int32") }')
    call = block.result
    assert isinstance(call, Call)
    assert len(call.args) == 1
    assert call.attrs == {"dtype": "int32"}


def test_attributes() -> None:
    block = body(
        'fn () { f(a=[[0, 1], [-2, 3i64]], b=None, c="NCHW", d=True, e=VirtualDevice(device_type=1), g=1e-5f) }'
    )
    call = block.result
    assert isinstance(call, Call)
    assert call.attrs["a"] == [[0, 1], [-2, 3]]
    assert (call.attrs["b"], call.attrs["c"], call.attrs["d"], call.attrs["g"]) == (None, "NCHW", True, 1e-5)


def test_comments_give_constants_their_types() -> None:
    text = "fn (%x: Tensor[(2), int8] /* ty=Tensor[(2), int8] */) { add(%x, meta[relay.Constant][0] /* ty=int8 */,) }"
    call = body(text).result
    assert isinstance(call, Call)
    assert isinstance(call.fn, OpRef)
    assert isinstance(call.args[1], Const)
    assert call.args[1].type == TensorType((), "int8")


def test_functions_keep_their_attributes() -> None:
    found = body('fn () { fn (%p: int8, Primitive=1, Composite="dnnl.conv") { %p } }').result
    assert isinstance(found, Func)
    assert found.attrs == {"Primitive": 1, "Composite": "dnnl.conv"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fn () { %y }", "line 1, column 9: %y is not defined"),
        ("def @f() { 1 }\ndef @f() { 2 }", "@f is defined twice"),
        ("fn (%x: nat) { match (%x) { zero => 1 } }", "no data type has a constructor 'zero'"),
        ("fn (%x: int32) { " + "(" * 500 + "%x" + ")" * 500 + " }", "nest deeper"),
        ("fn (%x: int32) { " + "+".join(["%x"] * 900) + " }", "operands in one expression"),
        ("fn (%x: " + "(" * 500 + "int8" + ")" * 500 + ") { %x }", "nests too deep"),
        ("%0 = 1;", "found the end of the text"),
    ],
)
def test_errors_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        parse_text(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
