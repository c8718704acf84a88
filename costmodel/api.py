"""The Python twin of the command line. With `costmodel.cli`, the only place that knows the frontends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from costmodel.errors import InputError, PlatformError
from costmodel.estimates import CostModel, Estimate, native_precision
from costmodel.ir import Graph
from costmodel.platforms import Platform, resolve


def load_graph(
    source: Any,
    batch: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    strict: bool = False,
    example_inputs: Any = None,
) -> Graph:
    """A graph from a model file (any language that `frontends` reads), its bytes or a live module.

    example_inputs  for a torch.nn.Module: a tensor, a shape, a sequence of them, or a mapping from argument name to
                    them; only shapes and types are looked at

    Raises InputError (see `costmodel.errors`) when the model cannot be read or lowered.
    """
    if isinstance(source, Graph):
        if example_inputs is not None:
            raise InputError("example_inputs are for torch modules and this is a Graph; leave them out")
        return source
    import frontends

    return frontends.load(source, batch=batch, shapes=shapes, strict=strict, example_inputs=example_inputs)


def parse_platform(text: str, precision: str = "fp32") -> Platform:
    """`device[:precision[:runtime]]`, such as `t4:int8` or `v100:fp16:tensorrt-8.6`. Raises PlatformError."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise PlatformError(f"cannot read platform {text!r}; write device[:precision[:runtime]], such as t4:int8")
    return resolve(parts[0], parts[1] if len(parts) > 1 else precision, parts[2] if len(parts) > 2 else None)


def estimate(
    graph_or_path: Graph | str | os.PathLike[str] | Any,
    platform: Platform | str,
    batch: int | None = None,
    *,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    example_inputs: Any = None,
    cost_model: CostModel | None = None,
    measured: bool = True,
    store: str | os.PathLike[str] | None = None,
) -> Estimate:
    """Latency of a network on a platform.

    graph_or_path   a `Graph` (taken at its own batch), a model file, its bytes or a live module
    platform        a `Platform` or `device[:precision[:runtime]]`; the precision defaults to the graph's own
    batch           binds a symbolic batch axis (default 1) or rebinds a fixed one
    example_inputs  what a torch module is traced on, as for `load_graph`
    cost_model      default: what the sample store has measured, else the released LeDG-Former bundle
    measured        False predicts even what is measured
    store           sample store to look into, default `samples.sqlite` of the user if there is one

    Raises InputError, PlatformError, BundleError or DataError (see `costmodel.errors`).
    """
    graph = load_graph(graph_or_path, batch, shapes, example_inputs=example_inputs)
    if isinstance(platform, str):
        platform = parse_platform(platform, native_precision(graph))
    if cost_model is None:
        from costmodel import predictor
        from costmodel.measured import with_measurements

        cost_model = with_measurements(predictor.load, store) if measured else predictor.load()
    return cost_model.estimate(graph, platform)
