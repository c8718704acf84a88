from __future__ import annotations

import pickle
import resource
import sys

import pytest

from costmodel.analysis import analyze
from costmodel.errors import DynamicShapeError, InputError, ModelLoadError, UnsupportedOpError
from tests.frontends.torch_modules import Apply, conv_net, nn, onnx_graph, torch, trained

import frontends  # isort: skip
from frontends import torch_export  # isort: skip

IMAGE = (2, 3, 16, 16)


@pytest.fixture(scope="module")
def program():
    return torch.export.export(trained(conv_net()), (torch.randn(IMAGE),))


def test_cnn_and_its_onnx_export_have_one_fingerprint() -> None:
    module = trained(conv_net())
    ours = frontends.load(module, example_inputs=IMAGE)
    theirs = onnx_graph(module, torch.randn(IMAGE))
    assert [n.op for n in ours.nodes] == [
        "Conv",
        "Relu",
        "MaxPool",
        "Conv",
        "Clip",
        "GlobalAveragePool",
        "Reshape",
        "Gemm",
    ]
    assert ours.fingerprint == theirs.fingerprint


def test_mlp_and_its_onnx_export_have_one_fingerprint() -> None:
    module = trained(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4), nn.Softmax(-1)))
    for shape in ((3, 8), (2, 5, 8)):
        assert (
            torch_export.load(module, example_inputs=shape).fingerprint
            == onnx_graph(module, torch.randn(shape)).fingerprint
        )


def test_program_file_bytes_and_module_agree(program, tmp_path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    wanted = frontends.load(conv_net(), example_inputs=IMAGE).fingerprint
    assert frontends.load(program).fingerprint == wanted
    assert frontends.load(path).fingerprint == wanted
    assert frontends.load(path.read_bytes()).fingerprint == wanted


def test_weights_in_a_file_are_never_opened(program, tmp_path, monkeypatch) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle or a weight was opened")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert len(frontends.load(path)) == 8


def test_module_is_left_as_it_was() -> None:
    module = conv_net().train()
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [m.training for m in module.modules()]
    graph = torch_export.load(module, example_inputs=torch.randn(IMAGE))
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(n.op == "Dropout" for n in graph.nodes)


def test_program_exported_in_training_mode_counts_as_inference() -> None:
    module = conv_net()
    wanted = torch_export.load(module, example_inputs=IMAGE).fingerprint
    assert torch_export.load(torch.export.export(module.train(), (torch.randn(IMAGE),))).fingerprint == wanted


def test_seventy_billion_parameters_need_no_memory() -> None:
    with torch.device("meta"):
        module = nn.Sequential(*(nn.Linear(16384, 16384) for _ in range(262)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = torch_export.load(module, example_inputs=(1, 128, 16384))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert analyze(graph).params > 70e9
    assert grown * (1 if sys.platform == "darwin" else 1024) < 400e6


def test_module_of_fake_tensors() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        module = conv_net()
    assert (
        torch_export.load(module, example_inputs=IMAGE).fingerprint
        == torch_export.load(conv_net(), example_inputs=IMAGE).fingerprint
    )


def test_inputs_by_shape_name_and_mapping() -> None:
    module = conv_net()
    wanted = frontends.load(module, example_inputs=IMAGE).fingerprint
    assert frontends.load(module, shapes={"input": IMAGE}).fingerprint == wanted
    assert frontends.load(module, example_inputs={"input": torch.randn(IMAGE)}).fingerprint == wanted
    assert frontends.load(module, batch=2, example_inputs=[(1, 3, 16, 16)]).fingerprint == wanted


def test_ids_given_by_shape_are_integers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, input_ids):  # type: ignore[no-untyped-def]
            return self.table(input_ids)

    graph = frontends.load(Net(), shapes={"input_ids": (2, 5)})
    assert [n.op for n in graph.nodes] == ["Gather"]
    assert graph.tensors["input_ids"].dtype.value == "int64"


def test_batch_replaces_the_exported_one(program) -> None:
    wanted = torch_export.load(conv_net(), example_inputs=(7, *IMAGE[1:])).fingerprint
    assert torch_export.load(program, batch=7).fingerprint == wanted


def test_batch_in_literal_sizes_is_replaced() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.zeros(1, 1, 6))

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
            return x.view(x.shape[0], -1, 2, 3).transpose(1, 2).reshape(x.shape[0] * 2, -1)

    def at(n: int):  # type: ignore[no-untyped-def]
        return torch.export.export(Tokens(), (torch.randn(n, 4, 6),))

    assert torch_export.load(at(2), batch=5).fingerprint == torch_export.load(at(5)).fingerprint
    assert torch_export.load(at(1), batch=5).fingerprint == torch_export.load(at(5)).fingerprint


def test_dynamic_axes_are_bound_or_named() -> None:
    dim = torch.export.Dim
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    dynamic = {"input": {0: dim("batch"), 2: dim("height", min=4)}}
    program = torch.export.export(module, (torch.randn(IMAGE),), dynamic_shapes=dynamic)
    with pytest.raises(DynamicShapeError, match=r"input axis 2\); give --shape input:1,3,\?,16$") as caught:
        torch_export.load(program)
    (symbol,) = caught.value.symbols
    wanted = torch_export.load(module, example_inputs=(3, 3, 20, 16)).fingerprint
    assert torch_export.load(program, shapes={"input": (3, 3, 20, 16)}).fingerprint == wanted
    assert torch_export.load(program, batch=3, shapes={symbol: 20}).fingerprint == wanted


def test_strict_lists_every_operator_without_rule() -> None:
    module = Apply(lambda x: torch.fft.rfft(x).abs() + torch.special.bessel_j0(x).sum())
    graph = torch_export.load(module, example_inputs=(4, 16))
    assert sum(n.opaque for n in graph.nodes) == 2
    assert analyze(graph).coverage < 1
    with pytest.raises(UnsupportedOpError) as caught:
        torch_export.load(module, example_inputs=(4, 16), strict=True)
    assert len(caught.value.ops) == 2


@pytest.mark.parametrize(
    ("source", "arguments", "error", "message"),
    [
        (b"PK\x03\x04 cut off", {}, ModelLoadError, "save it again"),
        (conv_net(), {}, InputError, "give example_inputs"),
        (conv_net(), {"example_inputs": (2, 4, 16, 16)}, ModelLoadError, "check the example inputs"),
        (conv_net(), {"example_inputs": IMAGE, "batch": 0}, InputError, "give --batch 1 or more"),
        (conv_net(), {"example_inputs": IMAGE, "shapes": {"q": (1,)}}, InputError, "which forward"),
        (conv_net(), {"example_inputs": "x"}, InputError, "give tensors"),
        (Apply(lambda a, b: a + b.sum()), {"example_inputs": [(2, 3), (4, 3)], "batch": 3}, InputError, "share no"),
        (3, {}, ModelLoadError, "give a module"),
    ],
)
def test_bad_input_is_one_line_with_a_fix(source, arguments, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        torch_export.load(source, **arguments)
    assert "\n" not in str(caught.value)


def test_other_torch_files_are_refused(tmp_path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelLoadError, match=r"save with torch\.export\.save"):
        frontends.load(path)


def test_truncated_file(program, tmp_path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    with pytest.raises(ModelLoadError, match="damaged or truncated"):
        frontends.load(path.read_bytes()[:2000])
