from __future__ import annotations

import json
from typing import Any

import pytest

from costmodel.errors import ModelLoadError
from frontends.relay_json import parse_json
from frontends.relay_parse import parse_text
from tests.frontends.relay_programs import Table, graph, ops


def conv_function(table: Table) -> int:
    x, w = (table.var(n, table.tensor_type(*s)) for n, s in (("x", (1, 3, 8, 8)), ("w", (4, 3, 3, 3))))
    attrs = table.add(
        "relay.attrs.Conv2DAttrs",
        strides=table.ints(1, 1),
        padding=table.ints(1, 1, 1, 1),
        dilation=table.ints(1, 1),
        groups=1,
        channels=table.add("IntImm", dtype="int32", value=4),
        kernel_size=table.ints(3, 3),
        data_layout="NCHW",
        kernel_layout="OIHW",
        out_layout="",
        out_dtype="",
    )
    conv = table.call("nn.conv2d", x, w, attrs=attrs)
    return table.function([x, w], table.call("add", conv, conv))


def test_json_and_text_give_the_same_graph() -> None:
    table = Table()
    text = """def @main(%x: Tensor[(1, 3, 8, 8), float32], %w: Tensor[(4, 3, 3, 3), float32]) {
      %0 = nn.conv2d(%x, %w, padding=[1, 1, 1, 1], channels=4, kernel_size=[3, 3]);
      add(%0, %0)
    }"""
    found = graph(table.text(conv_function(table)))
    assert ops(found) == ["Conv", "Add"]
    assert found.fingerprint == graph(text).fingerprint


def test_a_module_has_functions_and_data_types() -> None:
    table = Table()
    name = table.add("GlobalVar", name_hint=table.string("main"))
    functions = table.add("Map", [name, conv_function(table)])
    header = table.add("GlobalTypeVar", name_hint=table.string("nat"))
    ctor = table.add("relay.Constructor", name_hint=table.string("zero"), inputs=table.array(), belong_to=header)
    data = table.add("relay.TypeData", header=header, type_vars=table.array(), constructors=table.array(ctor))
    types = table.add("Map", [header, data])
    root = table.add("IRModule", functions=functions, type_definitions=types)
    module = parse_json(table.text(root))
    assert list(module.functions) == ["main"]
    assert module.ctors["zero"].adt == "nat"


def test_let_bindings_and_constants() -> None:
    table = Table()
    x, y = table.var("x", table.tensor_type(2, 2)), table.var("y")
    product = table.call("multiply", x, table.constant((2, 1), [1.0, 2.0]))
    root = table.function([x], table.add("relay.Let", var=y, value=product, body=table.call("exp", y)))
    found = graph(table.text(root))
    assert ops(found) == ["Mul", "Exp"]
    assert found.tensors[found.nodes[0].inputs[1]].shape == (2, 1)


def test_metadata_of_a_text_types_its_constants() -> None:
    table = Table()
    constant = table.constant((4, 3, 1, 1), [0.0] * 12)
    root = table.add("Map", [table.array(constant)])
    table.nodes[root]["keys"] = ["relay.Constant"]
    text = "def @main(%x: Tensor[(1, 3, 2, 2), float32]) { nn.conv2d(%x, meta[relay.Constant][0]) }\n\n#[metadata]\n"
    found = graph(text + table.text(root))
    assert ops(found) == ["Conv"]
    assert found.nodes[0].attrs["kernel_shape"] == (1, 1)
    assert parse_text(text + table.text(root)).functions["main"].params[0].name == "x"


def test_shared_nodes_are_bound_once_even_in_long_chains() -> None:
    table = Table()
    x = table.var("x", table.tensor_type(2))
    value = x
    for _ in range(3000):
        value = table.call("add", value, value)
    assert len(graph(table.text(table.function([x], value)))) == 3000


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "save the module again"),
        ('{"nodes": [3]}', "no table of nodes"),
        ('{"root": 9, "nodes": [{"type_key": ""}]}', "'9' is no node"),
        ("[" * 100_000, "save the module again"),
    ],
)
def test_damaged_files_are_refused(document: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        parse_json(document)


def cyclic() -> dict[str, Any]:
    nodes = [
        {"type_key": ""},
        {"type_key": "relay.Tuple", "attrs": {"fields": "2"}},
        {"type_key": "Array", "data": [1]},
    ]
    return {"root": 1, "nodes": nodes}


def branching(depth: int) -> str:
    """Nested conditions whose branches are one shared node: 2 ** depth paths."""
    table = Table()
    x = table.var("x", table.tensor_type(dtype="bool"))
    value = x
    for _ in range(depth):
        value = table.add("relay.If", cond=x, true_branch=value, false_branch=value)
    return table.text(table.function([x], value))


@pytest.mark.parametrize("document", [json.dumps(cyclic()), branching(40)], ids=["cycle", "shared branches"])
def test_hostile_tables_end_in_an_error(document: str) -> None:
    with pytest.raises(ModelLoadError):
        parse_json(document)
