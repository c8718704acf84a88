"""A split network run as a pipeline of sessions."""

from __future__ import annotations

import os

import numpy as np
import pytest

from costmodel.errors import BackendUnavailableError, InputError
from costmodel.integrations.ort import Pipeline, Provider, assigned, open_session
from costmodel.partition.split import split_model
from tests.frontends.onnx_models import conv_net, floats, run

MADE = [["c", "r"], ["p", "f", "y"]]


def test_a_pipeline_equals_the_whole() -> None:
    proto = conv_net(1)
    feeds = [{"x": floats(1, 3, 8, 8) * k} for k in range(1, 8)]
    wanted = [run(proto, feed)[0] for feed in feeds]
    with Pipeline(split_model(proto, MADE), ["cpu", "cpu"], ["y"]) as pipeline:
        np.testing.assert_allclose(pipeline.run(feeds[0])[0], wanted[0], atol=1e-6)
        found = [results[0] for results in pipeline.stream(feeds)]
        assert all(ms > 0 for ms in pipeline.busy_ms())
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_parts_are_pinned() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no thread affinity on this system")
    cpu = min(os.sched_getaffinity(0))
    seen = []
    with Pipeline(split_model(conv_net(1), MADE), ["cpu", "cpu"], ["y"], cpus=[cpu, None]) as pipeline:
        for thread in pipeline._threads:
            assert thread.native_id is not None
            seen.append(os.sched_getaffinity(thread.native_id))
    assert seen[0] == {cpu}
    assert seen[1] == os.sched_getaffinity(0)


def test_a_stream_can_be_left_and_a_failure_leaves_the_pipeline_usable() -> None:
    with Pipeline(split_model(conv_net(1), MADE), ["cpu", "cpu"], ["y"]) as pipeline:
        good = {"x": floats(1, 3, 8, 8)}
        stream = pipeline.stream([good] * 9)
        next(stream)
        stream.close()
        with pytest.raises(InputError, match="'x'"):
            pipeline.run({"other": floats(1)})
        with pytest.raises(Exception, match="dimension"):
            pipeline.run({"x": floats(1, 5, 8, 8)})
        assert pipeline.run(good)[0].shape == (1, 10)


def test_every_part_needs_a_provider() -> None:
    with pytest.raises(InputError, match="2 parts"):
        Pipeline(split_model(conv_net(1), MADE), ["cpu"], ["y"])


def test_a_provider_that_is_not_here_is_told() -> None:
    with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider is not in this build"):
        Pipeline(split_model(conv_net(1), MADE), ["cpu", "cuda"], ["y"])


def test_assignment_names_every_node() -> None:
    nodes = assigned(open_session(conv_net(1), Provider.parse("cpu")))
    assert set(nodes) == {"CPUExecutionProvider"}
    assert "Gemm" in nodes["CPUExecutionProvider"]


def test_openvino_equals_the_whole() -> None:
    proto = conv_net(1)
    feeds = {"x": floats(1, 3, 8, 8)}
    try:
        pipeline = Pipeline(split_model(proto, MADE), ["cpu", "openvino:fp32"], ["y"])
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with pipeline:
        np.testing.assert_allclose(pipeline.run(feeds)[0], run(proto, feeds)[0], atol=1e-5)
        assert set(assigned(pipeline.sessions[1])) == {"OpenVINOExecutionProvider"}
