"""Whole networks as a few numbers: what a model without a graph can know of one on a platform. NumPy only."""

from __future__ import annotations

import numpy as np

from costmodel.features import COLUMNS

_AT = {name: i for i, name in enumerate(COLUMNS)}
_SUMMED = [_AT[c] for c in COLUMNS if c not in ("parallel", "channels_in", "channels_out")]
_LARGEST = [_AT[c] for c in ("flops", "read", "write", "weights", "parallel", "channels_in", "channels_out")]


def ideal_times(sums: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(n, 3) ms that all FLOPs, bytes and kernel launches take at the spec sheet's rates.

    sums (n, COLUMNS) over a network's nodes; rates (n, 7) as `features.platform_rates`.
    """
    elements = sums[:, _AT["read"]] + sums[:, _AT["write"]] + sums[:, _AT["weights"]]
    moved = elements * rates[:, 5] + sums[:, _AT["index"]]
    return np.stack([sums[:, _AT["flops"]] / rates[:, 1], moved / rates[:, 3], sums[:, _AT["launch"]] * rates[:, 4]], 1)


def network_features(
    sums: np.ndarray, largest: np.ndarray, counts: np.ndarray, batch: np.ndarray, rates: np.ndarray, channel: np.ndarray
) -> np.ndarray:
    """(n, features) float32 of networks on platforms: totals and largest values of the nodes, how often each operator
    is there, the batch, `ideal_times`, and the spec sheet.

    sums, largest (n, COLUMNS) over the nodes, counts (n, operators), batch (n,), rates (n, 7), channel (n, f).
    """
    return np.concatenate(
        [
            np.log2(1 + sums[:, _SUMMED]),
            np.log2(1 + largest[:, _LARGEST]),
            counts,
            np.log2(batch[:, None]),
            np.log2(np.maximum(ideal_times(sums, rates), 1e-7)),
            channel,
        ],
        1,
        dtype=np.float32,
    )
