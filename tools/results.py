"""The committed result tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def table(name: str) -> Any:
    """A committed result table."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def exists(name: str) -> bool:
    """Whether that result table has been made."""
    return (ROOT / "results" / f"{name}.json").exists()
