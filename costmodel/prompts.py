"""The text templates: one sentence for each node of a graph and one for each platform.

Two templates, both starting with the class of the operation (`ParamL` = it has learnable parameters):

paper     class, operator and its attributes as bare numbers (`ParamL Conv 3 1 1 64 128 56`): kernel, stride, groups,
          input channels, output channels, output size. Platforms read `Nv GPU FP32 8.1 Turing 70W`.
default   a small closed language: class, operator in words and categorical attributes only
          (`ParamL Conv 3x3 stride 2 depthwise`, `Norm Softmax last axis`). Channels and sizes travel in the numeric
          channel, since language models read numbers poorly; so nearly every sentence can be embedded beforehand.
          Platforms add the runtime: `Nv GPU FP16 65 Turing 70W TensorRT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel.errors import InputError
from costmodel.ir import AttrValue, DType, Graph, Node, TensorSpec
from costmodel.kinds import Key, per_node
from costmodel.loopwords import LOOP_NODES, loop_node_sentence
from costmodel.opwords import MIX, PARAMETRIC, axis_kind, operator_class, operator_words, perm_kind

if TYPE_CHECKING:
    from costmodel.platforms import Platform

TEMPLATE_VERSION = 1
"""Changes whenever a sentence of either template changes; embeddings and trained weights depend on it."""

TEMPLATES = ("paper", "default")

_known: dict[str, dict[Key, str]] = {name: {} for name in TEMPLATES}

# Constant operands of these are settings (scales, sizes, indices), not something learned.
_SETTINGS_ONLY = frozenset(
    ("Resize", "Upsample", "Pad", "Tile", "Expand", "Slice", "Clip", "OneHot", "TopK", "NonMaxSuppression", "CumSum")
)
_SETTINGS_CLASSES = frozenset(("Quant", "View", "Make", "Signal"))


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node with what its sentence may depend on: operand specs (`None` = absent) and which are parameters."""

    op: str
    attrs: Mapping[str, AttrValue]
    operands: tuple[TensorSpec | None, ...]
    constant: tuple[bool, ...]
    results: tuple[TensorSpec, ...]

    @property
    def first(self) -> TensorSpec | None:
        """The leading operand."""
        return self.operands[0] if self.operands else None

    @property
    def weights(self) -> list[TensorSpec]:
        """Constant float or quantised operands of more than one element."""
        return [
            spec
            for spec, constant in zip(self.operands, self.constant, strict=True)
            if spec and constant and spec.numel > 1 and (spec.dtype.is_float or spec.dtype.is_quantized)
        ]

    @property
    def node_class(self) -> str:
        """`ParamL` if the operator has learnable parameters, else the operator's class."""
        own = operator_class(self.op)
        if own not in _SETTINGS_CLASSES and self.op not in _SETTINGS_ONLY and self.weights:
            return PARAMETRIC
        return own


def node_sentences(graph: Graph, template: str = "default") -> list[str]:
    """One sentence per node, in node order.

    Raises InputError for an unknown template.
    """
    write = _WRITERS[_check(template)]
    return per_node(graph, _known[template], lambda index: write(_view(graph, graph.nodes[index])))


def node_sentence(graph: Graph, index: int, template: str = "default") -> str:
    """The sentence of one node; see `node_sentences`."""
    _check(template)
    return _WRITERS[template](_view(graph, graph.nodes[index]))


def view_sentence(view: NodeView, template: str = "default") -> str:
    """The sentence of a node described by hand, for enumerating the language without a graph."""
    return _WRITERS[_check(template)](view)


def platform_sentence(platform: Platform, template: str = "default") -> str:
    """`Nv GPU FP32 8.1 Turing 70W`, and the runtime in words in the default template.

    Vendor, kind, precision, throughput at that precision in TFLOPS (TOPS), architecture, power; what the spec sheet
    does not say is left out. Raises InputError for an unknown template.
    """
    _check(template)
    device = platform.device
    return platform_words(
        device.vendor, device.kind, platform.precision.value, platform.matrix_tflops, device.architecture, device.tdp_w,
        platform.runtime if template == "default" else "",
    )  # fmt: skip


def platform_words(
    vendor: str, kind: str, precision: str, tflops: float, architecture: str, tdp_w: float | None, runtime: str = ""
) -> str:
    """A platform sentence from its parts; empty and missing ones are left out."""
    words = (
        _VENDOR_WORDS.get(vendor.lower(), vendor),
        _KIND_WORDS.get(kind.lower(), kind),
        precision.upper(),
        _figure(tflops),
        architecture,
        f"{_figure(tdp_w)}W" if tdp_w else "",
        runtime_words(runtime) if runtime else "",
    )
    return " ".join(word for word in words if word)


def runtime_words(runtime: str) -> str:
    """A runtime in words, without its version: `tensorrt-7.1` → `TensorRT`."""
    name = runtime.lower()
    for known, words in _RUNTIME_WORDS.items():
        if name == known or name.startswith(f"{known}-"):
            return words
    return operator_words(runtime)


