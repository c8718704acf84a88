"""Energy of a GPU as its driver counts it."""

from __future__ import annotations

from typing import Any


class EnergyMeter:
    """Counts from when it is made. Needs the package nvidia-ml-py and a GPU since Volta; else it knows nothing."""

    def __init__(self, index: int = 0) -> None:
        self._handle: Any = None
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            self._start = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except pynvml.NVMLError:
            self._handle = None

    def millijoules(self) -> float | None:
        """Energy since the start; None where it is not measured or too little for the counter to move."""
        if self._handle is None:
            return None
        import pynvml

        spent = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._start
        return float(spent) if spent > 0 else None
