from __future__ import annotations

import pytest

from costmodel.errors import ShapeInferenceError
from frontends.relay_parse import parse_text
from frontends.relay_types import Inference
from frontends.relay_typetools import full

F = "float32"
X4 = "%x: Tensor[(1, 3, 10, 10), float32]"
X3 = "%x: Tensor[(2, 3, 4), float32]"


def inferred(params: str, body: str) -> str:
    module = parse_text(f"def @main({params}) {{ {body} }}")
    Inference(module).run()
    return str(full(module.functions["main"].body.ty))


def shape(params: str, body: str) -> str:
    return inferred(params, body).removeprefix("Tensor[(").removesuffix("), float32]")


CASES = [
    (
        "%x: Tensor[(1, 16, 8, 8), float32], %w",
        "nn.conv2d(%x, %w, groups=16, channels=16, kernel_size=[3, 3])",
        "1, 16, 6, 6",
    ),
    (
        "%x: Tensor[(1, 8, 8, 16), float32], %w: Tensor[(3, 3, 16, 32), float32]",
        'nn.conv2d(%x, %w, strides=[2, 2], padding=[1, 1], data_layout="NHWC", kernel_layout="HWIO")',
        "1, 4, 4, 32",
    ),
    (
        "%x: Tensor[(1, 4, 8, 8, 4), float32], %w: Tensor[(8, 4, 3, 3, 4, 4), float32]",
        'nn.contrib_conv2d_NCHWc(%x, %w, padding=[1, 1], data_layout="NCHW4c", kernel_layout="OIHW4i4o")',
        "1, 8, 8, 8, 4",
    ),
    (
        "%x: Tensor[(1, 16, 10), float32], %w: Tensor[(8, 16, 3), float32]",
        "nn.conv1d(%x, %w, padding=[1, 0])",
        "1, 8, 9",
    ),
    (
        "%x: Tensor[(1, 16, 8, 8), float32], %w: Tensor[(16, 8, 4, 4), float32]",
        "nn.conv2d_transpose(%x, %w, kernel_size=[4, 4], strides=[2, 2], padding=[1, 1], output_padding=[1, 1])",
        "1, 8, 17, 17",
    ),
    ("%x: Tensor[(2, 3, 16), float32], %w", "nn.dense(%x, %w, units=8)", "2, 3, 8"),
    (
        "%x: Tensor[(4, 5, 6), float32], %y: Tensor[(1, 7, 6), float32]",
        "nn.batch_matmul(%x, %y, transpose_b=True)",
        "4, 5, 7",
    ),
    ("%x: Tensor[(4, 5, 6), float32], %y: Tensor[(4, 6, 7), float32]", "nn.batch_matmul(%x, %y)", "4, 5, 7"),
    (X4, "nn.max_pool2d(%x, pool_size=[3, 3], strides=[2, 2], ceil_mode=True)", "1, 3, 5, 5"),
    (X4, "nn.adaptive_avg_pool2d(%x, output_size=[5, 5])", "1, 3, 5, 5"),
    (X4, "nn.upsampling(%x, scale_h=1.5f, scale_w=3f)", "1, 3, 15, 30"),
    (X4, "image.resize2d(%x, size=[20, 25])", "1, 3, 20, 25"),
    (X4, "nn.space_to_depth(%x, block_size=2)", "1, 12, 5, 5"),
    (X4, "nn.pad(%x, 0f, pad_width=[[0, 0], [0, 0], [1, 2], [3, 4]])", "1, 3, 13, 17"),
    (X4, 'layout_transform(%x, src_layout="NCHW", dst_layout="NHWC")', "1, 10, 10, 3"),
    (X3, "reshape(%x, newshape=[0, -1])", "2, 12"),
    (X3, "reshape(%x, newshape=[-3, 4])", "6, 4"),
    (X3, "reshape(%x, newshape=[2, -4, -1, 3, -2])", "2, 1, 3, 4"),
    (X3, "transpose(%x, axes=[0, -1, 1])", "2, 4, 3"),
    (X3, "expand_dims(%x, axis=-1, num_newaxis=2)", "2, 3, 4, 1, 1"),
    ("%x: Tensor[(2, 1, 1), float32]", "squeeze(%x, axis=[-1])", "2, 1"),
    (X3, "strided_slice(%x, begin=[-2], end=[-1], strides=[1], axes=[1])", "2, 1, 4"),
    (X3, "strided_slice(%x, begin=[0, 0, 3], end=[2, 3, -9], strides=[1, 1, -2])", "2, 3, 2"),
    (X3, "sum(%x, axis=[1], exclude=True, keepdims=True)", "1, 3, 1"),
    (X3, "mean(%x, axis=[-1])", "2, 3"),
    (X3, "tile(%x, reps=[2, 1, 1, 1])", "2, 2, 3, 4"),
    (X3, "repeat(%x, repeats=4, axis=1)", "2, 12, 4"),
    (X3, "%0 = (%x, %x); concatenate(%0, axis=1)", "2, 6, 4"),
    (X3, "%0 = (%x, %x); stack(%0, axis=-1)", "2, 3, 4, 2"),
    ("%x: Tensor[(20, 9), float32], %i: Tensor[(2, 4), int64]", "take(%x, %i, axis=0)", "2, 4, 9"),
    ("%x: Tensor[(20, 9, 5), float32], %i: Tensor[(2, 4), int64]", "gather_nd(%x, %i)", "4, 5"),
    ("%x: Tensor[(2, 3), int32]", 'one_hot(%x, 1f, 0f, depth=10, axis=-1, dtype="float32")', "2, 3, 10"),
    ("%x: Tensor[(2, 3), float32], %y: Tensor[(4, 1, 3), float32]", "add(%x, %y)", "4, 2, 3"),
    ("%x: Tensor[(?, 3), float32], %y: Tensor[(4, 3), float32]", "add(%x, %y)", "4, 3"),
    ("%x: Tensor[(?, 3, 4), float32]", "reshape(%x, newshape=[0, -1])", "?, 12"),
    ("%x: Tensor[(?, 3, 4), float32]", "reshape(%x, newshape=[-1, 4])", "?, 4"),
]


