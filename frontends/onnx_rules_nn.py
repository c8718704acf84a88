"""Rules of convolutions, pools, products, recurrent networks, attention and Fourier transforms."""

from __future__ import annotations

import math

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_rules import Attrs, Call, Lowered, Result, axis_of, broadcast, optional_specs, rule
from frontends.onnx_values import Shape, Spec, Value


class Window:
    """Geometry of a sliding window with defaults filled in and auto_pad resolved to numbers."""

    __slots__ = ("auto", "dilations", "kernel", "pads", "strides")

    def __init__(self, c: Call, spatial: Shape, kernel: Shape) -> None:
        count = len(spatial)
        self.kernel = tuple(kernel)
        self.strides = tuple(c.attrs.get("strides") or (1,) * count)
        self.dilations = tuple(c.attrs.get("dilations") or (1,) * count)
        self.pads = tuple(c.attrs.get("pads") or (0,) * (2 * count))
        self.auto = c.attrs.get("auto_pad", "NOTSET")
        if not len(self.kernel) == len(self.strides) == len(self.dilations) == len(self.pads) // 2 == count:
            raise ShapeInferenceError(f"kernel {self.kernel}, strides and pads {self.pads} do not fit {count} axes")
        if min(self.strides, default=1) < 1:
            raise ShapeInferenceError(f"strides {self.strides} are not positive")
        if self.auto == "VALID":
            self.pads = (0,) * (2 * count)
        elif self.auto.startswith("SAME"):
            self._same(spatial)

    def _same(self, spatial: Shape) -> None:
        before, after = [], []
        for size, extent, stride in zip(spatial, self.extents, self.strides, strict=False):
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            small, large = total // 2, total - total // 2
            before.append(large if self.auto == "SAME_LOWER" else small)
            after.append(small if self.auto == "SAME_LOWER" else large)
        self.pads = (*before, *after)

    @property
    def extents(self) -> Shape:
        """Pixels that the dilated kernel spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=False))

    def out(self, spatial: Shape, ceil: bool = False) -> Shape:
        """Output size; with `ceil`, a last window must still start inside the input or its left padding."""
        count, found = len(spatial), []
        for i, (size, extent, stride) in enumerate(zip(spatial, self.extents, self.strides, strict=False)):
            room = size + self.pads[i] + self.pads[i + count] - extent
            steps = -(-room // stride) if ceil else room // stride
            if ceil and steps * stride >= size + self.pads[i]:
                steps -= 1
            if room < 0:
                raise ShapeInferenceError(f"a window of {self.kernel} does not fit into {spatial}")
            found.append(steps + 1)
        return tuple(found)

    def attrs(self) -> Attrs:
        """The attributes that every windowed operator carries."""
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "pads": self.pads,
            "dilations": self.dilations,
        }


@rule("Conv", "ConvInteger")
def _conv(c: Call) -> Lowered:
    x, w = c.need(0), c.need(1)
    bias = c.get(2) if c.op == "Conv" else None
    out = DType.INT32 if c.op == "ConvInteger" else x.dtype
    return convolution(c, x, w, bias, out)


def convolution(c: Call, x: Value, w: Value, bias: Value | None, dtype: DType) -> Result:
    """Conv of x (N, Cin, spatial…) with w (Cout, Cin / group, kernel…)."""
    if len(x.shape) < 3 or len(w.shape) != len(x.shape):
        raise ShapeInferenceError(f"input {x.shape} and weight {w.shape} do not fit")
    group = int(c.attrs.get("group", 1))
    if w.shape[1] * group != x.shape[1]:
        raise ShapeInferenceError(f"{x.shape[1]} input channels do not fit weight {w.shape} in {group} groups")
    window = Window(c, x.shape[2:], tuple(c.attrs.get("kernel_shape") or w.shape[2:]))
    shape = (x.shape[0], w.shape[0], *window.out(x.shape[2:]))
    return Result([(shape, dtype)], {**window.attrs(), "group": group}, [x, w, bias] if bias else [x, w], "Conv")


@rule("ConvTranspose")
def _conv_transpose(c: Call) -> Lowered:
    x, w = c.need(0), c.need(1)
    spatial = x.shape[2:]
    count = len(spatial)
    if w.shape[0] != x.shape[1] or len(w.shape) != len(x.shape):
        raise ShapeInferenceError(f"input {x.shape} and weight {w.shape} do not fit")
    group = int(c.attrs.get("group", 1))
    kernel = tuple(c.attrs.get("kernel_shape") or w.shape[2:])
    strides = tuple(c.attrs.get("strides") or (1,) * count)
    dilations = tuple(c.attrs.get("dilations") or (1,) * count)
    extra = tuple(c.attrs.get("output_padding") or (0,) * count)
    full = [
        (n - 1) * s + o + (k - 1) * d + 1
        for n, s, o, k, d in zip(spatial, strides, extra, kernel, dilations, strict=False)
    ]
    pads, size = _transposed_pads(c, spatial, strides, full)
    attrs: Attrs = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "group": group}
    if any(extra):
        attrs["output_padding"] = extra
    inputs = [x, w, c.get(2)] if c.get(2) else [x, w]
    return Result([((x.shape[0], w.shape[1] * group, *size), x.dtype)], attrs, inputs)


def _transposed_pads(c: Call, spatial: Shape, strides: Shape, full: list[int]) -> tuple[Shape, Shape]:
    """Padding as numbers and the output size, from pads, auto_pad or output_shape."""
    count, auto = len(spatial), c.attrs.get("auto_pad", "NOTSET")
    wanted = c.attrs.get("output_shape")
    if wanted is None and not auto.startswith("SAME"):
        pads = (0,) * (2 * count) if auto == "VALID" else tuple(c.attrs.get("pads") or (0,) * (2 * count))
        return pads, tuple(f - pads[i] - pads[i + count] for i, f in enumerate(full))
    size = (
        tuple(wanted)[-count:] if wanted is not None else tuple(n * s for n, s in zip(spatial, strides, strict=False))
    )
    total = [max(f - n, 0) for f, n in zip(full, size, strict=False)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return tuple(small + large if auto != "SAME_LOWER" else large + small), size


@rule("DeformConv")
def _deform_conv(c: Call) -> Lowered:
    x, w = c.need(0), c.need(1)
    window = Window(c, x.shape[2:], tuple(c.attrs.get("kernel_shape") or w.shape[2:]))
    attrs = {**window.attrs(), "group": int(c.attrs.get("group", 1)), "offset_group": c.attrs.get("offset_group", 1)}
    return Result([((x.shape[0], w.shape[0], *window.out(x.shape[2:])), x.dtype)], attrs, list(c.inputs))


@rule("MaxPool", "AveragePool", "LpPool")
def _pool(c: Call) -> Lowered:
    return pooling(c, c.need(0), c.op)


def pooling(c: Call, x: Value, op: str) -> Result:
    """A pool of x (N, C, spatial…)."""
    window = Window(c, x.shape[2:], tuple(c.attrs["kernel_shape"]))
    ceil = bool(c.attrs.get("ceil_mode", 0))
    spatial = window.out(x.shape[2:], ceil and not window.auto.startswith("SAME"))
    attrs = {**window.attrs(), "ceil_mode": int(ceil)}
    if op == "AveragePool":
        attrs["count_include_pad"] = int(c.attrs.get("count_include_pad", 0))
    elif op == "LpPool":
        attrs["p"] = int(c.attrs.get("p", 2))
    shape = (*x.shape[:2], *spatial)
    specs: list[Spec] = [(shape, x.dtype)]
    if op == "MaxPool":
        specs = optional_specs(c, [*specs, (shape, DType.INT64)])
    return Result(specs, attrs, [x], op)


@rule("MaxUnpool")
def _max_unpool(c: Call) -> Lowered:
    x, indices = c.need(0), c.need(1)
    kernel = tuple(c.attrs["kernel_shape"])
    strides = tuple(c.attrs.get("strides") or (1,) * len(kernel))
    pads = tuple(c.attrs.get("pads") or (0,) * (2 * len(kernel)))
    if c.get(2) is not None:
        shape = c.ints(2)
    else:
        sizes = [
            (n - 1) * s + k - pads[i] - pads[i + len(kernel)]
            for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=False))
        ]
        shape = (*x.shape[:2], *sizes)
    return Result([(shape, x.dtype)], {"kernel_shape": kernel, "strides": strides, "pads": pads}, [x, indices])


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {"p": int(c.attrs.get("p", 2))} if c.op == "GlobalLpPool" else {}
    return Result([(x.shape[:2] + (1,) * (len(x.shape) - 2), x.dtype)], attrs, [x])


@rule("Col2Im")
def _col2im(c: Call) -> Lowered:
    x, image, block = c.need(0), c.ints(1), c.ints(2)
    return Result(
        [((x.shape[0], x.shape[1] // math.prod(block), *image), x.dtype)],
        {"kernel_shape": block, "strides": tuple(c.attrs.get("strides") or (1,) * len(block))},
        [x],
    )


@rule("Gemm")
def _gemm(c: Call) -> Lowered:
    return gemm(c, c.need(0), c.need(1), c.get(2), c.need(0).dtype)


def gemm(c: Call, a: Value, b: Value, bias: Value | None, dtype: DType) -> Result:
    """alpha * A' B' + beta * C; alpha and beta are attributes only where they are not one."""
    if len(a.shape) > 2 and c.version < 7:
        a = c.lowering.emit("Flatten", [a], [((a.shape[0], math.prod(a.shape[1:])), a.dtype)], {"axis": 1})[0]
    left, right = int(c.attrs.get("transA", 0)), int(c.attrs.get("transB", 0))
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ShapeInferenceError(f"operands {a.shape} and {b.shape} are not matrices")
    (depth, rows) = a.shape if left else a.shape[::-1]
    (columns, inner) = b.shape if right else b.shape[::-1]
    if depth != inner:
        raise ShapeInferenceError(f"operands {a.shape} and {b.shape} do not multiply")
    attrs: Attrs = {"transA": left, "transB": right}
    for key in ("alpha", "beta"):
        if c.attrs.get(key, 1.0) != 1.0:
            attrs[key] = float(c.attrs[key])
    return Result([((rows, columns), dtype)], attrs, [a, b, bias] if bias else [a, b], "Gemm")


@rule("MatMul", "MatMulInteger")
def _matmul(c: Call) -> Lowered:
    a, b = c.need(0), c.need(1)
    dtype = DType.INT32 if c.op == "MatMulInteger" else a.dtype
    return Result([(product_shape(a.shape, b.shape), dtype)], None, [a, b], "MatMul")


def product_shape(a: Shape, b: Shape) -> Shape:
    """Shape of NumPy's matmul."""
    if not a or not b:
        raise ShapeInferenceError(f"operands {a} and {b} do not multiply")
    left, right = ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)
    if left[-1] != right[-2]:
        raise ShapeInferenceError(f"operands {a} and {b} do not multiply")
    rows = left[-2:-1] if len(a) > 1 else ()
    columns = right[-1:] if len(b) > 1 else ()
    return broadcast(left[:-2], right[:-2]) + rows + columns


