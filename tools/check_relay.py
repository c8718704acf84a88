"""Checks the Relay frontend against recorded programs.

    python tools/check_relay.py --data DIR [--fuzz N] [--seed S] [--twins DIR] [--archive FILE] [--out FILE]

DIR holds Relay programs (`*.relay`, `*.rly`, in folders below too) and, beside some, the text after TVM's own type
inference (`*.typed.txt`) and the saved JSON (`*.json`). Counted are:

    types  every value of the untyped text, its inferred type against the one that TVM printed. Values whose type the
           text does not determine (constants without metadata, and what follows from them) are counted apart, and
           once more with those constants' types given
    forms  text, typed text and JSON of a program have the same fingerprint
    twins  programs in another folder (`NAME.relay`, as an old TVM's `relay.frontend.from_onnx` prints them) and the
           ONNX models that they were made from: the same graph and, within 1 %, the same estimate
    fuzz   N mutated programs give a graph or a one-line error, each within 5 s of processor time and 2 GiB

Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel.errors import LedgCostError
from frontends.relay_ast import (
    Block,
    Call,
    Const,
    Expr,
    Func,
    If,
    Match,
    Module,
    Proj,
    TupleExpr,
    Type,
    Var,
)
from frontends.relay_json import parse_json
from frontends.relay_load import load
from frontends.relay_parse import parse_text
from frontends.relay_types import Inference
from frontends.relay_typetools import full, has_hole
from tools.agreement import dumped
from tools.relay_twins import check_twins

SECONDS, MEMORY = 5, 2 << 30
Table = dict[str, Any]
TYPE_COMMENT = re.compile(r"/\*\s*ty=(?:[^*]|\*(?!/))*\*/")


@dataclass
class Tally:
    """Values by outcome; `given` collects types for constants that the untyped text lacks."""

    equal: int = 0
    unknown: int = 0
    wrong: list[str] = field(default_factory=list)
    given: list[tuple[Const, Type]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds another tally's counts."""
        self.equal += other.equal
        self.unknown += other.unknown
        self.wrong += other.wrong


class Walker:
    """Walks an untyped and a typed program side by side."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.bound: dict[Var, Expr] = {}
        self.seen: set[tuple[int, int]] = set()

    def function(self, mine: Func, theirs: Func) -> None:
        """Compares two functions and all that is in them."""
        waiting: list[tuple[Expr, Expr]] = [(mine, theirs)]
        while waiting:
            a, b = waiting.pop()
            if isinstance(a, Block) or isinstance(b, Block):
                if isinstance(a, Block) and isinstance(b, Block) and _names(a) == _names(b):
                    waiting += zip((v for v, _ in a.steps), (v for v, _ in b.steps), strict=True)  # unused ones too
                waiting.append((self._result(a), self._result(b)))
                continue
            if (id(a), id(b)) in self.seen:
                continue
            self.seen.add((id(a), id(b)))
            if isinstance(a, Var) and isinstance(b, Var):
                self._compare(a, b)
                if a in self.bound and b in self.bound:
                    waiting.append((self.bound[a], self.bound[b]))
            elif isinstance(a, Var) and a in self.bound:
                waiting.append((self.bound[a], b))
            elif isinstance(b, Var) and b in self.bound:
                waiting.append((a, self.bound[b]))
            elif type(a) is not type(b):
                self.tally.wrong.append(f"{type(a).__name__} meets {type(b).__name__}")
            else:
                self._compare(a, b)
                waiting += self._children(a, b)

    def _result(self, e: Expr) -> Expr:
        if not isinstance(e, Block):
            return e
        self.bound.update(e.steps)
        return e.result

    def _compare(self, mine: Expr, theirs: Expr) -> None:
        if theirs.note is None:
            return
        ty = full(mine.ty)
        if str(ty) == str(theirs.note):
            self.tally.equal += 1
        elif has_hole(ty):
            self.tally.unknown += 1
            if isinstance(mine, Const):
                self.tally.given.append((mine, theirs.note))
        else:
            self.tally.wrong.append(f"{ty} instead of {theirs.note}")

    def _children(self, a: Any, b: Any) -> Iterator[tuple[Expr, Expr]]:
        if isinstance(a, Func):
            for mine, theirs in zip(a.params, b.params, strict=True):
                self._compare(mine, theirs)
                self.seen.add((id(mine), id(theirs)))
            yield a.body, b.body
        elif isinstance(a, Call):
            yield a.fn, b.fn
            yield from zip(a.args, b.args, strict=True)
        elif isinstance(a, TupleExpr):
            yield from zip(a.fields, b.fields, strict=True)
        elif isinstance(a, Proj):
            yield a.tuple, b.tuple
        elif isinstance(a, If):
            yield from ((a.cond, b.cond), (a.then, b.then), (a.other, b.other))
        elif isinstance(a, Match):
            yield a.data, b.data
            for (p, x), (q, y) in zip(a.clauses, b.clauses, strict=True):
                yield from zip(p.variables(), q.variables(), strict=True)
                yield x, y


def _names(block: Block) -> list[str]:
    return [var.name for var, _ in block.steps]


def compare_types(mine: Module, theirs: Module) -> Tally:
    """Infers one module and compares it with the types that the other states."""
    names = [n for n in theirs.functions if n in mine.functions]
    inference = Inference(mine)
    inference.run(names)
    walker = Walker()
    for name in names:
        walker.function(mine.functions[name], theirs.functions[name])
    if not walker.tally.given:
        return walker.tally
    for constant, ty in walker.tally.given:
        inference.unify(constant.ty, ty)
    inference.solve()
    again = Walker()
    for name in names:
        again.function(mine.functions[name], theirs.functions[name])
    again.tally.given, again.tally.unknown = walker.tally.given, walker.tally.unknown
    again.tally.wrong += [f"still unknown: {n}" for n in range(again.tally.unknown - again.tally.equal) if n < 0]
    return again.tally


def programs(data: Path) -> list[Path]:
    """Relay programs below a folder, without the oracle's own files."""
    found = (p for pattern in ("*.relay", "*.rly") for p in data.rglob(pattern))
    return sorted(p for p in found if p.is_file())


