"""Every error a caller can expect, in one tree.

LedgCostError
├─ InputError
│  ├─ ModelLoadError          the file is missing, unreadable or not a model
│  ├─ ShapeInferenceError     a tensor's shape could not be worked out
│  ├─ UnsupportedOpError      operators nobody taught us (all of them at once)
│  └─ DynamicShapeError       symbolic axes left unbound (all of them at once)
├─ PlatformError
│  ├─ UnknownDeviceError      no such device (with the nearest names)
│  ├─ MissingSpecError        a spec sheet lacks a number that is needed
│  └─ UnsupportedPrecisionError
├─ BundleError
│  ├─ BundleVersionError
│  └─ CorruptBundleError
├─ PartitionError             no plan holds the devices' memory and operators
├─ ProfileError
│  ├─ BackendUnavailableError
│  └─ UnstableMeasurementError
└─ DataError
   └─ SampleSchemaError

The message of each is one line that ends with what to do about it. The command line prints it and exits with 2.
"""

from __future__ import annotations


class LedgCostError(Exception):
    """Base of all expected errors; `str(error)` is one line that names the fix."""


class InputError(LedgCostError):
    """The model handed in cannot be used as it is."""


class ModelLoadError(InputError):
    """A file is missing, unreadable, truncated or not in a known format."""


class ShapeInferenceError(InputError):
    """The shape of a tensor could not be inferred."""


class UnsupportedOpError(InputError):
    """Operators without a lowering; `ops` maps each to how often it occurs."""

    def __init__(self, message: str, ops: dict[str, int] | None = None) -> None:
        super().__init__(message)
        self.ops: dict[str, int] = dict(ops or {})


class DynamicShapeError(InputError):
    """Symbolic axes that neither `--batch` nor `--shape` binds; `symbols` names them."""

    def __init__(self, message: str, symbols: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.symbols = tuple(symbols)


class PlatformError(LedgCostError):
    """A device, precision or runtime cannot be used."""


class UnknownDeviceError(PlatformError):
    """No device of that name; `nearest` holds the closest known names."""

    def __init__(self, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.nearest = tuple(nearest)


class MissingSpecError(PlatformError):
    """A spec sheet lacks a number that the estimate needs."""


class UnsupportedPrecisionError(PlatformError):
    """The device has no throughput at this precision."""


class BundleError(LedgCostError):
    """A model bundle cannot be used."""


class BundleVersionError(BundleError):
    """The bundle was written by an incompatible version."""


class CorruptBundleError(BundleError):
    """A file of the bundle is missing or does not match its checksum."""


class PartitionError(LedgCostError):
    """No distribution over the devices holds their memory and operator limits."""


class ProfileError(LedgCostError):
    """A measurement could not be made."""


class BackendUnavailableError(ProfileError):
    """The runtime to measure with is not installed here."""


class UnstableMeasurementError(ProfileError):
    """Repeated runs disagreed beyond the limit."""


class DataError(LedgCostError):
    """Training or sample data cannot be read."""


class SampleSchemaError(DataError):
    """A sample file lacks columns or holds impossible values."""
