"""Networks to measure: random members of ten families of convolutional networks, transformers and single operators.

The families are those of NNLQP (Liu et al. 2022) and the variation is that of nn-Meter (Zhang et al. 2021): depth,
width of each layer, kernel sizes, expansion and resolution. Models are weightless ONNX, sized to take from one to a few
tens of milliseconds on one core; `generate` gives the same model for the same family and seed everywhere.
"""

from __future__ import annotations

import difflib
import importlib
from itertools import count
from typing import TYPE_CHECKING

from costmodel.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto

FAMILIES = (
    "alexnet", "efficientnet", "googlenet", "mnasnet", "mobilenetv2", "mobilenetv3", "nasbench201", "resnet",
    "squeezenet", "vgg",
)  # fmt: skip
"""The ten families of NNLQP."""

_MODULES = {
    "alexnet": "classic", "vgg": "classic", "squeezenet": "classic", "googlenet": "classic", "resnet": "resnet",
    "mobilenetv2": "mobile", "mobilenetv3": "mobile", "mnasnet": "mobile", "efficientnet": "mobile",
    "transformer": "transformer", "operator": "operators",
}  # fmt: skip

LEAST_FLOPS, MOST_FLOPS = 30e6, 6e9
MOST_WEIGHTS = 25_000_000


def generate(family: str, seed: int) -> ModelProto:
    """Member `seed` (from 0) of one of FAMILIES, of `transformer` or of `operator`.

    Float weights of more than 256 elements are external placeholders without a file; the input is `input` (N, …) with a
    symbolic batch axis N. Members of the ten families and transformers have 30 MFLOP to 6 GFLOP per sample (two per
    multiply-accumulate; NAS-Bench-201 networks what they have) and at most 25 million weights. Distinct seeds give
    distinct networks but for rare coincidences; NAS-Bench-201 repeats after its last distinct network. Raises
    InputError.
    """
    from profiler.workloads.draw import Draw
    from profiler.workloads.net import Net

    if family not in (*FAMILIES, "transformer", "operator"):
        known = (*FAMILIES, "transformer", "operator")
        near = difflib.get_close_matches(family, known, 1)
        raise InputError(f"no family '{family}'; use {f'{near[0]!r}, or ' if near else ''}one of {', '.join(known)}")
    if seed < 0:
        raise InputError(f"seed {seed} of family '{family}' is negative; count from 0")
    name = f"gen/{family}/{seed}"
    if family == "nasbench201":
        from profiler.workloads.nasbench201 import distinct_cells, nasbench201

        cells = distinct_cells()
        return nasbench201(Net(name), cells[seed % len(cells)])
    write = getattr(importlib.import_module(f"profiler.workloads.{_MODULES[family]}"), family)
    for attempt in count():
        net = Net(name)
        model = write(net, Draw(f"{name}/{attempt}"))
        small = 0 if family == "operator" else LEAST_FLOPS
        if small <= net.flops <= MOST_FLOPS and net.weights <= MOST_WEIGHTS:
            return model
    raise AssertionError("count() never ends")


def transformer(seed: int) -> ModelProto:
    """Transformer encoder number `seed`: an image or embedded tokens in. Otherwise as `generate`."""
    return generate("transformer", seed)


def operator(seed: int) -> ModelProto:
    """Single operator number `seed`; some have a second input. Otherwise as `generate`."""
    return generate("operator", seed)


def parse_name(name: str) -> tuple[str, int]:
    """Family and seed of a generated network's name, such as `gen/resnet/17`. Raises InputError."""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "gen" or not parts[2].isdecimal():
        raise InputError(f"'{name}' names no generated network; write 'gen/<family>/<seed>', as in gen/resnet/17")
    return parts[1], int(parts[2])
