"""Measurements: one `Sample` each, kept in a `SampleStore` and exchanged as Parquet or NNLQP's text.

Importing this package loads no database; `SampleStore` does when it opens one.
"""

from __future__ import annotations

from costmodel.samples.sample import Sample, now
from costmodel.samples.store import SampleStore, default_store

__all__ = ["Sample", "SampleStore", "default_store", "now"]
