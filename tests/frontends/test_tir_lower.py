"""Loop graphs of TIR functions, plain and scheduled."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("tvm", reason="apache-tvm is not installed; pip install 'ledg-cost[tvm]'")

import frontends
from costmodel.errors import InputError
from costmodel.ir import Graph, Node
from frontends.tir_lower import BLOCK, LOOP, lower
from tests.frontends.relax_programs import legalized, program, relax, tensor, tvm

M, N, K = 32, 48, 64


def matmul() -> object:
    """The PrimFunc of a product of (32, 64) and (64, 48)."""
    return legalized(program(relax.op.matmul, tensor(M, K), tensor(K, N)))["matmul"]


def schedule(function: object) -> object:
    """A schedule of one PrimFunc."""
    from tvm.s_tir import Schedule

    return Schedule(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))  # type: ignore[attr-defined]


def named(graph: Graph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)


def test_plain_matmul() -> None:
    graph = lower(matmul())
    assert [(n.op, n.name) for n in graph.nodes] == [(LOOP, "i0"), (LOOP, "i1"), (LOOP, "k"), (BLOCK, "matmul")]
    assert [n.attrs["extent"] for n in graph.nodes[:3]] == [M, N, K]
    assert [n.attrs["iterations"] for n in graph.nodes[:3]] == [M, M * N, M * N * K]
    assert graph.edges == ((0, 1), (1, 2), (2, 3))
    block = graph.nodes[3].attrs
    assert (block["axes"], block["extents"], block["init"]) == ("SSR", (M, N, K), 1)
    assert (block["adds"], block["muls"], block["flops"]) == (1, 1, 2 * M * N * K)
    assert block["read_stride"] == (N, 1) or block["read_stride"] == (1, N)
    assert sorted(block["read_unique"]) == sorted((M * K, K * N))  # type: ignore[type-var]
    assert (block["write_stride"], block["write_unique"]) == ((0,), (M * N,))
    assert graph.nodes[2].attrs["working_set"] == 4 * (K + K + 1)
    assert graph.nodes[0].attrs["working_set"] == 4 * (M * K + K * N + M * N)
    assert len(graph.inputs) == 2
    assert graph.tensors[graph.outputs[0]].shape == (M, N)


def test_scheduled_matmul_keeps_kinds_scopes_and_edges() -> None:
    sch = schedule(matmul())
    block = sch.get_sblock("matmul")
    i, j, k = sch.get_loops(block)
    i0, i1 = sch.split(i, [None, 8])
    j0, j1 = sch.split(j, [None, 16])
    sch.reorder(i0, j0, k, i1, j1)
    sch.parallel(sch.fuse(i0, j0))
    sch.vectorize(j1)
    sch.unroll(i1)
    cache = sch.cache_write(block, 0, "local")
    sch.reverse_compute_at(cache, sch.get_loops(block)[0])
    sch.decompose_reduction(block, sch.get_loops(block)[1])
    graph = lower(sch)
    kinds = [n.attrs["kind"] for n in graph.nodes if n.op == LOOP]
    assert kinds.count("parallel") == 1
    assert {"vectorized", "unrolled", "serial"} <= set(kinds)
    update = named(graph, "matmul_update")
    assert update.attrs["flops"] == 2 * M * N * K
    assert "init" not in update.attrs
    assert "local" in update.attrs["read_scope"]  # type: ignore[operator]
    assert 1 in update.attrs["read_lane"]  # type: ignore[operator]
    init, index = named(graph, "matmul_init"), {n.name: i for i, n in enumerate(graph.nodes)}
    assert set(init.outputs) & set(update.inputs)
    assert (index["matmul_init"], index["matmul_update"]) in graph.edges
    assert set(update.outputs) & set(graph.nodes[-1].inputs)
    parents = [a for a, b in graph.edges if b == index["matmul_update"] and graph.nodes[a].op == LOOP]
    assert [graph.nodes[p].attrs["kind"] for p in parents] == ["vectorized"]
    for node in graph.nodes:
        if node.op == LOOP:
            assert graph.tensors[node.outputs[0]].bytes == 0


def test_fused_index_keeps_its_stride() -> None:
    sch = schedule(matmul())
    i, j, _ = sch.get_loops(sch.get_sblock("matmul"))
    threads = sch.fuse(i, j)
    outer, inner = sch.split(threads, [None, 16])
    sch.bind(outer, "blockIdx.x")
    sch.bind(inner, "threadIdx.x")
    graph = lower(sch)
    assert [n.attrs.get("thread") for n in graph.nodes if n.op == LOOP] == ["blockIdx.x", "threadIdx.x", None]
    block = graph.nodes[-1].attrs
    assert block["write_lane"] == (1,)
    assert sorted(block["read_lane"]) == [0, 1]  # type: ignore[type-var]


def test_the_same_schedule_has_the_same_fingerprint() -> None:
    assert lower(matmul()).fingerprint == lower(matmul()).fingerprint
    sch = schedule(matmul())
    sch.vectorize(sch.get_loops(sch.get_sblock("matmul"))[1])
    assert lower(sch).fingerprint != lower(matmul()).fingerprint


def test_stages_feed_each_other() -> None:
    module = legalized(program(lambda x: relax.op.nn.softmax(x, -1), tensor(4, 16)))
    graph = lower(module["softmax"])
    blocks = {n.name: i for i, n in enumerate(graph.nodes) if n.op == BLOCK}
    assert (blocks["T_softmax_maxelem"], blocks["T_softmax_exp"]) in graph.edges
    assert (blocks["T_softmax_exp"], blocks["T_softmax_norm"]) in graph.edges
    assert graph.nodes[blocks["T_softmax_exp"]].attrs["specials"] == 1


INTRINSIC = """
@T.prim_func(s_tir=True)
def main(A: T.Buffer((16, 16), "float32"), B: T.Buffer((16, 16), "float32")):
    for i in range(4):
        with T.sblock("call"):
            vi = T.axis.spatial(4, i)
            T.reads(A[vi * 4 : vi * 4 + 4, 0:16])
            T.writes(B[vi * 4 : vi * 4 + 4, 0:16])
            T.evaluate(T.call_extern("int32", "kernel", vi))
    for j in range(16):
        B[j, 0] = A[j, 0] + T.float32(1)
