"""Cuts an ONNX model into one model per part of a plan. Needs onnx; weights may be absent.

A node of the file belongs to the part that makes its outputs. Nodes that the IR does not have go where they cost
nothing: what depends on constants and the network's inputs alone, and DequantizeLinear, is repeated in every part that
needs it, so that int8 tensors cross; everything else (shape arithmetic, QuantizeLinear, Identity) stays with what it
reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.errors import InputError, ModelLoadError
from costmodel.ir import DType, Graph, TensorSpec
from costmodel.partition.problem import FileCuts, Hidden

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

    from costmodel.partition.plan import Plan

PART_KEY = "ledg_cost.part"


def file_cuts(model: ModelProto, graph: Graph) -> FileCuts:
    """Where `model`, which lowers to `graph`, can be cut, and what a cut has to hand on besides the graph's tensors."""
    constants = _constants(model)
    fed = {i.name for i in model.graph.input} - constants
    origins: dict[str, frozenset[str]] = {}
    readers: dict[str, dict[str, None]] = {}
    for node in model.graph.node:
        inputs = [name for name in _reads([node]) if name not in constants and name not in fed]
        twins = [name for name in node.output if name in graph.producer]
        if not twins:
            found = frozenset[str]().union(*(origins.get(n, {n} & graph.producer.keys()) for n in inputs))
            origins.update((name, found) for name in node.output if name)
            continue
        known = set(graph.nodes[graph.producer[twins[0]]].inputs)
        for name in inputs:
            if origins.get(name, frozenset()) - known:
                readers.setdefault(name, {})[twins[0]] = None
    hidden = tuple(Hidden(name, tuple(sorted(origins[name])), tuple(users)) for name, users in readers.items())
    return FileCuts(frozenset(n for node in model.graph.node for n in node.output if n), hidden)


def _constants(model: ModelProto) -> set[str]:
    return {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}


def read_model(path: Path) -> ModelProto:
    """The model of a file, external weights left where they are. Raises ModelLoadError."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelLoadError(f"'{path}' cannot be read ({error.strerror}); check the path") from error
    except DecodeError as error:
        raise ModelLoadError(f"'{path}' is not an ONNX file; only ONNX models can be split") from error
    return model


def split_plan(model: ModelProto, plan: Plan) -> list[ModelProto]:
    """One model per part of a plan made for `model`; see `split_model`."""
    made = [[t for i in part.nodes for t in plan.graph.nodes[i].outputs if t] for part in plan.parts]
    return split_model(model, made, plan.graph.tensors)


def split_model(
    model: ModelProto, made: Sequence[Collection[str]], specs: Mapping[str, TensorSpec] | None = None
) -> list[ModelProto]:
    """One model per part, run one after the other: each reads the network's inputs and what earlier parts made.

    made    per part, the tensors that it makes, in the file's names
    specs   shapes and types for tensors on which ONNX's own inference is silent

    Names, operator sets, functions and metadata are kept. Raises InputError if a part would need what a later one
    makes.
    """
    from onnx import ModelProto

    graph = model.graph
    if len(made) == 1:
        whole = ModelProto()
        whole.CopyFrom(model)
        return [whole]
    owner = _Owners(model, made)
    types = _value_infos(model, specs or {})
    results = [out.name for out in graph.output]
    reads = [_reads(nodes) for nodes in owner.nodes]
    parts = []
    for p, nodes in enumerate(owner.nodes):
        own = {name for node in nodes for name in node.output if name}
        wanted = {name for later in reads[p + 1 :] for name in later} | set(results)
        outputs = [name for name in dict.fromkeys(n for node in nodes for n in node.output) if name in wanted]
        outputs = [name for name in outputs if owner.part_of.get(name) == p]
        if p == 0:
            outputs += [name for name in results if name in owner.weights]
        inputs = [name for name in reads[p] if name not in own and name not in owner.weights]
        parts.append(_part(model, p, nodes, inputs, outputs, owner.weights, types))
    return parts


class _Owners:
    """Which nodes each part holds.

    nodes     per part, its nodes in the file's order
    part_of   tensor → the part that hands it to others; none for what every part makes for itself
    weights   names of the file's constants
    """

    def __init__(self, model: ModelProto, made: Sequence[Collection[str]]) -> None:
        graph = model.graph
        self.weights = _constants(model)
        home = {name: p for p, names in enumerate(made) for name in names}
        self.part_of: dict[str, int] = {}
        self.repeated: dict[str, NodeProto] = {}
        placed: list[tuple[NodeProto, int]] = []
        fed = {i.name for i in graph.input} - self.weights
        for node in graph.node:
            inputs = [name for name in _reads([node]) if name not in self.weights]
            twins = [home[name] for name in node.output if name in home]
            free = all(name in self.repeated or name in fed for name in inputs)
            if not twins and (free or node.op_type == "DequantizeLinear") and not node.op_type.startswith("Random"):
                self.repeated.update((name, node) for name in node.output if name)
                continue
            before = max((self._made_in(name) for name in inputs), default=0)
            part = max(twins) if twins else before
            if part < before:
                raise InputError(
                    f"node '{node.name or node.op_type}' of part {part} reads what part {before} makes;"
                    " simplify the model (onnxsim folds its shape arithmetic) and plan again"
                )
            self.part_of.update((name, part) for name in node.output if name)
            placed.append((node, part))
        for out in graph.output:  # a result that parts make for themselves is handed out by the one it stems from
            if out.name in self.repeated:
                self.part_of[out.name] = self._made_in(out.name)
        self.nodes = [self._closed(graph.node, [n for n, own in placed if own == p], p) for p in range(len(made))]

    def _made_in(self, name: str) -> int:
        """The earliest part that can have a tensor."""
        if name in self.part_of:
            return self.part_of[name]
        node = self.repeated.get(name)
        return max((self._made_in(n) for n in _reads([node])), default=0) if node is not None else 0

    def _closed(self, order: Iterable[NodeProto], own: list[NodeProto], part: int) -> list[NodeProto]:
        """A part's nodes with the repeated ones that they need, in the file's order."""
        handed = [name for name, p in self.part_of.items() if p == part and name in self.repeated]
        waiting = [*_reads(own), *handed]
        chosen = {id(node) for node in own}
        while waiting:
            node = self.repeated.get(waiting.pop())
            if node is not None and id(node) not in chosen:
                chosen.add(id(node))
                waiting.extend(_reads([node]))
        return [node for node in order if id(node) in chosen]


def _reads(nodes: Iterable[NodeProto]) -> list[str]:
    """Names that nodes read and do not make in their own subgraphs, in order."""
    found: dict[str, None] = {}
    for node in nodes:
        found.update(dict.fromkeys(name for name in node.input if name))
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                inner = {t.name for t in graph.initializer} | {i.name for i in graph.input}
                inner |= {name for child in graph.node for name in child.output}
                outer = [*_reads(graph.node), *(out.name for out in graph.output)]
                found.update(dict.fromkeys(name for name in outer if name not in inner))
    return list(found)


def _value_infos(model: ModelProto, specs: Mapping[str, TensorSpec]) -> dict[str, ValueInfoProto]:
    """Type and shape of every tensor: declared, inferred by ONNX, or as the IR has it."""
    import onnx
    from onnx import helper

    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = model.graph
    found = {
        name: helper.make_tensor_value_info(name, _onnx_type(spec.dtype), spec.shape) for name, spec in specs.items()
    }
    for info in (*graph.value_info, *graph.input, *graph.output):
        if info.type.WhichOneof("value") != "tensor_type" or info.type.tensor_type.elem_type:
            found[info.name] = _sized(info, specs.get(info.name))
    return found


def _sized(info: ValueInfoProto, spec: TensorSpec | None) -> ValueInfoProto:
    """A type without a shape gets the IR's."""
    if spec is None or info.type.WhichOneof("value") != "tensor_type" or info.type.tensor_type.HasField("shape"):
        return info
    from onnx import helper

    return helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, spec.shape)