@rule("Einsum")
def _einsum(c: Call) -> Lowered:
    values = [c.need(i) for i in range(len(c.inputs))]
    equation = c.attrs["equation"].replace(" ", "")
    shape = einsum_shape(equation, [v.shape for v in values])
    return Result([(shape, values[0].dtype)], {"equation": equation}, values)


def einsum_shape(equation: str, shapes: list[Shape]) -> Shape:
    """Output shape of an einsum; an ellipsis stands for broadcast leading axes."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ShapeInferenceError(f"equation '{equation}' has {len(terms)} terms for {len(shapes)} operands")
    sizes: dict[str, int] = {}
    spread: Shape = ()
    for term, shape in zip(terms, shapes, strict=False):
        head, dots, tail = term.partition("...")
        if len(head) + len(tail) > len(shape) or (not dots and len(head) != len(shape)):
            raise ShapeInferenceError(f"term '{term}' of '{equation}' does not fit {shape}")
        if dots:
            spread = broadcast(spread, shape[len(head) : len(shape) - len(tail)])
        for letter, dim in [*zip(head, shape, strict=False), *zip(tail, shape[len(shape) - len(tail) :], strict=False)]:
            sizes[letter] = max(dim, sizes.get(letter, 1))
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = ("..." if "..." in left else "") + "".join(sorted(k for k in sizes if letters.count(k) == 1))
    head, dots, tail = right.partition("...")
    return (*(sizes[k] for k in head), *(spread if dots else ()), *(sizes[k] for k in tail))


@rule("LSTM", "GRU", "RNN")
def _recurrent(c: Call) -> Lowered:
    x, w, r = c.need(0), c.need(1), c.need(2)
    directions, hidden = w.shape[0], int(c.attrs.get("hidden_size") or r.shape[-1])
    layout = int(c.attrs.get("layout", 0))
    (batch, steps) = x.shape[:2] if layout else x.shape[1::-1]
    sequence = (batch, steps, directions, hidden) if layout else (steps, directions, batch, hidden)
    state = (batch, directions, hidden) if layout else (directions, batch, hidden)
    attrs: Attrs = {"hidden_size": hidden, "direction": c.attrs.get("direction", "forward"), "layout": layout}
    if c.op == "GRU":
        attrs["linear_before_reset"] = int(c.attrs.get("linear_before_reset", 0))
    specs = [(sequence, x.dtype), (state, x.dtype)] + [(state, x.dtype)] * (c.op == "LSTM")
    return Result(specs[: max(len(c.outputs), 1)], attrs, [x, w, r, *c.inputs[3:]])


@rule("Attention")
def _attention(c: Call) -> Lowered:
    q, k, v = c.need(0), c.need(1), c.need(2)
    attrs: Attrs = {"is_causal": int(c.attrs.get("is_causal", 0))}
    if len(q.shape) == 3:
        heads, kv_heads = int(c.attrs["q_num_heads"]), int(c.attrs["kv_num_heads"])
        attrs.update(q_num_heads=heads, kv_num_heads=kv_heads)
        batch, queries = q.shape[:2]
        keys, depth, width = k.shape[1], k.shape[2] // kv_heads, v.shape[2] // kv_heads
        shape: Shape = (batch, queries, heads * width)
    else:
        batch, heads, queries, _ = q.shape
        kv_heads, keys, depth, width = k.shape[1], k.shape[2], k.shape[3], v.shape[3]
        shape = (batch, heads, queries, width)
    past = c.get(4)
    total = keys + (past.shape[2] if past is not None else 0)
    specs: list[Spec] = [
        (shape, q.dtype),
        ((batch, kv_heads, total, depth), k.dtype),
        ((batch, kv_heads, total, width), v.dtype),
        ((batch, heads, queries, total), q.dtype),
    ]
    return Result(optional_specs(c, specs), attrs, list(c.inputs))


@rule("RotaryEmbedding")
def _rotary(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {"interleaved": int(c.attrs.get("interleaved", 0))}
    for key in ("num_heads", "rotary_embedding_dim"):
        if c.attrs.get(key):
            attrs[key] = int(c.attrs[key])
    return Result([(x.shape, x.dtype)], attrs, list(c.inputs))


@rule("DFT")
def _dft(c: Call) -> Lowered:
    x = c.need(0)
    rank = len(x.shape)
    if c.get(2) is not None:
        axis = axis_of(c.ints(2)[0], rank)
    else:
        axis = axis_of(c.attrs.get("axis", 1 if c.version < 20 else -2), rank)
    shape = list(x.shape)
    inverse, onesided = int(c.attrs.get("inverse", 0)), int(c.attrs.get("onesided", 0))
    if c.get(1) is not None:
        shape[axis] = c.ints(1)[0]
    elif onesided and inverse:
        shape[axis] = 2 * (shape[axis] - 1)
    if onesided and not inverse:
        shape[axis] = shape[axis] // 2 + 1
    shape[-1] = 1 if onesided and inverse else 2
    return Result([(tuple(shape), x.dtype)], {"axis": axis, "inverse": inverse, "onesided": onesided}, [x])


@rule("STFT")
def _stft(c: Call) -> Lowered:
    signal, step = c.need(0), c.ints(1)[0]
    window = c.get(2)
    size = c.ints(3)[0] if c.get(3) is not None else window.shape[0] if window is not None else 0
    if not size or not step:
        raise ShapeInferenceError("neither a window nor a frame length is given")
    frames = (signal.shape[1] - size) // step + 1
    onesided = int(c.attrs.get("onesided", 1))
    bins = size // 2 + 1 if onesided else size
    attrs: Attrs = {"frame_step": step, "frame_length": size, "onesided": onesided}
    return Result([((signal.shape[0], frames, bins, 2), signal.dtype)], attrs, [signal, window] if window else [signal])