"""


def test_intrinsics_are_opaque_with_their_regions() -> None:
    graph = lower(tvm.script.from_source(INTRINSIC))
    call, update = (node for node in graph.nodes if node.op == BLOCK)
    assert call.opaque
    assert "flops" not in call.attrs
    assert (call.attrs["read_unique"], call.attrs["write_unique"]) == ((256,), (256,))
    assert call.attrs["read_stride"] == (64,)
    assert (update.attrs["adds"], update.attrs["flops"]) == (1, 16)


def test_accepts_modules_and_functions_and_refuses_several() -> None:
    function = matmul()
    alone = tvm.IRModule({"matmul": function})
    assert frontends.load(alone).fingerprint == frontends.load(function).fingerprint == lower(function).fingerprint
    with pytest.raises(InputError, match="holds the PrimFuncs"):
        lower(tvm.IRModule({"a": function, "b": function}))


def test_symbolic_sizes_are_refused() -> None:
    n = tvm.tirx.Var("n", "int64")
    module = legalized(program(relax.op.nn.relu, relax.TensorType((n, 4), "float32")))
    with pytest.raises(InputError, match="symbolic size"):
        lower(module["relu"])


def test_a_candidate_takes_milliseconds() -> None:
    function = matmul()
    lower(function)
    best = min(_seconds(function) for _ in range(20))
    assert best < 0.02


def _seconds(function: object) -> float:
    start = time.perf_counter()
    lower(function)
    return time.perf_counter() - start
