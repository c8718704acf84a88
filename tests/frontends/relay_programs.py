"""Small Relay programs, and a writer of the JSON node table that old TVMs saved."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from costmodel.ir import Graph
from frontends.relay_load import load

CONV_NET = """#[version = "0.0.5"]
def @main(%data: Tensor[(1, 3, 8, 8), float32], %w: Tensor[(4, 3, 3, 3), float32], %b: Tensor[(4), float32],
          %fc: Tensor[(10, 4), float32], %fc_b: Tensor[(10), float32]) {
  %0 = nn.conv2d(%data, %w, padding=[1, 1, 1, 1], channels=4, kernel_size=[3, 3]);
  %1 = nn.bias_add(%0, %b);
  %2 = nn.relu(%1);
  %3 = nn.global_avg_pool2d(%2);
  %4 = nn.batch_flatten(%3);
  %5 = nn.dense(%4, %fc, units=10);
  nn.bias_add(%5, %fc_b)
}
"""


def graph(text: str, **options: Any) -> Graph:
    """The graph of a program."""
    return load(text.encode(), **options)


def main(params: str, body: str, **options: Any) -> Graph:
    """The graph of one function."""
    return graph('#[version = "0.0.5"]\ndef @main(' + params + ") {\n" + body + "\n}\n", **options)


def ops(found: Graph) -> list[str]:
    """Operator names in order."""
    return [node.op for node in found.nodes]


class Table:
    """Builds a node table; every method returns the index of what it added."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = [{"type_key": ""}]
        self.tensors: list[str] = []

    def add(self, kind: str, data: list[int] | None = None, **attrs: Any) -> int:
        node: dict[str, Any] = {"type_key": kind}
        if attrs:
            node["attrs"] = {name: str(value) for name, value in attrs.items()}
        if data is not None:
            node["data"] = data
        self.nodes.append(node)
        return len(self.nodes) - 1

    def array(self, *items: int) -> int:
        return self.add("Array", list(items))

    def string(self, text: str) -> int:
        index = self.add("runtime.String")
        self.nodes[index]["repr_str"] = text
        return index

    def ints(self, *values: int) -> int:
        return self.array(*(self.add("IntImm", dtype="int32", value=v) for v in values))

    def tensor_type(self, *shape: int, dtype: str = "float32") -> int:
        return self.add("relay.TensorType", dtype=dtype, shape=self.ints(*shape))

    def var(self, name: str, annotation: int = 0) -> int:
        vid = self.add("relay.Id", name_hint=self.string(name))
        return self.add("relay.Var", vid=vid, type_annotation=annotation, _checked_type_=0)

    def op(self, name: str) -> int:
        index = self.add("Op")
        self.nodes[index]["repr_str"] = name
        return index

    def call(self, op: str, *args: int, attrs: int = 0) -> int:
        return self.add("relay.Call", op=self.op(op), args=self.array(*args), attrs=attrs, type_args=0)

    def constant(self, shape: tuple[int, ...], values: list[float]) -> int:
        raw = struct.pack("<QQiiiBBH", 0xDD5E40F096B4A13F, 0, 1, 0, len(shape), 2, 32, 1)
        raw += struct.pack(f"<{len(shape)}q", *shape) + struct.pack("<q", 4 * len(values))
        self.tensors.append(base64.b64encode(raw + struct.pack(f"<{len(values)}f", *values)).decode())
        index = self.add("relay.Constant")
        self.nodes[index]["attrs"] = {"data": str(len(self.tensors) - 1)}
        return index

    def function(self, params: list[int], body: int, attrs: int = 0) -> int:
        listed, generics = self.array(*params), self.array()
        return self.add("relay.Function", params=listed, body=body, ret_type=0, type_params=generics, attrs=attrs)

    def text(self, root: int) -> str:
        return json.dumps({"root": root, "nodes": self.nodes, "b64ndarrays": self.tensors, "attrs": {}})