_VENDOR_WORDS = {"nvidia": "Nv", "amd": "AMD", "intel": "Intel", "apple": "Apple", "arm": "Arm", "google": "Google"}
_KIND_WORDS = {"mobile": "Mobile"} | {kind: kind.upper() for kind in ("gpu", "cpu", "tpu", "npu", "fpga", "asic")}
_RUNTIME_WORDS = {
    "tensorrt": "TensorRT",
    "paddle-trt": "Paddle TensorRT",
    "onnxruntime": "ONNX Runtime",
    "pytorch-eager": "PyTorch eager",
    "pytorch-compile": "PyTorch compile",
    "pytorch": "PyTorch",
    "tflite": "TensorFlow Lite",
    "tvm": "TVM",
    "openvino": "OpenVINO",
    "coreml": "Core ML",
    "unknown": "",
}


def _figure(value: float | None) -> str:
    """One decimal where it says something: 8.141 → 8.1, 65.0 → 65, 1978.9 → 1979, 0.4712 → 0.47."""
    if not value:
        return ""
    if value < 1:
        return f"{value:.2g}"
    return f"{value:.0f}" if value >= 100 or round(value, 1) == round(value) else f"{value:.1f}"


def _check(template: str) -> str:
    if template not in TEMPLATES:
        raise InputError(f"no template '{template}'; use one of {', '.join(TEMPLATES)}")
    return template


def _view(graph: Graph, node: Node) -> NodeView:
    tensors = graph.tensors
    return NodeView(
        node.op,
        node.attrs,
        tuple(tensors[t] if t else None for t in node.inputs),
        tuple(t in graph.params for t in node.inputs),
        tuple(tensors[t] for t in node.outputs if t),
    )


# ── default template ────────────────────────────────────────────────────────────────────────────────────────────────


def _default(view: NodeView) -> str:
    if view.op in LOOP_NODES:
        return loop_node_sentence(view.op, view.attrs)
    node_class = view.node_class
    own_class = operator_class(view.op)
    words = [node_class, _operator(view), *_dtype_words(view, own_class)]
    if own_class != "View":
        words += _window_words(view)
        words += _axis_words(view, own_class)
        words += _mode_words(view)
        words += _operand_words(view, own_class)
    return " ".join(filter(None, words))


def _operator(view: NodeView) -> str:
    """Operator in words; a matrix product with a weight matrix is `Linear` whichever operator spells it."""
    if view.op == "Gemm" and not view.weights:
        return operator_words("MatMul")
    if view.op == "MatMul" and any(len(spec.shape) <= 2 for spec in view.weights):
        return operator_words("Gemm")
    if view.op == "Clip" and _is_relu6(view.attrs):
        return "Relu6"
    if view.op == "Gather" and view.constant[:1] == (True,) and view.weights:
        return "Embedding"
    return operator_words(view.op)


def _is_relu6(attrs: Mapping[str, AttrValue]) -> bool:
    return attrs.get("min") == 0 and attrs.get("max") == 6


_DTYPE_WORDS = {
    DType.FLOAT64: "fp64", DType.FLOAT32: "", DType.FLOAT16: "fp16", DType.BFLOAT16: "bf16", DType.FLOAT8: "fp8",
    DType.INT64: "integer", DType.INT32: "integer", DType.INT16: "integer", DType.UINT64: "integer",
    DType.UINT32: "integer", DType.UINT16: "integer", DType.INT8: "int8", DType.UINT8: "int8", DType.INT4: "int4",
    DType.UINT4: "int4", DType.BOOL: "boolean", DType.COMPLEX64: "complex", DType.COMPLEX128: "complex",
    DType.STRING: "string",
}  # fmt: skip


def _dtype_words(view: NodeView, own_class: str) -> list[str]:
    """Element type where it is not float32: of the result, or int8 as soon as an operand is quantised."""
    made = view.results[0].dtype if view.results else DType.FLOAT32
    if own_class == "Quant":
        source = view.first.dtype if view.first else DType.FLOAT32
        return [_DTYPE_WORDS[source] or "float", "to", _DTYPE_WORDS[made] or "float"]
    runtime = [s.dtype for s, constant in zip(view.operands, view.constant, strict=True) if s and not constant]
    words = [_DTYPE_WORDS[next((d for d in runtime if d.is_quantized), made)]]
    if runtime and not any(d.is_quantized for d in runtime):
        narrow = next((s.dtype for s in view.weights if s.dtype.is_quantized), None)
        if narrow:
            words.append(f"{_DTYPE_WORDS[narrow]} weights")
    return words


def _window_words(view: NodeView) -> list[str]:
    """Kernel, stride, dilation and grouping of convolutions and pools."""
    attrs, words = view.attrs, []
    kernel = _numbers(attrs.get("kernel_shape"))
    if kernel:
        words.append("x".join(map(str, kernel)))
    for name, word in (("strides", "stride"), ("dilations", "dilation")):
        steps = _numbers(attrs.get(name))
        if kernel and any(s != 1 for s in steps):
            words += [word, "x".join(map(str, dict.fromkeys(steps) if len(set(steps)) == 1 else steps))]
    group = attrs.get("group", 1)
    if isinstance(group, int) and group > 1:
        channels = view.first.shape[1] if view.first and len(view.first.shape) > 1 else 0
        words.append("depthwise" if group == channels else "grouped")
    elif kernel and all(k == 1 for k in kernel) and operator_class(view.op) == MIX:
        words.append("pointwise")
    return words


