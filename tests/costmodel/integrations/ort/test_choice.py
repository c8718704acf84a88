"""Choosing a provider by estimate, and carrying the choice into ONNX Runtime's callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import onnxruntime
import pytest

from costmodel.errors import PlatformError
from costmodel.estimates import Estimate, Roofline
from costmodel.integrations.ort import Provider, assigned, choose_provider, selection_delegate, with_fingerprint
from costmodel.ir import Graph
from costmodel.platforms import Platform, list_devices, load_device
from tests.frontends.onnx_models import conv_net


def cpu_device() -> str:
    return next(d for d in list_devices() if load_device(d).kind == "cpu")


class Fixed(Roofline):
    """Gives each runtime a latency and a relative half-width."""

    def __init__(self, latency_ms: dict[str, float], half: float) -> None:
        self.latency_ms, self.half = latency_ms, half

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        found = []
        for platform, estimate in zip(platforms, super().estimate_many(graph, platforms), strict=True):
            ms = self.latency_ms[platform.runtime]
            found.append(replace(estimate, latency_ms=ms, interval_ms=(ms * (1 - self.half), ms * (1 + self.half))))
        return found


def test_the_fastest_estimate_is_chosen() -> None:
    model = Fixed({"onnxruntime": 3.0, "openvino": 2.0}, 0.1)
    choice = choose_provider(conv_net(1), ["cpu", "openvino"], cpu_device(), cost_model=model)
    assert [p.label for p in choice.providers] == ["openvino:fp32", "cpu:fp32"]
    assert choice.provider.name == "OpenVINOExecutionProvider"
    assert [e.latency_ms for e in choice.estimates] == [2.0, 3.0]
    assert not choice.toss_up


def test_overlapping_intervals_are_a_toss_up() -> None:
    model = Fixed({"onnxruntime": 3.0, "openvino": 2.0}, 0.6)
    assert choose_provider(conv_net(1), ["cpu", "openvino"], cpu_device(), cost_model=model).toss_up
    assert not choose_provider(conv_net(1), ["cpu"], cpu_device(), cost_model=model).toss_up


def test_the_decision_reaches_the_session_by_fingerprint() -> None:
    if not hasattr(onnxruntime.SessionOptions, "set_provider_selection_policy_delegate"):
        pytest.skip("this onnxruntime has no selection callback")
    choice = choose_provider(conv_net(1), ["cpu"], cpu_device(), cost_model=Roofline())
    seen = []
    select = selection_delegate({choice.fingerprint: choice})

    def watched(devices: list, model: dict, runtime: dict, most: int) -> list:
        seen.append(model)
        return select(devices, model, runtime, most)

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.set_provider_selection_policy_delegate(watched)
    proto = with_fingerprint(conv_net(1), choice.fingerprint)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    assert seen[0]["ledg_cost.fingerprint"] == choice.fingerprint
    assert set(assigned(session)) == {"CPUExecutionProvider"}


def test_the_callback_picks_the_devices_of_the_chosen_provider() -> None:
    cpu, vino = SimpleNamespace(ep_name="CPUExecutionProvider"), SimpleNamespace(ep_name="OpenVINOExecutionProvider")
    select = selection_delegate({"known": Provider.parse("openvino")})
    assert select([cpu, vino], {"ledg_cost.fingerprint": "known"}, {}, 8) == [vino]
    assert select([cpu, vino], {"ledg_cost.fingerprint": "other"}, {}, 8) == [cpu]
    assert select([cpu, vino], {}, {}, 8) == [cpu]
    with pytest.raises(PlatformError, match="offers no device here"):
        select([cpu], {"ledg_cost.fingerprint": "known"}, {}, 8)


def test_a_fingerprint_is_set_once() -> None:
    twice = with_fingerprint(with_fingerprint(conv_net(1), "a"), "b")
    assert [(p.key, p.value) for p in twice.metadata_props] == [("ledg_cost.fingerprint", "b")]


@pytest.mark.parametrize("text", ["npu", "", ":fp32"])
def test_unknown_providers_are_told(text: str) -> None:
    with pytest.raises(PlatformError, match="use one of cpu"):
        Provider.parse(text)


def test_no_provider_is_an_error() -> None:
    with pytest.raises(PlatformError, match="no execution provider"):
        choose_provider(conv_net(1), [], cpu_device(), cost_model=Roofline())


def test_settings_follow_threads_and_precision() -> None:
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in Provider.parse("openvino:bf16").settings(2)["load_config"]
    assert '"INFERENCE_NUM_THREADS": "2"' in Provider.parse("openvino:bf16").settings(2)["load_config"]
    assert Provider.parse("tensorrt:fp16").settings(1) == {"trt_fp16_enable": "1"}
    assert Provider.parse("cpu").settings(1) == {}
