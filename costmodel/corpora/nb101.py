"""NAS-Bench-101 networks (Ying et al. 2019, arXiv:1902.09635) from a module's adjacency matrix and operations.

A network (nasbench/lib/model_builder.py) is a 3×3 stem to 128 channels and three stacks of three modules on 3×32×32,
with a 2×2 max pool and twice the channels before the second and third, then the mean and a linear layer. A module's
vertices add their inputs, the input of the module coming through a 1×1 projection; the output concatenates.
"""

from __future__ import annotations

from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import InputError
from costmodel.ir import Graph

CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
OPERATIONS = (CONV3, CONV1, POOL)
STEM, STACKS, MODULES = 128, 3, 3
Matrix = tuple[tuple[int, ...], ...]


def name_of(matrix: Matrix, operations: tuple[str, ...]) -> str:
    """What `parse` and `build` take: `nb101/<adjacency, row by row>/<operations>`."""
    return f"nb101/{''.join(str(cell) for row in matrix for cell in row)}/{','.join(operations)}"


def parse(name: str) -> tuple[Matrix, tuple[str, ...]]:
    """Adjacency and operations of `nb101/<adjacency>/<operations>`, such as `nb101/010001000/input,maxpool3x3,output`.

    Raises InputError.
    """
    digits, _, words = name.removeprefix("nb101/").partition("/")
    operations = tuple(words.split(","))
    side = len(operations)
    if len(digits) != side * side or set(digits) - {"0", "1"}:
        raise InputError(
            f"'{name}' is not a NAS-Bench-101 module; write nb101/<{side * side} digits 0 or 1>/input,…,output"
        )
    matrix = tuple(tuple(int(c) for c in digits[i * side : (i + 1) * side]) for i in range(side))
    return matrix, operations


def build(name: str, batch: int = 1) -> Graph:
    """The network of `nb101/<adjacency>/<operations>` on (batch, 3, 32, 32). Raises InputError."""
    return network(*parse(name), batch)


def network(matrix: Matrix, operations: tuple[str, ...], batch: int = 1, classes: int = 10) -> Graph:
    """The network of a module on (batch, 3, 32, 32); vertices that lead nowhere are left out, as in the benchmark.

    Raises InputError for a matrix or operations outside the search space's form.
    """
    kept, labels = pruned(matrix, operations)
    net = NetBuilder(name_of(matrix, operations))
    x = net.conv_bn(net.input((batch, 3, 32, 32), name="input"), STEM, 3, act="Relu")
    channels = STEM
    for stack in range(STACKS):
        if stack:
            x = max_pool(net, x, 2, 2, 0)
            channels *= 2
        for _ in range(MODULES):
            x = _module(net, x, kept, labels, channels)
    return net.build([net.linear(net.flatten(net.global_pool(x)), classes)])


def pruned(matrix: Matrix, operations: tuple[str, ...]) -> tuple[Matrix, tuple[str, ...]]:
    """The module without vertices that lead nowhere. Raises InputError for one outside the search space's form."""
    side = len(matrix)
    regular = side >= 2 and len(operations) == side and all(len(row) == side for row in matrix)
    if not regular or any(matrix[i][j] for i in range(side) for j in range(i + 1)):
        raise InputError(
            "a NAS-Bench-101 module needs a square, strictly upper triangular matrix and as many operations"
        )
    if (operations[0], operations[-1]) != ("input", "output") or set(operations[1:-1]) - set(OPERATIONS):
        raise InputError(f"operations {','.join(operations)}: write input, any of {', '.join(OPERATIONS)}, output")
    fed, needed = {0}, {side - 1}
    for i in range(side):
        fed |= {j for j in range(side) if i in fed and matrix[i][j]}
    for j in reversed(range(side)):
        needed |= {i for i in range(side) if j in needed and matrix[i][j]}
    keep = sorted(fed & needed)
    if 0 not in keep or side - 1 not in keep:
        raise InputError("the module's output does not depend on its input; connect them")
    return tuple(tuple(matrix[i][j] for j in keep) for i in keep), tuple(operations[i] for i in keep)


def channels_of(inputs: int, outputs: int, matrix: Matrix) -> list[int]:
    """Channels of every vertex: those before the output share its channels, the others take what they feed."""
    last = len(matrix) - 1
    widths = [inputs, *[0] * (last - 1), outputs]
    before = [v for v in range(1, last) if matrix[v][last]]
    for place, vertex in enumerate(before):
        widths[vertex] = outputs // len(before) + (place < outputs % len(before))
    for vertex in reversed(range(1, last)):
        if not matrix[vertex][last]:
            widths[vertex] = max(widths[j] for j in range(vertex + 1, last) if matrix[vertex][j])
    return widths


def _module(net: NetBuilder, x: str, matrix: Matrix, operations: tuple[str, ...], channels: int) -> str:
    last = len(matrix) - 1
    widths = channels_of(net.shape(x)[1], channels, matrix)
    tensors = [x]
    for vertex in range(1, last):
        parts = [_cut(net, tensors[i], widths[vertex]) for i in range(1, vertex) if matrix[i][vertex]]
        if matrix[0][vertex]:
            parts.append(net.conv_bn(x, widths[vertex], 1, act="Relu"))
        tensors.append(_operation(net, _sum(net, parts), operations[vertex], widths[vertex]))
    ends = [tensors[i] for i in range(1, last) if matrix[i][last]]
    if not ends:
        return net.conv_bn(x, channels, 1, act="Relu")
    y = ends[0]
    if len(ends) > 1:
        batch, _, *size = net.shape(x)
        y = net.node("Concat", ends, (batch, channels, *size), axis=1)
    return net.plus(y, net.conv_bn(x, channels, 1, act="Relu")) if matrix[0][last] else y


def _operation(net: NetBuilder, x: str, operation: str, channels: int) -> str:
    if operation == POOL:
        return max_pool(net, x, 3, 1, 1)
    return net.conv_bn(x, channels, 3 if operation == CONV3 else 1, act="Relu")


def _sum(net: NetBuilder, parts: list[str]) -> str:
    total = parts[0]
    for part in parts[1:]:
        total = net.plus(total, part)
    return total


def _cut(net: NetBuilder, x: str, channels: int) -> str:
    """The first channels, where an uneven division left one more."""
    batch, width, *size = net.shape(x)
    if width == channels:
        return x
    return net.node("Slice", [x], (batch, channels, *size), starts=(0,), ends=(channels,), axes=(1,), steps=(1,))


def max_pool(net: NetBuilder, x: str, kernel: int, stride: int, pad: int) -> str:
    """MaxPool with a square window."""
    batch, channels, height, width = net.shape(x)
    out = (height + 2 * pad - kernel) // stride + 1, (width + 2 * pad - kernel) // stride + 1
    return net.node(
        "MaxPool", [x], (batch, channels, *out), kernel_shape=(kernel, kernel), strides=(stride, stride),
        pads=(pad,) * 4, dilations=(1, 1),
    )  # fmt: skip