def _axis_words(view: NodeView, own_class: str) -> list[str]:
    """Which axes an operator works along, by position: last, channel, spatial, … axis."""
    rank = len(view.first.shape) if view.first else 0
    perm = _numbers(view.attrs.get("perm"))
    if perm:
        return [perm_kind(perm)]
    axes = _numbers(view.attrs.get("axes")) or _numbers(view.attrs.get("axis"))
    if view.op.startswith("Reduce") and not axes:
        axes = tuple(range(rank))
    if view.op == "Slice" and any(step != 1 for step in _numbers(view.attrs.get("steps"))):
        return [axis_kind(axes, rank), "strided"]
    if view.op == "LayerNormalization" and axes:
        axes = tuple(range(axes[0] % max(rank, 1), rank))
    return [axis_kind(axes, rank)] if axes and rank else []


_MODE_ATTRS = ("mode", "activation", "direction", "reduction", "approximate", "data_layout", "layout", "padding_mode")
_MODE_DEFAULTS = frozenset(("none", "constant", "zeros", "forward", "NOTSET", "linear_before_reset", "DCR", "NCHW", ""))


def _mode_words(view: NodeView) -> list[str]:
    """Categorical settings that are strings or switches, and the direction of a resize."""
    attrs, words = view.attrs, []
    for name in _MODE_ATTRS:
        value = attrs.get(name)
        if isinstance(value, str) and value not in _MODE_DEFAULTS:
            words.append(operator_words(value).lower())
    if attrs.get("is_causal") or attrs.get("causal") or attrs.get("unidirectional"):
        words.append("causal")
    if isinstance(block := attrs.get("blocksize"), int):
        words.append(f"block {block}")
    if view.op in ("Resize", "Upsample") and view.first and view.results:
        made, given = view.results[0].numel, view.first.numel
        words.append("up" if made > given else "down" if made < given else "same size")
    return words


def _operand_words(view: NodeView, own_class: str) -> list[str]:
    """How the operands of an elementwise operator or a matrix product meet."""
    operands = [spec for spec in view.operands if spec]
    if view.op == "MatMul" and not view.weights and operands:
        return ["batched" if len(operands[0].shape) > 2 else "plain"]
    if view.op == "Concat" or own_class not in ("Elem", "Act") or len(operands) < 2 or not view.results:
        return []
    kinds = {_meeting(s, c, view.results[0]) for s, c in zip(view.operands, view.constant, strict=True) if s}
    return sorted(kinds - {""})


def _meeting(spec: TensorSpec, constant: bool, result: TensorSpec) -> str:
    if spec.numel == 1 and result.numel > 1:
        return "scalar"
    if constant:
        return "vector" if sum(size > 1 for size in spec.shape) <= 1 else "table"
    return "broadcast" if spec.numel < result.numel else ""


# ── paper template ──────────────────────────────────────────────────────────────────────────────────────────────────


def _paper(view: NodeView) -> str:
    """Class, operator, then bare numbers: kernel, stride, groups, input and output channels, output size."""
    if view.op in LOOP_NODES:
        return loop_node_sentence(view.op, view.attrs)
    attrs, numbers = view.attrs, []
    kernel = _numbers(attrs.get("kernel_shape"))
    if kernel:
        numbers += [*_short(kernel), *_short(_numbers(attrs.get("strides")) or (1,))]
        if operator_class(view.op) == MIX:
            numbers.append(int(group) if isinstance(group := attrs.get("group", 1), int) else 1)
    else:
        numbers += [n for name in ("axis", "axes", "perm") for n in _numbers(attrs.get(name))]
    given = view.first.shape if view.first else ()
    made = view.results[0].shape if view.results else ()
    channel = 1 if kernel or len(made) > 3 else -1
    if len(given) > 1:
        numbers.append(given[channel])
    if len(made) > 1:
        numbers.append(made[channel])
    numbers += _short(made[2:] if channel == 1 else made[1:-1])
    return " ".join((view.node_class, _operator(view), *map(str, numbers)))


def _short(values: Sequence[int]) -> list[int]:
    """Equal numbers once: (3, 3) → 3."""
    return list(dict.fromkeys(values)) if len(set(values)) == 1 else list(values)


def _numbers(value: AttrValue | None) -> tuple[int, ...]:
    """An attribute as whole numbers; `()` where it is absent or something else."""
    if isinstance(value, (tuple, list)):
        return tuple(int(v) for v in value if isinstance(v, (int, float)))
    return (int(value),) if isinstance(value, (int, float)) and not isinstance(value, bool) else ()


_WRITERS: dict[str, Callable[[NodeView], str]] = {"paper": _paper, "default": _default}
