"""Small Relax programs for tests; importing this needs TVM."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from costmodel.ir import Graph

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tvm = pytest.importorskip("tvm", reason="apache-tvm is not installed; pip install 'ledg-cost[tvm]'")
    relax = pytest.importorskip("tvm.relax", reason="this TVM has no Relax; pip install 'ledg-cost[tvm]'")


def tensor(*shape: int, dtype: str = "float32") -> Any:
    """A Relax tensor type."""
    return relax.TensorType(shape, dtype)


def program(function: Callable[..., Any], *types: Any) -> Any:
    """A module whose `main` applies a function to parameters of the given types."""
    builder = relax.BlockBuilder()
    parameters = [relax.Var(f"x{i}", t) for i, t in enumerate(types)]
    with builder.function("main", parameters):
        with builder.dataflow():
            result = builder.emit_output(function(*parameters))
        builder.emit_func_output(result)
    return builder.get()


def legalized(module: Any) -> Any:
    """The module with operators replaced by calls of TIR functions."""
    return relax.transform.LegalizeOps()(module)


def fused(module: Any) -> Any:
    """The legalised module after FuseOps and FuseTIR."""
    annotated = relax.transform.AnnotateTIROpPattern()(legalized(module))
    return relax.transform.FuseTIR()(relax.transform.FuseOps()(annotated))


def lower(module: Any, **options: Any) -> Graph:
    """The module's graph."""
    from frontends.relax_load import load

    return load(module, **options)


def ops(graph: Graph) -> list[str]:
    """Operators in order."""
    return [node.op for node in graph.nodes]
