"""Which execution provider to open a model with, by estimate, and how the choice reaches ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.api import load_graph
from costmodel.errors import PlatformError
from costmodel.estimates import CostModel, Estimate
from costmodel.integrations.ort.providers import CPU, Provider
from costmodel.ir import Graph
from costmodel.platforms import Device

if TYPE_CHECKING:
    from onnx import ModelProto

FINGERPRINT_KEY = "ledg_cost.fingerprint"
"""Metadata property that carries the graph's fingerprint into the selection callback."""


@dataclass(frozen=True)
class Choice:
    """The providers' estimates, fastest first. `toss_up`: the intervals of the first two overlap in the middle."""

    fingerprint: str
    providers: tuple[Provider, ...]
    estimates: tuple[Estimate, ...]

    @property
    def provider(self) -> Provider:
        """The fastest by estimate."""
        return self.providers[0]

    @property
    def toss_up(self) -> bool:
        """Whether either of the two fastest could be the other by its interval."""
        if len(self.estimates) < 2:
            return False
        first, second = self.estimates[:2]
        return first.interval_ms[1] >= second.latency_ms and second.interval_ms[0] <= first.latency_ms


def choose_provider(
    model: Graph | str | os.PathLike[str] | Any,
    providers: Sequence[Provider | str],
    device: str | os.PathLike[str] | Device,
    batch: int | None = None,
    cost_model: CostModel | None = None,
) -> Choice:
    """Ranks providers by the estimate of each one's platform on `device`: its runtime at its precision.

    cost_model   default: what the sample store has measured, else the released LeDG-Former bundle

    Raises InputError for the model, PlatformError for providers or the device.
    """
    wanted = [Provider.parse(p) if isinstance(p, str) else p for p in providers]
    if not wanted:
        raise PlatformError("no execution provider to choose from; give one or more, such as cpu and openvino")
    graph = load_graph(model, batch)
    if cost_model is None:
        from costmodel import predictor
        from costmodel.measured import with_measurements

        cost_model = with_measurements(predictor.load)
    estimates = cost_model.estimate_many(graph, [p.platform(device) for p in wanted])
    order = sorted(range(len(wanted)), key=lambda i: estimates[i].latency_ms)
    return Choice(graph.fingerprint, tuple(wanted[i] for i in order), tuple(estimates[i] for i in order))


def with_fingerprint(model: ModelProto, fingerprint: str) -> ModelProto:
    """A copy of the model that carries its graph's fingerprint in its metadata."""
    from onnx import ModelProto

    copy = ModelProto()
    copy.CopyFrom(model)
    kept = [(p.key, p.value) for p in copy.metadata_props if p.key != FINGERPRINT_KEY]
    del copy.metadata_props[:]
    for key, value in [*kept, (FINGERPRINT_KEY, fingerprint)]:
        copy.metadata_props.add(key=key, value=value)
    return copy


def selection_delegate(decisions: Mapping[str, Choice | Provider]) -> Callable[..., list[Any]]:
    """A callback for `SessionOptions.set_provider_selection_policy_delegate`.

    The callback sees devices and metadata but no graph, so decisions are made beforehand and found by the model's
    fingerprint (`with_fingerprint`). A model without a decision runs on the CPU provider; one whose provider offers no
    device here fails the session with a message that says so.
    """
    names = {key: (d.provider if isinstance(d, Choice) else d).name for key, d in decisions.items()}

    def select(devices: Sequence[Any], model: Mapping[str, str], runtime: Mapping[str, str], most: int) -> list[Any]:
        wanted = names.get(model.get(FINGERPRINT_KEY, ""), CPU)
        found = [d for d in devices if d.ep_name == wanted]
        if not found:
            offered = ", ".join(sorted({d.ep_name for d in devices}))
            raise PlatformError(f"{wanted} was chosen but offers no device here ({offered}); register its library")
        return found[: max(most, 1)]

    return select
