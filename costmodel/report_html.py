"""Estimates as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import PurePath

from costmodel import __version__
from costmodel.breakdown import Part, by_group, by_kind
from costmodel.estimates import Estimate
from costmodel.tables import amount, ms

MOST_PARTS = 20
_NUMBERS = frozenset(("batch", "latency", "images/s", "bound", "memory", "share", "work"))

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5b6570; --line: #d9dee3; --paper: #fff;
  --compute: #2f6fb0; --memory: #c1772b; --launch: #7d8590; --mark: #1b1f24; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --dim: #9aa4ae; --line: #363d45; --paper: #16191d;
  --compute: #62a0de; --memory: #dd9b57; --launch: #8b949e; --mark: #e4e8ec; --warn: #e0b050; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, .dim { color: var(--dim); } .warn { color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--dim); } td.n, th.n { text-align: right; white-space: nowrap; }
td { overflow-wrap: break-word; max-width: 24rem; }
details { border-top: 1px solid var(--line); padding: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
.track { position: relative; height: .8rem; min-width: 9rem; background: var(--line); border-radius: 2px; }
.track i { position: absolute; top: 0; bottom: 0; left: 0; border-radius: 2px; }
i.compute { background: var(--compute); } i.memory { background: var(--memory); }
i.launch { background: var(--launch); }
i.range { background: var(--compute); opacity: .55; } i.mark { width: 2px; background: var(--mark); }
.key i { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 .9rem; vertical-align: -1px; }
@media print { details { break-inside: avoid; } }
"""

_DEFINITIONS = (
    "Latency is the time of one forward pass of the whole batch. The interval is 90 % nominal. The bound is a time that"
    " no implementation on this spec sheet can beat. Coverage is the share of operators whose arithmetic is known; the"
    " rest counts by memory traffic. Operators of one row run as one kernel where the runtime fuses; compute, memory or"
    " launch is what binds most of its time. FLOP counts a multiply-accumulate as two."
)


def render(estimates: Sequence[tuple[str, Estimate]]) -> str:
    """The page for estimates with the names of their models, in the order given.

    A table of all of them on one scale, then for each its source, bound, memory, warnings and breakdown.
    """
    names = list(dict.fromkeys(_stem(model) for model, _ in estimates))
    title = f"Latency of {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    widest = max((e.interval_ms[1] for _, e in estimates), default=0.0)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(estimates)} estimate{'s' if len(estimates) != 1 else ''} by LeDG-Cost {escape(__version__)}</p>",
        _summary(estimates, widest),
        *(_section(model, e, first=not i) for i, (model, e) in enumerate(estimates)),
        f"<p>{escape(_DEFINITIONS)}</p>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _summary(estimates: Sequence[tuple[str, Estimate]], widest: float) -> str:
    heads = ["model", "target", "precision", "runtime", "batch", "latency", "90 % interval", "", "images/s",
             "bound", "memory", "provenance"]  # fmt: skip
    rows = [
        [
            _stem(model), e.target, e.precision, e.runtime, f"{e.batch}", ms(e.latency_ms),
            f"{ms(e.interval_ms[0])} – {ms(e.interval_ms[1])}", _range(e, widest),
            f"{1e3 * e.batch / e.latency_ms:,.4g}" if e.latency_ms else "", ms(e.bound_ms),
            f"{amount(e.peak_memory_bytes)}B", e.provenance,
        ]
        for model, e in estimates
    ]  # fmt: skip
    return _table(heads, rows)


def _section(model: str, e: Estimate, first: bool) -> str:
    title = f"{_stem(model)} on {e.target}, {e.precision}, {e.runtime}, batch {e.batch}: {ms(e.latency_ms)}"
    above = f", {e.latency_ms / e.bound_ms:.2g} times the physical bound of {ms(e.bound_ms)}" if e.bound_ms else ""
    facts = [
        f"{e.provenance}{above}",
        f"{amount(e.flops)}FLOP, {amount(e.params).strip()} parameters, {len(e.operators)} operators,"
        f" coverage {e.coverage:.0%}, peak memory {amount(e.peak_memory_bytes)}B",
    ]
    groups, kinds = by_group(e), by_kind(e)
    return "\n".join(
        [
            f"<details{' open' if first else ''}><summary>{escape(title)}</summary>",
            *(f"<p>{escape(fact)}</p>" for fact in facts),
            *(f'<p class="warn">note: {escape(warning)}</p>' for warning in e.warnings),
            '<p class="key">bound by<i class="compute"></i>compute<i class="memory"></i>memory'
            '<i class="launch"></i>launch</p>',
            "<h3>Kernels</h3>",
            _parts(groups, "kernels", e.latency_ms),
            "<h3>Kinds of operator</h3>",
            _parts(kinds, "kinds", e.latency_ms),
            "</details>",
        ]
    )


def _parts(parts: Sequence[Part], what: str, latency_ms: float) -> str:
    """Bars of the costliest parts, the first as long as the track."""
    shown, rest = parts[:MOST_PARTS], parts[MOST_PARTS:]
    longest = max((part.share for part in shown), default=0.0) or 1.0
    named = what == "kernels"
    heads = [*(["operator"] if named else []), "kind", "latency", "share", "", "work"]
    rows = [
        [
            *([part.name] if named else []), part.words(5), ms(part.latency_ms), f"{part.share:.1%}",
            _bar(part.limit, part.share / longest), f"{amount(part.flops)}FLOP",
        ]
        for part in shown
    ]  # fmt: skip
    text = _table(heads, rows) if rows else "<p>nothing runs</p>"
    if rest:
        left = sum(part.latency_ms for part in rest)
        share = left / latency_ms if latency_ms else 0.0
        text += f'\n<p class="dim">{len(rest)} more {what} with {ms(left)} ({share:.1%})</p>'
    return text


class _Markup(str):
    """A cell made here, not text."""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Every cell that is not markup is escaped here; columns of `_NUMBERS` stand to the right."""

    def cell(tag: str, head: str, text: str) -> str:
        side = ' class="n"' if head in _NUMBERS else ""
        return f"<{tag}{side}>{text if isinstance(text, _Markup) else escape(text)}</{tag}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(cell(tag, head, text) for head, text in zip(heads, cells, strict=True)) + "</tr>"

    lines = [line("th", heads), *(line("td", row) for row in rows)]
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _bar(limit: str, length: float) -> _Markup:
    return _Markup(f'<div class="track"><i class="{escape(limit)}" style="width:{100 * length:.2f}%"></i></div>')


def _range(e: Estimate, widest: float) -> _Markup:
    """Interval and latency on the scale of the widest interval."""
    scale = 100 / widest if widest > 0 else 0.0
    low, high, at = (scale * t for t in (*e.interval_ms, e.latency_ms))
    return _Markup(
        f'<div class="track"><i class="range" style="left:{low:.2f}%;width:{max(high - low, 0):.2f}%"></i>'
        f'<i class="mark" style="left:{min(at, 99.5):.2f}%"></i></div>'
    )


def _stem(model: str) -> str:
    return "standard input" if model == "-" else PurePath(model).stem