def _onnx_type(dtype: DType) -> int:
    from onnx import TensorProto

    named = {DType.FLOAT32: "FLOAT", DType.FLOAT64: "DOUBLE", DType.FLOAT8: "FLOAT8E4M3FN"}
    return int(TensorProto.DataType.Value(named.get(dtype, dtype.value.upper())))


def _part(
    model: ModelProto, index: int, nodes: Sequence[NodeProto], inputs: Sequence[str], outputs: Sequence[str],
    weights: Collection[str], types: Mapping[str, ValueInfoProto],
) -> ModelProto:  # fmt: skip
    from onnx import ModelProto, StringStringEntryProto

    unknown = [name for name in (*inputs, *outputs) if name not in types]
    if unknown:
        raise InputError(
            f"the type of '{unknown[0]}', which crosses a cut, is unknown; run onnx.shape_inference on the model first"
        )
    part = ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        opset_import=model.opset_import,
        functions=model.functions,
        metadata_props=[*model.metadata_props, StringStringEntryProto(key=PART_KEY, value=str(index))],
    )
    graph = part.graph
    graph.name = f"{model.graph.name}.part{index}"
    graph.node.extend(nodes)
    used = {*_reads(nodes), *outputs} & set(weights)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    graph.sparse_initializer.extend(t for t in model.graph.sparse_initializer if t.values.name in used)
    graph.input.extend(types[name] for name in inputs)
    graph.input.extend(i for i in model.graph.input if i.name in used)  # IR versions under 4 list weights there
    graph.output.extend(types[name] for name in outputs)
    graph.quantization_annotation.extend(a for a in model.graph.quantization_annotation if a.tensor_name in used)
    return part


def write_parts(path: Path, parts: Sequence[ModelProto], labels: Sequence[str], folder: Path) -> list[Path]:
    """Writes the parts of the model at `path` as `STEM.partN.LABEL.onnx`; weights that the model keeps in files beside
    it are copied to a file beside each part, weights that are nowhere stay so. Raises InputError if it cannot write."""
    import onnx

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, (part, label) in enumerate(zip(parts, labels, strict=True)):
            target = folder / f"{path.stem}.part{index}.{label}.onnx"
            loaded = [_load_beside(tensor, path.parent) for tensor in part.graph.initializer]
            target.unlink(missing_ok=True)
            (folder / f"{target.name}.data").unlink(missing_ok=True)
            onnx.save_model(part, str(target), save_as_external_data=any(loaded), location=f"{target.name}.data")
            written.append(target)
    except OSError as error:
        raise InputError(f"cannot write to '{folder}' ({error.strerror}); give --split another folder") from error
    return written


def _load_beside(tensor: TensorProto, folder: Path) -> bool:
    """Loads an external weight whose file is there; whether it did."""
    from onnx import TensorProto, external_data_helper

    if not external_data_helper.uses_external_data(tensor):
        return False
    where = {entry.key: entry.value for entry in tensor.external_data}
    place = (folder / where.get("location", "")).resolve()
    if not where.get("location") or not place.is_relative_to(folder.resolve()) or not place.is_file():
        return False
    external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
    return True
