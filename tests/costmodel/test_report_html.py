"""The page is well formed, holds what was estimated, and nothing that a model names gets out of its text."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from costmodel.estimates import Estimate, OperatorCost
from costmodel.report_html import MOST_PARTS, render

VOID = {"meta", "br"}
NASTY = "<script>alert('x')</script>&\"'"


def operator(i: int, ms: float, name: str = "conv", op: str = "Conv") -> OperatorCost:
    return OperatorCost(f"{name}{i}", op, ms, ms / 10, 1e9, ("compute", "memory", "launch")[i % 3], i)


ESTIMATE = Estimate(
    "t4", "int8", "tensorrt-8.6", 4, 10.0, (8.0, 12.5), "learned on this platform, 99 samples", 0.875, 2.5, 4.1e9,
    25_000_000, 10**8, ("counted by memory traffic alone: Foo",), (operator(0, 7.0), operator(1, 3.0, op="Gemm")),
)  # fmt: skip


class Page(HTMLParser):
    """Collects the text, the tags and their attributes, and checks that tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + "\n"


def test_the_page_says_what_was_estimated() -> None:
    text = Page(render([("nets/resnet.onnx", ESTIMATE)])).text
    for words in (
        "Latency of resnet", "t4", "int8", "tensorrt-8.6", "10 ms", "8 ms – 12.5 ms", "400", "2.5 ms",
        "learned on this platform, 99 samples", "4 times the physical bound", "coverage 88%", "25 M parameters",
        "100 MB", "note: counted by memory traffic alone: Foo", "conv0", "70.0%", "Gemm", "30.0%",
    ):  # fmt: skip
        assert words in text, words


def test_nothing_comes_from_elsewhere_and_nothing_runs() -> None:
    page = Page(render([("a.onnx", ESTIMATE)]))
    assert not {"script", "link", "img", "iframe", "object", "embed", "a"} & set(page.tags)
    assert {name for name, _ in page.attributes} <= {"class", "style", "lang", "charset", "name", "content", "open"}
    assert "url(" not in render([("a.onnx", ESTIMATE)])
    assert "@import" not in render([("a.onnx", ESTIMATE)])


def test_names_are_text_whatever_they_are() -> None:
    nasty = replace(
        ESTIMATE, target=NASTY, precision=NASTY, runtime=NASTY, provenance=NASTY, warnings=(NASTY,),
        operators=(operator(0, 10.0, NASTY, NASTY),),
    )  # fmt: skip
    raw = render([(NASTY, nasty)])
    assert "<script" not in raw
    page = Page(raw)
    plain = Page(render([("a", replace(ESTIMATE, operators=(operator(0, 10.0),)))]))
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes
    assert page.text.count(NASTY) >= 6


def test_several_estimates_share_one_scale_and_have_a_section_each() -> None:
    other = replace(ESTIMATE, target="a100", latency_ms=5.0, interval_ms=(4.0, 6.25))
    raw = render([("a.onnx", ESTIMATE), ("b.onnx", other)])
    page = Page(raw)
    assert page.tags.count("details") == 2
    assert [name for name, _ in page.attributes].count("open") == 1
    assert "Latency of a, b" in page.text
    assert "left:64.00%;width:36.00%" in raw  # 8 … 12.5 of 12.5
    assert "left:32.00%;width:18.00%" in raw


def test_many_kernels_are_summed_up() -> None:
    many = replace(ESTIMATE, operators=tuple(operator(i, 10 / 50) for i in range(50)))
    text = Page(render([("a.onnx", many)])).text
    assert f"{50 - MOST_PARTS} more kernels with 6 ms (60.0%)" in text
    assert "50 Conv" in text


def test_a_network_that_does_nothing() -> None:
    nothing = replace(ESTIMATE, latency_ms=0.0, interval_ms=(0.0, 0.0), bound_ms=0.0, operators=())
    assert "nothing runs" in Page(render([("-", nothing)])).text
