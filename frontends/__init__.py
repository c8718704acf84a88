"""Readers of model files: each language lowers to `costmodel.ir.Graph`.

`load` looks at the content, never at the file's suffix, and imports the reader of that language only.
"""

from __future__ import annotations

from frontends.sniff import load, sniff

__all__ = ["load", "sniff"]
