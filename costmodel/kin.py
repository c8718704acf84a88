"""The measured platforms that a platform which training never measured is also read through.

A new device differs from measured ones of its kind under the same runtime and precision mostly in speed, which the
roofline knows; what the network learned of theirs (which kernels there are, how near they come to the peaks) holds for
the new one too. So the network answers for each of its kin, every node's part is scaled by the ratio of the two
rooflines, and the mean is taken in the ln: one half the answer from the platform's own spec sheet, one half its kin's.
For which runtimes that is better than the sheet alone is chosen on validation devices (`training.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from costmodel.features import platform_channel
from costmodel.platforms import Platform, parse_runtime

KIN = 2
KIN_SHARE = 0.5
"""What the ln of kin's answers counts together, beside that of the platform's own sheet."""


def weights(kin: int) -> NDArray[np.float32]:
    """(1 + kin,) what the ln of each answer counts: by the platform's own sheet, by each of its kin."""
    return np.array([1 - KIN_SHARE, *[KIN_SHARE / kin] * kin], np.float32)


def nearest(platform: Platform, known: Iterable[str], resolved: Callable[[str], Platform | None]) -> list[str]:
    """At most `KIN` keys `device|precision|runtime` of `known` with the platform's kind of device, runtime and
    precision, by distance of their channels (`features.platform_channel`), the nearest first.

    resolved  key → platform, None for one whose spec sheet is no longer what was measured
    """
    own = platform_channel(platform)
    found = []
    for key in known:
        _, precision, runtime = key.split("|")
        if (precision, parse_runtime(runtime)[0]) != (platform.precision.value, platform.runtime):
            continue
        other = resolved(key)
        if other is not None and other.device.kind == platform.device.kind:
            found.append((float(np.square(platform_channel(other) - own).sum()), key))
    return [key for _, key in sorted(found)[:KIN]]