def check_types(data: Path, table: Table | None = None) -> bool:
    """Prints the count of compared types, and notes it in the table; False if one differs."""
    total, stated, parsed = Tally(), 0, 0
    for path in programs(data):
        text = path.read_text(encoding="utf-8")
        parse_text(text)
        parsed += 1
        oracle = path.with_name(path.name + ".typed.txt")
        typed = oracle.read_text(encoding="utf-8") if oracle.exists() else text
        if not TYPE_COMMENT.search(typed):
            continue
        # A program that carries its own types is compared with itself, its comments taken out except constants'.
        bare = re.sub(r"(?<!\])\s*" + TYPE_COMMENT.pattern, "", text) if not oracle.exists() else text
        try:
            tally = compare_types(parse_text(bare), parse_text(typed))
        except LedgCostError as error:
            tally = Tally(wrong=[str(error)])
        stated += len(TYPE_COMMENT.findall(typed))
        total.add(tally)
        for line in tally.wrong[:3]:
            print(f"  {path.name}: {line}")
    direct, compared = total.equal - total.unknown, total.equal + len(total.wrong)
    if table is not None:
        table["types"] = {
            "programs": parsed, "stated": stated, "compared": compared, "equal": total.equal,
            "equal_from_the_text_alone": direct, "equal_given_types_of_constants": total.unknown,
        }  # fmt: skip
    print(
        f"types: {parsed} programs parsed; {stated} types stated, {compared} compared,"
        f" {total.equal} equal ({direct} from the text alone, {total.unknown} given types of constants that lack them)"
    )
    return not total.wrong


def check_forms(data: Path, table: Table | None = None) -> bool:
    """Prints how many programs have one fingerprint in all forms, and notes it; False if one has two."""
    counts: Counter[str] = Counter()
    for path in programs(data):
        forms = [p for p in (path, Path(f"{path}.json"), Path(f"{path}.typed.txt")) if p.exists()]
        prints = []
        for form in forms:
            try:
                prints.append(load(form).fingerprint)
            except LedgCostError:
                counts["refused"] += 1
        counts["programs"] += 1
        counts["lowered"] += bool(prints)
        counts["compared"] += len(prints) > 1
        if len(set(prints)) > 1:
            counts["different"] += 1
            print(f"  {path.name}: forms differ")
        if path.with_name(path.name + ".json").exists():
            counts["with JSON"] += 1
            compare_json(path)
    kinds = ("programs", "lowered", "compared", "with JSON", "different")
    if table is not None:
        table["forms"] = {kind.replace(" ", "_"): counts[kind] for kind in kinds}
    print("forms: " + ", ".join(f"{counts[kind]} {kind}" for kind in kinds))
    return not counts["different"]


def compare_json(path: Path) -> None:
    """Infers the JSON form too, so that modules without an entry function are read at least."""
    Inference(parse_json(Path(f"{path}.json").read_text(encoding="utf-8"))).run()


