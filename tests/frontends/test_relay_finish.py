from __future__ import annotations

from costmodel.ir import DType
from tests.frontends.relay_programs import CONV_NET, graph, main, ops


def test_weights_are_told_from_inputs() -> None:
    found = graph(CONV_NET)
    assert found.inputs == ("data",)
    assert {"w", "fc", "b", "fc_b"} <= found.params
    assert ops(found) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert [len(n.inputs) for n in found.nodes if n.op in ("Conv", "Gemm")] == [3, 3]


def test_several_inputs() -> None:
    body = "%0 = nn.conv2d(%a, %w); %1 = nn.conv2d(%b, %w); add(%0, %1)"
    image = "Tensor[(1, 3, 8, 8), float32]"
    found = main(f"%a: {image}, %b: {image}, %w: Tensor[(4, 3, 3, 3), float32]", body)
    assert found.inputs == ("a", "b")


def test_elementwise_operands_of_the_same_shape_are_inputs_unless_named_as_weights() -> None:
    tensor = "Tensor[(1, 4, 8), float32]"
    assert main(f"%x: {tensor}, %y: {tensor}", "add(%x, %y)").inputs == ("x", "y")
    assert main(f"%x: {tensor}, %pos_embed: {tensor}", "add(%x, %pos_embed)").inputs == ("x",)
    assert main(f"%x: {tensor}, %s: Tensor[(8), float32]", "multiply(%x, %s)").inputs == ("x",)


def test_an_embedding_table_is_a_weight_and_its_indices_an_input() -> None:
    found = main("%table: Tensor[(100, 8), float32], %ids: Tensor[(1, 5), int64]", "take(%table, %ids, axis=0)")
    assert found.inputs == ("ids",)
    assert found.params == {"table"}
    assert found.tensors["ids"].dtype is DType.INT64


def test_what_is_computed_from_weights_alone_is_folded() -> None:
    body = """%0 = add(%v, 1e-5f); %1 = sqrt(%0); %2 = divide(%g, %1); %3 = reshape(%2, newshape=[4, 1, 1, 1]);
    %4 = multiply(%w, %3); nn.conv2d(%x, %4)"""
    found = main(
        "%x: Tensor[(1, 3, 8, 8), float32], %w: Tensor[(4, 3, 3, 3), float32], %g: Tensor[(4), float32],"
        " %v: Tensor[(4), float32]",
        body,
    )
    assert ops(found) == ["Conv"]
    assert found.inputs == ("x",)
    assert found.tensors[found.nodes[0].inputs[1]].shape == (4, 3, 3, 3)


def test_batch_norm_has_five_operands_and_one_result() -> None:
    found = main("%x: Tensor[(1, 3, 8, 8), float32], %g, %b, %m, %v", "%0 = nn.batch_norm(%x, %g, %b, %m, %v); %0.0")
    assert ops(found) == ["BatchNormalization"]
    assert len(found.nodes[0].inputs) == 5
    assert len(found.nodes[0].outputs) == 1
    assert not found.nodes[0].attrs
