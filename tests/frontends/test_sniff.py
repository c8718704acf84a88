from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from costmodel.api import load_graph
from costmodel.errors import InputError, ModelLoadError
from frontends import load, sniff
from tests.frontends.onnx_models import conv_net
from tests.frontends.relay_programs import CONV_NET


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(conv_net().SerializeToString())
    assert sniff(path).name == "onnx"
    assert sniff(str(path)).name == "onnx"
    assert load(path).fingerprint == load(conv_net()).fingerprint == load(path.read_bytes()).fingerprint


def test_a_missing_file_a_directory_and_an_empty_file_are_told_apart(tmp_path: Path) -> None:
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for source, words in ((tmp_path / "none.onnx", "does not exist"), (tmp_path, "directory"), (empty, "is empty")):
        with pytest.raises(ModelLoadError, match=words) as caught:
            load(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"hello, this is text\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(200), b"\xff" * 64])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ModelLoadError):
        load(content)


def test_an_object_of_no_known_library_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"builtins\.dict"):
        load({"model": 1})


def test_example_inputs_reach_torch_modules() -> None:
    torch = pytest.importorskip("torch", reason="the torch frontend needs torch")
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    graph = load(module, example_inputs=(2, 8))
    assert [graph.tensors[t].shape for t in (*graph.inputs, *graph.outputs)] == [(2, 8), (2, 4)]
    for inputs in (torch.zeros(2, 8), [(2, 8)], {"input": (2, 8)}):
        assert load_graph(module, example_inputs=inputs).fingerprint == graph.fingerprint
    assert load_graph(module, 5, example_inputs=(2, 8)).tensors[graph.outputs[0]].shape == (5, 4)
    program = torch.export.export(module, (torch.zeros(2, 8),))
    with pytest.raises(InputError, match="torch model declares its own inputs; give batch or shapes instead"):
        load(program, example_inputs=(2, 8))


@pytest.mark.parametrize("source", [conv_net(), CONV_NET.encode()], ids=["onnx", "relay"])
def test_example_inputs_of_other_languages_are_refused(source: object) -> None:
    with pytest.raises(InputError, match="give batch or shapes instead") as caught:
        load(source, example_inputs=(1, 3, 8, 8))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="this is a Graph"):
        load_graph(load(source), example_inputs=(1, 3, 8, 8))


def test_importing_the_package_does_not_import_a_reader() -> None:
    code = "import sys, frontends; sys.exit(any(m in sys.modules for m in ('onnx', 'numpy', 'torch', 'lark')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