@pytest.mark.parametrize(("params", "body", "expected"), CASES)
def test_relations(params: str, body: str, expected: str) -> None:
    assert shape(params, body) == expected


@pytest.mark.parametrize(
    ("params", "body", "expected"),
    [
        ("%x: Tensor[(2, 8), int32]", 'qnn.requantize(%x, 0.1f, 0, 0.2f, 3, out_dtype="int8")', "Tensor[(2, 8), int8]"),
        ("%x: Tensor[(2, 8), uint8]", "qnn.dequantize(%x, 0.1f, 3)", "Tensor[(2, 8), float32]"),
        (
            "%x: Tensor[(2, 8), int8], %w: Tensor[(4, 8), int8]",
            "qnn.dense(%x, %w, 1, 0, 1f, 1f)",
            "Tensor[(2, 4), int32]",
        ),
        ("%x: Tensor[(2, 3), float32]", "less(%x, %x)", "Tensor[(2, 3), bool]"),
        ("%x: Tensor[(2, 3), float32]", "argmax(%x, axis=[1])", "Tensor[(2), int32]"),
        (
            "%x: Tensor[(9), float32]",
            "split(%x, indices_or_sections=[2, 5])",
            "(Tensor[(2), float32], Tensor[(3), float32], Tensor[(4), float32])",
        ),
        ("%x: float32", "%0 = ref(%x); ref_read(%0)", "Tensor[(), float32]"),
    ],
)
def test_other_types(params: str, body: str, expected: str) -> None:
    assert inferred(params, body) == expected


def test_operators_give_weights_their_types() -> None:
    module = parse_text(
        "def @main(%x: Tensor[(1, 3, 8, 8), float16], %w, %g, %b, %m, %v) {"
        " %0 = nn.conv2d(%x, %w, channels=4, kernel_size=[3, 3]); %1 = nn.batch_norm(%0, %g, %b, %m, %v); %1.0 }"
    )
    Inference(module).run()
    types = [str(full(p.ty)) for p in module.functions["main"].params[1:]]
    assert types == ["Tensor[(4, 3, 3, 3), float16]"] + ["Tensor[(4), float16]"] * 4


def test_generic_functions_and_data_types() -> None:
    text = """
    type Pair[A, B] { Both(A, B) }
    def @swap[A, B](%p: Pair[A, B]) -> Pair[B, A] { match (%p) { Both(%a, %b) => Both(%b, %a) } }
    def @compose[A, B, C](%f: fn (B) -> C, %g: fn (A) -> B) { fn (%x: A) -> C { %f(%g(%x)) } }
    def @main(%x: int8, %y: float32) { @swap(Both(%x, %y)) }
    """
    module = parse_text(text)
    Inference(module).run()
    assert str(full(module.functions["main"].body.ty)) == "Pair[Tensor[(), float32], Tensor[(), int8]]"
    assert str(full(module.functions["compose"].body.ty)) == "fn (A) -> C"


def test_a_function_without_a_return_type_is_inferred_before_its_callers() -> None:
    text = "def @main(%x: int8) { @dup(%x) }\ndef @dup[A](%x: A) { (%x, %x) }"
    module = parse_text(text)
    Inference(module).run()
    assert str(full(module.functions["main"].body.ty)) == "(Tensor[(), int8], Tensor[(), int8])"


def test_unknown_constants_stay_unknown() -> None:
    assert inferred("%x: float32", "add(%x, meta[relay.Constant][0])") == "_"


@pytest.mark.parametrize(
    ("params", "body", "message"),
    [
        (
            "%x: Tensor[(2), float32], %y: Tensor[(3), float32]",
            "%0 = exp(%x); %1 = add(%0, %y); %1",
            r"do not broadcast \(at %1\)",
        ),
        ("%x: Tensor[(2), float32]", "reshape(%x, newshape=[3])", "2 elements cannot take the shape"),
        ("%x: Tensor[(2), float32]", "let %y: Tensor[(3), float32] = exp(%x); %y", "do not agree"),
        (
            "%x: Tensor[(1, 3, 8, 8), float32], %w: Tensor[(4, 5, 3, 3), float32]",
            "nn.conv2d(%x, %w)",
            "weights for 5 channels",
        ),
        ("%x: Tensor[(2), float32]", "%x.0", "has no field 0"),
        ("%x: Tensor[(2), float32]", "nn.pad(%x, 0f, pad_width=7)", "do not fit"),
        ("%x: Tensor[(2), float32]", "transpose(%x, axes=[0, 0])", "no permutation"),
    ],
)
def test_contradictions_are_one_line(params: str, body: str, message: str) -> None:
    with pytest.raises(ShapeInferenceError, match=message) as caught:
        inferred(params, body)
    assert "\n" not in str(caught.value)


def test_types_that_double_are_refused() -> None:
    steps = "".join(f"%{i} = (%{i - 1}, %{i - 1});" for i in range(1, 50))
    with pytest.raises(ShapeInferenceError, match="too large"):
        inferred("%x: float32", "%0 = (%x, %x);" + steps + "on_device(%49)")
