"""Backends open, run and tell what they cannot do."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import onnxruntime
import pytest

from costmodel.errors import BackendUnavailableError, ProfileError
from costmodel.platforms import parse_runtime
from profiler.backends import BACKENDS, Backend, check_precision, get_backend
from profiler.backends.base import NodeNames, all_finite
from profiler.backends.openvino import OpenVinoPlugin
from profiler.inprocess import measure_here
from profiler.request import Request
from tests.profiler.models import conv_net, elementwise

NET = conv_net().SerializeToString()


def backend_or_skip(name: str) -> Backend:
    try:
        return get_backend(name)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime_measures(precision: str) -> None:
    found = measure_here(Request(NET, precision=precision, batch=2, seconds=0.05))
    assert 0 < found.latency_ms <= found.p90_ms <= found.p99_ms
    assert found.batch == 2
    assert found.repeats >= 5
    assert found.runtime == f"onnxruntime-{onnxruntime.__version__}"
    assert found.flags in ((), ("preempted",))


def test_operators_carry_the_names_of_the_model() -> None:
    found = measure_here(Request(NET, operators=True, seconds=0.05))
    names = {node.name for node in conv_net().graph.node}
    known = [(name, ms) for name, ms in found.operators if name in names]
    assert {"conv2", "head"} <= {name for name, _ in known} or {"sum", "head"} <= {name for name, _ in known}
    assert len(known) >= len(found.operators) - 1


def test_infinite_results_are_flagged() -> None:
    assert "nonfinite" in measure_here(Request(elementwise("Div", 0.0).SerializeToString(), seconds=0.02)).flags
    assert all_finite([np.zeros(2), np.array([1, 2])])
    assert not all_finite([np.array([np.nan])])


def test_peak_memory_covers_weights_and_activations() -> None:
    net = conv_net(channels=256, side=64).SerializeToString()
    activations = 3 * 256 * 64 * 64 * 4
    found = measure_here(Request(net, seconds=0.02, batch=4))
    assert found.peak_memory_bytes is not None
    assert activations < found.peak_memory_bytes < 100 * activations


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_openvino_measures(precision: str) -> None:
    backend = backend_or_skip("openvino")
    if precision not in backend.precisions():
        pytest.skip(f"this processor has no {precision}")
    found = measure_here(Request(NET, backend="openvino", precision=precision, operators=True, seconds=0.05))
    assert found.latency_ms > 0
    assert parse_runtime(found.runtime)[0] == "openvino"
    assert {"conv2", "head"} & {name for name, _ in found.operators}


def test_the_plug_in_says_where_it_cannot_run() -> None:
    if not importlib.util.find_spec("onnxruntime_ep_openvino"):
        assert "install" in (OpenVinoPlugin().missing() or "")
    elif reason := OpenVinoPlugin().missing():
        assert reason.endswith("install openvino")


@pytest.mark.parametrize(
    ("name", "package"), [("cuda", "onnxruntime-gpu"), ("tensorrt", "TensorRT"), ("directml", "onnxruntime-directml")]
)
def test_absent_providers_name_what_to_install(name: str, package: str) -> None:
    if get_provider(name) in onnxruntime.get_available_providers():
        pytest.skip(f"{name} is here")
    with pytest.raises(BackendUnavailableError, match=f"{name} cannot run here.*install.*{package}"):
        get_backend(name)


def get_provider(name: str) -> str:
    from profiler.backends.ort import OnnxRuntime

    return OnnxRuntime(name).provider


def test_unknown_backends_list_the_known() -> None:
    with pytest.raises(BackendUnavailableError, match="onnxruntime, cuda, "):
        get_backend("nonsense")


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_every_backend_either_runs_or_says_why(name: str) -> None:
    backend = backend_or_skip(name)
    parse_runtime(backend.runtime())
    assert "fp32" in backend.precisions()


def test_precisions_without_hardware_are_refused() -> None:
    with pytest.raises(ProfileError, match="has no fp8 on this machine; use fp32"):
        check_precision(get_backend("onnxruntime"), "fp8")


def test_processors_that_do_not_exist_are_told() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    with pytest.raises(ProfileError, match="--cpus may name"):
        measure_here(Request(NET, cpus=(4095,)))


def test_names_of_fused_operators() -> None:
    names = NodeNames(conv_net())
    assert names.find("r1_nchwc") == "relu1"
    assert names.find("conv2_token_12") == "conv2"
    assert names.find("c1_abcd_acdb_conv2/WithoutBiases") == "conv2"
    assert names.find("ReorderOutput") == "ReorderOutput"
    assert names.combine([("conv2", 1.0), ("pool", 2.0), ("conv2_quant", 0.5)]) == (("conv2", 1.5), ("pool", 2.0))
