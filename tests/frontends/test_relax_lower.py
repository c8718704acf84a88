"""Whole Relax programs through TVM: files, shapes, control flow, fused and composite functions, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("tvm", reason="apache-tvm is not installed; pip install 'ledg-cost[tvm]'")

from onnx import TensorProto, helper, numpy_helper

import frontends
from costmodel.analysis import analyze
from costmodel.errors import DynamicShapeError, InputError, ModelLoadError
from frontends.relax_load import parse
from tests.frontends.relax_programs import fused, legalized, lower, ops, program, relax, tensor, tvm

O = relax.op  # noqa: E741


def network() -> onnx.ModelProto:
    """Convolution, pool, normalisation, residual, mean, Gemm, softmax."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.random(shape, dtype=np.float32) + 0.5, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "g", "s", "m", "v"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["c2"], ["h2"]),
        helper.make_node("Sum", ["h2", "p1"], ["a2"]),
        helper.make_node("GlobalAveragePool", ["a2"], ["q"]),
        helper.make_node("Reshape", ["q", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["l"], transB=1),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    weights = [
        weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("g", 8), weight("s", 8), weight("m", 8), weight("v", 8),
        weight("w2", 8, 1, 3, 3), weight("b2", 8), weight("w3", 5, 8), weight("b3", 5),
        numpy_helper.from_array(np.array([1, 8]), "flat"),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture(scope="module")
def imported() -> object:
    from tvm.relax.frontend.onnx import from_onnx

    return from_onnx(network())


def test_onnx_and_its_relax_import_are_the_same_graph(imported: object) -> None:
    assert frontends.load(imported).fingerprint == frontends.load(network()).fingerprint


def test_legalised_and_fused_forms_are_the_same_graph(imported: object) -> None:
    original = frontends.load(network())
    decomposed = relax.transform.DecomposeOpsForInference()(imported)
    for module in (legalized(decomposed), fused(relax.transform.FoldConstant()(decomposed))):
        graph = lower(module)
        assert sorted(ops(graph)) == sorted(ops(original))
        assert analyze(graph).flops == analyze(original).flops
        assert analyze(graph).params == analyze(original).params


def test_text_and_json_give_the_live_modules_graph(imported: object, tmp_path: Path) -> None:
    live = frontends.load(imported).fingerprint
    text, json = tmp_path / "net.txt", tmp_path / "net.json"
    text.write_text(imported.script(show_meta=True))  # type: ignore[attr-defined]
    json.write_text(tvm.ir.save_json(imported))
    assert frontends.load(text).fingerprint == live
    assert frontends.load(json).fingerprint == live


def test_text_without_constants_and_broken_text_are_clean_errors(imported: object, tmp_path: Path) -> None:
    path = tmp_path / "net.txt"
    path.write_text(imported.script(show_meta=False))  # type: ignore[attr-defined]
    with pytest.raises(ModelLoadError, match="show_meta=True"):
        frontends.load(path)
    path.write_text("@I.ir_module\nclass Module:\n    @R.function\n    def main(x: R.Tensor((1,, 2")
    with pytest.raises(ModelLoadError, match="not TVMScript"):
        frontends.load(path)
    path.write_text('{"root_index": 3, "nodes": [{"type": "no.such.Type"}]}')
    with pytest.raises(ModelLoadError, match="not JSON of this TVM"):
        frontends.load(path)


def test_parameters_after_the_inputs_are_weights() -> None:
    from tvm.relax.frontend.onnx import from_onnx

    kept = from_onnx(network(), keep_params_in_input=True)
    graph = lower(kept)
    assert graph.inputs == ("x",)
    assert analyze(graph).params == analyze(frontends.load(network())).params


SYMBOLIC = """
from tvm.script import ir as I, relax as R, tirx as T
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor(("n", 3, "h", 8), "float32")) -> R.Tensor(("n", "24*h"), "float32"):
        n = T.int64()
        h = T.int64()
        with R.dataflow():
            y = R.reshape(x, R.shape([n, 24 * h]))
            z = R.nn.relu(y)
            R.output(z)
        return z
"""


def test_symbolic_axes_are_bound_by_batch_and_shapes() -> None:
    module = parse(SYMBOLIC, "symbolic")
    graph = lower(module, batch=4, shapes={"h": 5})
    assert graph.tensors[graph.outputs[0]].shape == (4, 120)
    assert lower(module, shapes={"x": (2, 3, 5, 8)}).tensors[graph.inputs[0]].shape == (2, 3, 5, 8)
    with pytest.raises(DynamicShapeError) as error:
        lower(module)
    assert error.value.symbols == ("h",)


def test_fixed_batch_is_replaced_before_legalisation_only(imported: object) -> None:
    module = program(lambda x, w: O.nn.relu(O.matmul(x, w)), tensor(1, 6), tensor(6, 7))
    weights = module["main"].with_attr("num_input", 1)
    module = tvm.IRModule({"main": weights})
    graph = lower(module, batch=3)
    assert graph.tensors[graph.outputs[0]].shape == (3, 7)
    with pytest.raises(InputError, match="written for batch 1"):
        lower(legalized(module), batch=3)


COMPUTED = """
from tvm.script import ir as I, relax as R, tirx as T
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((28, 8), "float32")) -> R.Tensor(ndim=2, dtype="float32"):
        n = T.int64()
        a = R.floor_divide(R.const(-27, "int64"), R.const(2, "int64"))
        b = R.reshape(R.negative(a), R.shape([1]))
        c: R.Tensor((1,), "int64") = b
        s = R.tensor_to_shape(c)
        t = R.match_cast(s, R.Shape([n]))
        y = R.reshape(x, R.shape([n, 16]))
        return y
"""


def test_computed_sizes_are_folded_and_round_down() -> None:
    graph = lower(parse(COMPUTED, "computed"))
    assert ops(graph) == ["Reshape"]
    assert graph.tensors[graph.outputs[0]].shape == (14, 16)


def test_computed_sizes_reach_legalised_functions() -> None:
    text = COMPUTED.replace("return y", "z = R.permute_dims(y)\n        return z")
    text = text.replace("R.reshape(x, R.shape([n, 16]))", "R.strided_slice(x, [0], [0], [n])")
    graph = lower(legalized(parse(text, "computed")))
    assert ops(graph) == ["Slice", "Transpose"]
    assert graph.tensors[graph.outputs[0]].shape == (8, 14)


BRANCHES = """
from tvm.script import ir as I, relax as R
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((4, 4), "float32"), c: R.Tensor((), "bool")) -> R.Tensor((4, 4), "float32"):
        if c:
            w = R.add(x, x)
        else:
            w = R.matmul(x, x)
        t = (w, x)
        y = R.subtract(t[0], t[1])
        return y
"""


def test_the_costlier_branch_counts_and_tuples_resolve() -> None:
    assert ops(lower(parse(BRANCHES, "branches"))) == ["MatMul", "Sub"]


def test_external_calls_are_opaque_with_their_bytes() -> None:
    module = program(lambda x: O.nn.relu(relax.call_dps_packed("lib.kernel", (x,), out_ty=tensor(4, 8))), tensor(4, 4))
    graph = lower(module)
    assert ops(graph) == ["tvm.lib.kernel", "Relu"]
    assert graph.nodes[0].opaque
    assert analyze(graph).nodes[0].read_elems == 16


def test_composite_functions_are_inlined(imported: object) -> None:
    from tvm.relax.dpl import is_op, wildcard

    pattern = is_op("relax.nn.relu")(wildcard())
    parts = relax.transform.FuseOpsByPattern([("demo.relu", pattern)], annotate_codegen=True)(imported)
    assert lower(parts).fingerprint == lower(imported).fingerprint


def test_recursion_and_modules_without_an_entry_are_clean_errors() -> None:
    recursive = """
from tvm.script import ir as I, relax as R
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        cls = Module
        y: R.Tensor((4,), "float32") = cls.main(x)
        return y
"""
    with pytest.raises(InputError, match="calls itself"):
        lower(parse(recursive, "recursive"))
    one = program(O.nn.relu, tensor(4))["main"]
    several = tvm.IRModule({"prefill": one.with_attr("global_symbol", "prefill"), "decode": one})
    with pytest.raises(InputError, match="no 'main'"):
        lower(several)
    assert ops(lower(several["decode"])) == ["Relu"]


def test_unmapped_tir_function_is_opaque() -> None:
    from tvm import te

    def odd(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda i: x[(i * i) % 7] + 1.0, name="odd")

    builder = relax.BlockBuilder()
    x = relax.Var("x", tensor(7))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(builder.emit_te(odd, x))
        builder.emit_func_output(out)
    graph = lower(builder.get())
    assert graph.nodes[0].opaque
    assert analyze(graph).nodes[0].write_elems == 7
