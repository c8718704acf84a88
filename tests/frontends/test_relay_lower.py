from __future__ import annotations

import pytest

from costmodel.errors import DynamicShapeError, InputError, ShapeInferenceError, UnsupportedOpError
from tests.frontends.relay_programs import graph, main, ops

T = "Tensor[(2, 4), float32]"
LIST = "type List[A] { Cons(A, List[A]), Nil, }\n"


def test_global_functions_are_inlined_at_each_call() -> None:
    text = f"""def @act(%a: {T}) -> {T} {{ nn.relu(%a) }}
    def @main(%x: {T}) {{ add(@act(%x), @act(negative(%x))) }}"""
    assert sorted(ops(graph(text))) == ["Add", "Neg", "Relu", "Relu"]


def test_composite_functions_and_closures_are_inlined() -> None:
    text = f"""def @main(%x: {T}, %y: {T}) {{
      let %scale = fn (%a: {T}) {{ multiply(%a, %y) }};
      %0 = fn (%p: {T}, Composite="dnnl.act", PartitionedFromPattern="exp_") {{ exp(%p) }};
      let %twice = fn (%f, %a) {{ %f(%f(%a)) }};
      %1 = %twice(%scale, %x);
      %0(%1)
    }}"""
    assert ops(graph(text)) == ["Mul", "Mul", "Exp"]


def test_tuples_are_taken_apart() -> None:
    found = main(f"%x: {T}", "%0 = split(%x, indices_or_sections=2, axis=1); %1 = (%0.1, (%0.0, %x)); %2 = %1.1; %2.0")
    assert ops(found) == ["Split"]
    assert found.outputs == (found.nodes[0].outputs[0],)


def test_the_costlier_branch_counts_and_both_are_listed() -> None:
    body = "if (%c) { nn.relu(%x) } else { %0 = nn.dense(%x, %w, units=4); exp(%0) }"
    found = main(f"%c: bool, %x: {T}, %w: Tensor[(4, 4), float32]", body)
    assert ops(found) == ["Gemm", "Exp", "If"]
    node = found.nodes[-1]
    assert node.attrs == {"then_branch": "1 Relu", "else_branch": "1 Exp, 1 Gemm", "counted": "else"}
    assert node.inputs == (found.nodes[1].outputs[0], "c")
    assert found.nodes[0].name.startswith("Gemm_if1.else")


def test_a_known_condition_picks_its_branch() -> None:
    found = main(f"%x: {T}", "let %n = 3; if (%n * 2 == 6) { exp(%x) } else { tanh(%x) }")
    assert ops(found) == ["Exp"]


def test_functions_picked_at_run_time_are_called_in_both_branches() -> None:
    body = f"""let %f = fn (%a: {T}) {{ exp(%a) }}; let %g = fn (%a: {T}) {{ %0 = exp(%a); tanh(%0) }};
    let %h = if (%c) {{ %f }} else {{ %g }}; %h(%x)"""
    found = main(f"%c: bool, %x: {T}", body)
    assert ops(found) == ["Exp", "Tanh", "If"]
    assert found.nodes[-1].attrs["counted"] == "else"


def test_match_on_data_that_the_program_builds() -> None:
    text = (
        LIST
        + f"""
    def @fold(%f: fn ({T}, {T}) -> {T}, %acc: {T}, %xs: List[{T}]) -> {T} {{
      match (%xs) {{ Cons(%h, %t) => @fold(%f, %f(%acc, %h), %t), Nil => %acc }}
    }}
    def @main(%x: {T}) {{
      let %step = fn (%a: {T}, %b: {T}) {{ tanh(add(%a, %b)) }};
      @fold(%step, %x, Cons(%x, Cons(exp(%x), Nil)))
    }}"""
    )
    assert ops(graph(text)) == ["Exp", "Add", "Tanh", "Add", "Tanh"]


def test_nested_patterns_and_wildcards() -> None:
    text = (
        LIST
        + f"""def @main(%x: {T}) {{
      match ((Cons(%x, Nil), %x)) {{ (Nil, _) => %x, (Cons(%a, Nil), %b) => add(%a, %b), _ => exp(%x), }}
    }}"""
    )
    assert ops(graph(text)) == ["Add"]


def test_references_hold_what_was_written_last() -> None:
    found = main(f"%x: {T}", "let %r = ref(%x); let %u = ref_write(%r, exp(%x)); ref_read(%r)")
    assert ops(found) == ["Exp"]


def test_shape_arithmetic_is_evaluated() -> None:
    body = """%0 = shape_of(%x, dtype="int32"); %1 = take(%0, 0, axis=0); %2 = expand_dims(%1, axis=0);
    %3 = (%2, meta[relay.Constant][0] /* ty=Tensor[(1), int32] */); %4 = multiply(%1, 3);
    if (%4 == 6) { reshape(%x, newshape=[0, 2, -1]) } else { %x }"""
    found = main(f"%x: {T}", body.replace("reshape(%x, newshape=[0, 2, -1])", "exp(%x)"))
    assert ops(found) == ["Exp"]


def test_dead_values_and_inference_only_operators_leave_nothing() -> None:
    body = """%0 = nn.dropout(%x, rate=0.5f); let %dead = exp(%x);
    %1 = on_device(%0.0, virtual_device=meta[VirtualDevice][0]); copy(%1)"""
    assert len(main(f"%x: {T}", body)) == 0


def test_unknown_operators_keep_their_stated_type_and_are_opaque() -> None:
    found = main(f"%x: {T}", f"my.op(%x, k=2) /* ty={T} */")
    assert ops(found) == ["relay.my.op"]
    assert found.nodes[0].opaque
    with pytest.raises(UnsupportedOpError) as caught:
        main(f"%x: {T}", f"my.op(%x, k=2) /* ty={T} */", strict=True)
    assert caught.value.ops == {"my.op": 1}


def test_all_operators_without_a_type_are_named_at_once() -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        main(f"%x: {T}", "%0 = a.b(%x); %1 = c.d(%0); a.b(%1)")
    assert caught.value.ops == {"a.b": 2, "c.d": 1}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (f"def @f(%x: {T}) -> {T} {{ @f(exp(%x)) }}\ndef @main(%x: {T}) {{ @f(%x) }}", InputError, "calls deeper"),
        (
            f"def @f(%c: bool, %x: {T}) -> {T} {{ if (%c) {{ @f(%c, exp(%x)) }} else {{ %x }} }}\n"
            f"def @main(%c: bool, %x: {T}) {{ @f(%c, %x) }}",
            InputError,
            "run-time data",
        ),
        (
            f"def @main(%x: {T}) {{ let %f0 = fn (%a: {T}) {{ %a }};"
            + "".join(f"let %f{i} = fn (%a) {{ %f{i - 1}(%f{i - 1}(%a)) }};" for i in range(1, 30))
            + "%f29(%x) }",
            InputError,
            "steps to unroll",
        ),
        (LIST + "def @main(%x: List[float32]) { %x }", ShapeInferenceError, "give it a tensor type"),
        ("def @main(%x: Tensor[(2, ?), float32]) { exp(%x) }", DynamicShapeError, "%x"),
        (f"def @main(%x: {T}) {{ fn (%a: {T}) {{ add(%a, %x) }} }}\n", InputError, "returns a function"),
    ],
)
def test_programs_that_cannot_be_lowered(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        graph(text)
    assert "\n" not in str(caught.value)
