"""Plain-text tables and numbers for people."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with columns as wide as their widest cell; numbers right-aligned, text left."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    right = [bool(rows) and all(_numeric(row[i]) for row in rows) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    return [line(heads), *(line(row) for row in rows)]


def _numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("", "-")


def ms(value: float) -> str:
    """Milliseconds to three significant digits: `0.0123 ms`, `4.56 ms`, `1230 ms`."""
    if value == 0:
        return "0 ms"
    return f"{value:.0f} ms" if value >= 1000 else f"{value:.3g} ms"


def amount(value: float) -> str:
    """A quantity to three significant digits with a decimal prefix and the space before a unit: `4.09 G`."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
