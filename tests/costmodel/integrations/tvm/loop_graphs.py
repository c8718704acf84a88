"""Loop graphs written by hand: a matrix product with its loops in some order and of some kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from costmodel.ir import DType, Graph, Node, TensorSpec

SIZES = {"i": 64, "j": 128, "k": 256}
SCOPE = TensorSpec((0,), DType.BOOL)


def matmul(order: str = "ijk", kinds: Sequence[str] = ("parallel", "serial", "serial"), unroll: int = 0) -> Graph:
    """C[i, j] += A[i, k] · B[k, j] over loops in the given order; strides are those of the innermost loop."""
    tensors = {
        "A": TensorSpec((SIZES["i"], SIZES["k"])),
        "B": TensorSpec((SIZES["k"], SIZES["j"])),
        "C": TensorSpec((SIZES["i"], SIZES["j"])),
    }
    nodes, scope, runs = [], "", 1
    for depth, (axis, kind) in enumerate(zip(order, kinds, strict=True)):
        inside = {a: SIZES[a] if a in order[depth:] else 1 for a in "ijk"}
        runs *= SIZES[axis]
        touched = inside["i"] * inside["k"] + inside["k"] * inside["j"] + inside["i"] * inside["j"]
        attrs: dict[str, int | str] = {
            "extent": SIZES[axis], "kind": kind, "depth": depth, "iterations": runs, "working_set": 4 * touched,
        }  # fmt: skip
        if unroll and not depth:
            attrs["note.pragma_auto_unroll_max_step"] = unroll
        tensors[f"in_{axis}"] = SCOPE
        nodes.append(Node("tir.Loop", (scope,) if scope else (), (f"in_{axis}",), attrs, axis))
        scope = f"in_{axis}"
    inner = order[-1]
    strides = {"A": {"i": 256, "k": 1}, "B": {"k": 128, "j": 1}, "C": {"i": 128, "j": 1}}
    lane = {"read_lane": (strides["A"].get(inner, 0), strides["B"].get(inner, 0))} if kinds[-1] == "vectorized" else {}
    block: dict[str, object] = {
        "iterations": math.prod(SIZES.values()), "axes": "SSR", "extents": tuple(SIZES.values()), "adds": 1, "muls": 1,
        "flops": 2 * math.prod(SIZES.values()), "init": 1, **lane,
        "read_stride": (strides["A"].get(inner, 0), strides["B"].get(inner, 0)),
        "read_unique": (tensors["A"].numel, tensors["B"].numel), "read_scope": ("global", "global"),
        "write_stride": (strides["C"].get(inner, 0),), "write_unique": (tensors["C"].numel,),
        "write_scope": ("global",),
    }  # fmt: skip
    nodes.append(Node("tir.Block", (scope, "A", "B"), ("C",), block, "C"))  # type: ignore[arg-type]
    return Graph(tuple(nodes), tensors, ("A", "B"), ("C",), frozenset(), "main")
