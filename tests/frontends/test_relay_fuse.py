from __future__ import annotations

import pytest

from tests.frontends.relay_programs import main, ops

X3 = "%x: Tensor[(2, 6, 8), float32]"
SPELT = """%0 = mean(%x, axis=[2], keepdims=True); %1 = variance(%x, %0, axis=[2], keepdims=True); %2 = add(%1, 1e-6f);
  %3 = sqrt(%2); %4 = subtract(%x, %0); %5 = divide(1f, %3); %6 = multiply(%4, %5); %7 = multiply(%6, %g);
  add(%7, %b)"""


def test_layer_normalisation_as_importers_spell_it() -> None:
    found = main(X3 + ", %g: Tensor[(8), float32], %b: Tensor[(8), float32]", SPELT)
    assert ops(found) == ["LayerNormalization"]
    assert found.nodes[0].attrs == {"axis": 2}
    assert found.nodes[0].inputs == ("x", "g", "b")


def test_a_layer_normalisation_that_exporters_spelled_out_is_left_alone() -> None:
    body = """%0 = mean(%x, axis=[-1], keepdims=True); %1 = subtract(%x, %0); %2 = power(%1, 2f);
    %3 = mean(%2, axis=[-1], keepdims=True); %4 = add(%3, 1e-5f); %5 = sqrt(%4); %6 = divide(%1, %5);
    %7 = multiply(%6, %g); add(%7, %b)"""
    found = main(X3 + ", %g: Tensor[(8), float32], %b: Tensor[(8), float32]", body)
    assert ops(found) == ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%0 = multiply(%x, 0.2f); %1 = add(%0, 0.5f); clip(%1, a_min=0f, a_max=1f)", ["HardSigmoid"]),
        (
            "%0 = multiply(%x, 0.166667f); %1 = add(%0, 0.5f); %2 = clip(%1, a_min=0f, a_max=1f); multiply(%x, %2)",
            ["HardSwish"],
        ),
        ("maximum(%x, 1e-12f)", ["Clip"]),
        ("%0 = multiply(%x, %x); %1 = sum(%0, axis=[2], keepdims=True); sqrt(%1)", ["ReduceL2"]),
        ("%0 = multiply(%x, 0.2f); %1 = add(%0, 0.5f); clip(%1, a_min=0f, a_max=6f)", ["Mul", "Add", "Clip"]),
    ],
)
def test_other_operators_that_importers_spell_out(body: str, expected: list[str]) -> None:
    assert ops(main(X3, body)) == expected


def test_a_product_between_reshapes_is_one_product() -> None:
    body = """%0 = reshape(%x, newshape=[-1, 8]); %1 = nn.dense(%0, %w, units=5);
    %2 = reshape(%1, newshape=[2, 6, 5]); add(%2, %b)"""
    found = main(X3 + ", %w: Tensor[(5, 8), float32], %b: Tensor[(5), float32]", body)
    assert ops(found) == ["MatMul", "Add"]
    assert [found.tensors[t].shape for t in found.nodes[0].inputs] == [(2, 6, 8), (8, 5)]


def test_batch_axes_that_were_joined_are_put_apart() -> None:
    body = """%0 = reshape(%q, newshape=[6, 4, 8]); %1 = reshape(%k, newshape=[6, 8, 5]);
    %2 = nn.batch_matmul(%0, %1); reshape(%2, newshape=[2, 3, 4, 5])"""
    found = main("%q: Tensor[(2, 3, 4, 8), float32], %k: Tensor[(2, 3, 8, 5), float32]", body)
    assert ops(found) == ["MatMul"]
    assert found.tensors[found.outputs[0]].shape == (2, 3, 4, 5)


def test_a_bias_is_taken_only_by_the_product_it_belongs_to() -> None:
    image, weight = "%x: Tensor[(1, 3, 8, 8), float32]", "%w: Tensor[(4, 3, 3, 3), float32]"
    shared = "%0 = nn.conv2d(%x, %w); %1 = nn.bias_add(%0, %b); multiply(%0, %1)"
    assert ops(main(f"{image}, {weight}, %b: Tensor[(4), float32]", shared)) == ["Conv", "Add", "Mul"]
    plain = "%0 = nn.conv2d(%x, %w); add(%0, %b)"
    assert ops(main(f"{image}, {weight}, %b: Tensor[(4, 1, 1), float32]", plain)) == ["Conv", "Add"]
    rows = "%0 = nn.dense(%x, %w, units=3); add(%0, %b)"
    assert ops(main("%x: Tensor[(2, 4), float32], %w, %b: Tensor[(3), float32]", rows)) == ["Gemm"]
    assert ops(main("%x: Tensor[(2, 4), float32], %w, %b: Tensor[(2, 3), float32]", rows)) == ["Gemm", "Add"]
