"""Sentences of TIR loops and blocks: how a loop runs, and what a block computes. A closed language of a few hundred."""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.ir import AttrValue

LOOP, BLOCK = "tir.Loop", "tir.Block"
LOOP_NODES = frozenset((LOOP, BLOCK))
_ARITHMETIC = {
    "adds": "add", "muls": "multiply", "divs": "divide", "compares": "compare", "specials": "special function",
    "selects": "select",
}  # fmt: skip


def loop_sentence(attrs: Mapping[str, AttrValue]) -> str:
    """`Ctrl Loop vectorized`, `Ctrl Loop thread blockIdx.x`."""
    return " ".join(("Ctrl Loop", str(attrs.get("kind", "serial")), str(attrs.get("thread", "")))).rstrip()


def block_sentence(attrs: Mapping[str, AttrValue]) -> str:
    """Class of the block and its arithmetic: `Mix Block reduction add multiply`, `Move Block copy`.

    A block without `flops` calls an intrinsic, and what it computes is unknown.
    """
    if "flops" not in attrs:
        return "Other Block intrinsic"
    found = [word for name, word in _ARITHMETIC.items() if attrs.get(name)]
    reduces = "R" in str(attrs.get("axes", ""))
    if reduces:
        kind = "Mix" if attrs.get("adds") and attrs.get("muls") else "Reduce"
    else:
        kind = "Move" if not found or found == ["select"] else "Elem"
    return " ".join((kind, "Block", *(["reduction"] if reduces else []), *(found or ["copy"])))


def loop_node_sentence(op: str, attrs: Mapping[str, AttrValue]) -> str:
    """The sentence of a node in `LOOP_NODES`."""
    return loop_sentence(attrs) if op == LOOP else block_sentence(attrs)


def loop_language() -> list[str]:
    """Every sentence that `loop_sentence` and `block_sentence` write for kinds and thread axes of TVM, sorted."""
    kinds = ("serial", "parallel", "vectorized", "unrolled", "thread")
    threads = [f"{where}Idx.{axis}" for where in ("block", "thread") for axis in "xyz"]
    made = {loop_sentence({"kind": kind}) for kind in kinds}
    made |= {loop_sentence({"kind": "thread", "thread": thread}) for thread in (*threads, "vthread.x", "vthread")}
    made.add(block_sentence({}))
    names = list(_ARITHMETIC)
    for bits in range(2 ** len(names)):
        counts: dict[str, AttrValue] = {name: 1 for at, name in enumerate(names) if bits >> at & 1}
        made |= {block_sentence({**counts, "flops": 1, "axes": axes}) for axes in ("S", "SR")}
    return sorted(made)
