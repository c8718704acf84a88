"""What a measurement may hold."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from costmodel.errors import SampleSchemaError
from costmodel.samples import Sample, now

MakeSample = Callable[..., Sample]


def test_the_platform_key_names_device_precision_and_runtime(make_sample: MakeSample) -> None:
    assert make_sample().platform_key == "t4|fp32|tensorrt-8.6.1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "abc"}, "fingerprint"),
        ({"device": ""}, "need a name"),
        ({"runtime": "a|b"}, "without '|'"),
        ({"batch": 0}, "batch 0"),
        ({"batch": 1.0}, "batch 1.0"),
        ({"batch": True}, "batch True"),
        ({"latency_ms": 0.0}, "positive"),
        ({"latency_ms": math.nan}, "positive"),
        ({"latency_ms": "3"}, "positive"),
        ({"latency_ms": None}, "positive"),
        ({"p99_ms": -1.0}, "positive"),
        ({"cv": math.inf}, "statistic"),
        ({"repeats": -1}, "statistic"),
        ({"operators": (("Conv", -0.1),)}, "operator time"),
        ({"measured_at": "yesterday"}, "yesterday"),
        ({"measured_at": "2026-03-01T12:00:00"}, "UTC"),
        ({"measured_at": "2026-03-01T12:00:00+02:00"}, "UTC"),
    ],
)
def test_impossible_values_are_refused_in_one_line(make_sample: MakeSample, changes: dict, message: str) -> None:
    with pytest.raises(SampleSchemaError, match=message.replace("|", r"\|")) as caught:
        make_sample(**changes)
    assert "\n" not in str(caught.value)


def test_all_faults_are_named_at_once(make_sample: MakeSample) -> None:
    with pytest.raises(SampleSchemaError, match=r"fingerprint.*; batch 0.*; a time"):
        make_sample(fingerprint="", batch=0, latency_ms=-1.0)


def test_optional_statistics_may_be_missing(make_sample: MakeSample) -> None:
    sample = Sample(make_sample().fingerprint, "t4", "fp32", "tensorrt", 1, 2.0)
    assert sample.p90_ms is None
    assert sample.operators == ()
    assert sample.source == "profile"


def test_samples_are_stamped_with_the_moment_they_are_made(make_sample: MakeSample) -> None:
    sample = Sample(make_sample().fingerprint, "t4", "fp32", "tensorrt", 1, 2.0)
    stamped = datetime.fromisoformat(sample.measured_at)
    assert datetime.fromisoformat(now()) - stamped < timedelta(seconds=30)


def test_the_package_opens_no_database_on_import() -> None:
    code = (
        "import sys, costmodel.samples; print(sorted({'sqlite3', 'pyarrow', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