def mutations(data: Path, count: int, seed: int) -> Iterator[str]:
    """Mutated programs: characters, numbers, words and lines changed, moved, doubled and cut."""
    rng = random.Random(seed)
    texts = [p.read_text(encoding="utf-8") for p in programs(data)]
    texts += [p.read_text(encoding="utf-8") for p in sorted(data.rglob("*.json"))]
    texts = [t for t in texts if len(t) < 30_000]
    for _ in range(count):
        text = rng.choice(texts)
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            text = _mutate(text, rng, texts)
        yield text


def _mutate(text: str, rng: random.Random, texts: list[str]) -> str:
    if not text:
        return "def"
    at = rng.randrange(len(text))
    kind = rng.randrange(9)
    if kind == 0:
        return text[:at] + text[at + rng.randint(1, 12) :]
    if kind == 1:
        return text[:at] + rng.choice("%@()[]{}<>=,.;:0123456789-+*/\"'#_ \n\tfnTé\x00") + text[at:]
    if kind == 2:
        return text[:at]
    if kind == 3:
        end = min(len(text), at + rng.randint(1, 200))
        return text[:end] + text[at:end] * rng.randint(1, 4) + text[end:]
    numbers = list(re.finditer(r"\d+", text))
    if kind in (4, 5) and numbers:
        found = rng.choice(numbers)
        value = rng.choice(("0", "1", "-1", "2", "3", "7", "65536", "99999999999999999999", "1e9", "?"))
        return text[: found.start()] + value + text[found.end() :]
    words = list(re.finditer(r"[%@]?[A-Za-z_][\w.]*", text))
    if kind in (6, 7) and len(words) > 1:
        a, b = sorted(rng.sample(words, 2), key=lambda m: m.start())
        return text[: a.start()] + b[0] + text[a.end() : b.start()] + (a[0] if kind == 6 else b[0]) + text[b.end() :]
    other = rng.choice(texts)
    start = rng.randrange(len(other))
    return text[:at] + other[start : start + rng.randint(1, 120)] + text[at:]


def _too_slow(signum: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s of processor time")


def check_fuzz(data: Path, count: int, seed: int, table: Table | None = None) -> bool:
    """Prints what mutated programs led to, and notes it; False if one gave a traceback, a hang or too much memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    signal.signal(signal.SIGVTALRM, _too_slow)
    outcomes: Counter[str] = Counter()
    worst, failures = 0.0, 0
    for i, text in enumerate(mutations(data, count, seed)):
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        start = time.process_time()
        try:
            load(text.encode("utf-8", "surrogatepass"), batch=2 if i % 4 == 0 else None)
            outcomes["graphs"] += 1
        except LedgCostError as error:
            outcomes[type(error).__name__] += 1
            if "\n" in str(error) or not str(error):
                failures += 1
                print(f"  mutation {i}: message of several lines: {error!r}")
        except BaseException as error:
            failures += 1
            print(f"  mutation {i}: {type(error).__name__}: {error}")
            traceback.print_exc(limit=-3)
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        worst = max(worst, time.process_time() - start)
    resource.setrlimit(resource.RLIMIT_AS, before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if table is not None:
        table["fuzz"] = {
            "mutations": count, "seed": seed, "failures": failures, "slowest_cpu_seconds": round(worst, 2),
            "peak_mib": round(peak), "outcomes": dict(outcomes.most_common()),
        }  # fmt: skip
    print(
        f"fuzz: {count} mutations, {failures} failures, slowest {worst:.2f} s, peak {peak:.0f} MiB; "
        + ", ".join(f"{n} {kind}" for kind, n in outcomes.most_common())
    )
    return failures == 0


def main() -> int:
    """Runs the checks asked for."""
    parser = argparse.ArgumentParser(description="Checks the Relay frontend against recorded programs.")
    parser.add_argument("--data", type=Path, required=True, help="folder with Relay programs")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="also try N mutated programs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--twins", type=Path, help="folder with Relay programs made from ONNX models")
    parser.add_argument("--archive", type=Path, help="timm_graphs.tar.xz, where it holds the ONNX models")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    command = f"python tools/check_relay.py --data DIR --fuzz {options.fuzz} --seed {options.seed}"
    table: Table = {"command": command + (" --twins DIR --archive FILE" if options.twins else "") + " --out FILE"}
    passed = check_types(options.data, table)
    passed &= check_forms(options.data, table)
    if options.fuzz:
        passed &= check_fuzz(options.data, options.fuzz, options.seed, table)
    if options.twins:
        passed &= check_twins(options.twins, options.archive, table)
    if options.out:
        options.out.write_text(dumped(table, 3) + "\n", encoding="utf-8")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
