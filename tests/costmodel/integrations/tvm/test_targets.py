"""TVM targets as platforms."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.errors import PlatformError
from costmodel.integrations.tvm.targets import PLATFORM_NUMBERS, cores_of, options, platform_numbers, platform_of


def test_spellings_of_one_target() -> None:
    wanted = {"kind": "llvm", "mcpu": "znver4", "num-cores": 8}
    assert options("llvm -mcpu=znver4 -num-cores=8") == wanted
    assert options('{"kind": "llvm", "mcpu": "znver4", "num-cores": 8}') == wanted
    assert options(wanted) == wanted
    assert options("llvm -mattr=+avx2,+fma")["mattr"] == ["+avx2", "+fma"]


def test_a_cpu_is_read_from_its_name() -> None:
    wide, narrow = platform_of("llvm -mcpu=znver4 -num-cores=8"), platform_of("llvm -mcpu=cortex-a72 -num-cores=4")
    assert (wide.device.cores, narrow.device.cores) == (8, 4)
    assert wide.device.lanes == 8 * 512 // 32 * 2
    assert narrow.device.lanes == 4 * 128 // 32 * 2
    assert wide.runtime == "tvm"
    assert platform_of("llvm").device.lanes == 8
    assert platform_of("llvm -mattr=+avx2,+fma").device.lanes == 16


def test_a_cuda_architecture_is_a_spec_sheet() -> None:
    assert platform_of({"kind": "cuda", "arch": "sm_75"}).device.name == "t4"
    assert cores_of({"kind": "cuda", "arch": "sm_75"}) == 40


def test_numbers_vanish_where_the_records_were_measured() -> None:
    here = platform_numbers(platform_of("llvm -mcpu=znver5 -num-cores=1"))
    assert here.shape == (PLATFORM_NUMBERS,)
    assert not here.any()
    assert np.count_nonzero(platform_numbers(platform_of("cuda -arch=sm_80"))) > 4


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("vulkan", "use llvm or cuda"),
        ("cuda -arch=sm_20", "use llvm or cuda with an arch"),
        ("llvm mcpu", "write options as -mcpu=NAME"),
        ("", "start it with llvm or cuda"),
        ("{broken", "write it as llvm"),
    ],
)
def test_what_is_not_a_target(target: str, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        platform_of(target)
