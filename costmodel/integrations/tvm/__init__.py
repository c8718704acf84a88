"""LeDG-Cost inside Apache TVM: a MetaSchedule cost model and a builder (extra `tvm`).

    from tvm.s_tir import meta_schedule as ms
    from costmodel.integrations.tvm import InProcessBuilder, LedgCostModel

    ms.tune_tir(mod, target, work_dir, 128, cost_model=LedgCostModel.pretrained(target), builder=InProcessBuilder())

The classes are imported when they are first asked for: TVM's intrinsics take seconds to load, and everything else in
this package (`loops`, `ranker`, `memory`) needs no TVM.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from costmodel.errors import BackendUnavailableError

if TYPE_CHECKING:
    from costmodel.integrations.tvm.cost_model import LedgCostModel
    from costmodel.integrations.tvm.measuring import InProcessBuilder, in_process

__all__ = ["InProcessBuilder", "LedgCostModel", "in_process"]

_HOMES = {"InProcessBuilder": "measuring", "LedgCostModel": "cost_model", "in_process": "measuring"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("tvm", "torch"):
            raise
        raise BackendUnavailableError(f"{error.name} is not installed; pip install 'ledg-cost[tvm]'") from error
    return getattr(module, name)
