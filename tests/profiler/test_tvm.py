"""TVM builds and runs a network, where it is installed."""

from __future__ import annotations

import pytest

from costmodel.errors import BackendUnavailableError
from profiler.backends import get_backend
from profiler.inprocess import measure_here
from profiler.request import Request
from tests.profiler.models import conv_net


def test_it_is_measured_or_says_what_to_install() -> None:
    try:
        get_backend("tvm")
    except BackendUnavailableError as error:
        assert str(error).endswith("install ledg-cost[tvm]")  # noqa: PT017
        pytest.skip(str(error))
    found = measure_here(Request(conv_net().SerializeToString(), backend="tvm", seconds=0.05))
    assert found.latency_ms > 0
    assert found.runtime.startswith("tvm-")
    assert "nonfinite" not in found.flags


def test_a_tracker_without_devices_is_told() -> None:
    try:
        get_backend("tvm")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    from costmodel.errors import ProfileError

    request = Request(conv_net().SerializeToString(), backend="tvm", tracker="127.0.0.1:1", key="nobody")
    with pytest.raises(ProfileError, match="no device 'nobody' at tracker"):
        measure_here(request)
    with pytest.raises(ProfileError, match="--tracker HOST:PORT"):
        measure_here(Request(conv_net().SerializeToString(), backend="tvm", tracker="nonsense"))
