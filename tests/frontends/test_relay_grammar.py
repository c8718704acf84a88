from __future__ import annotations

import pytest

from costmodel.errors import ModelLoadError
from frontends.relay_grammar import parse_program, type_comments


@pytest.mark.parametrize(
    "text",
    [
        "fn (%x: int32) { %x }",
        "v0.0.4\nfn (%x: Tensor[(1, ?), float32],) -> Tensor[(1, ?), float32] { nn.relu(%x) }",
        "def @main() { () }",
        "extern type Storage\ntype nat { zero, succ(nat), }",
        "free_var %x: Tensor[(2), float32];\nnegative(%x)",
        'def @f(%x: fn (float32) -> float32, Primitive=1, hash="a") { %x(1f) }',
        "def @f(%x {virtual_device=meta[VirtualDevice][0]}: float32) { %x }",
        "def @f(%t: (float32, int8)) { match (%t) { (%a, _) => %a, } }",
        "def @f(%x: ref(float32)) { if (%x == 1) { %x } else { %x } }",
        "def @f(%x: List[float32]) { match? (%x) { Cons(%h: float32, Nil) => { %h }, } }",
    ],
)
def test_every_form_of_program_is_accepted(text: str) -> None:
    parse_program(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"),
    [
        ("def @main(%x: float32) {\n  nn.relu(%x\n}\n", 3, 1, "')'"),
        ("def @main(%x: float32) {\n  let %y nn.relu(%x);\n %y }", 2, 10, "'='"),
        ("def @main(%x: float32) { %x", 1, 28, "'}'"),
        ("def @main(%x) { %x $ %x }", 1, 20, "'('"),
    ],
)
def test_a_syntax_error_says_where_and_what_was_expected(text: str, line: int, column: int, expected: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        parse_program(text)
    message = str(caught.value)
    assert f"line {line}, column {column}" in message
    assert expected in message.partition("expected")[2]
    assert "\n" not in message


def test_type_comments_belong_to_the_code_before_them() -> None:
    text = "f(%a) /* en_id=3 */ /* ty=int8 span=x:1:2 */, /* plain */ %b /* ty=(int8, int8) */ /* ty="
    assert type_comments(text) == {text.index(")") + 1: "int8", text.index("%b") + 2: "(int8, int8)"}
