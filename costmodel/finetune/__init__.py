"""Few-shot adaptation to a platform from its samples; the released bundle stays as it is."""

from __future__ import annotations

from costmodel.finetune.fit import FEWEST, fit
from costmodel.finetune.overlay import Overlay, find, load, overlay_directory, remove, save

__all__ = ["FEWEST", "Overlay", "find", "fit", "load", "overlay_directory", "remove", "save"]
