"""A small folder in NNLQP's layout, with real ONNX files, into the store and out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import frontends
from costmodel.errors import DataError
from costmodel.ir import Graph
from costmodel.samples import SampleStore, nnlqp
from tests.samples.conftest import measured, network


def model(width: int, batch: int) -> onnx.ModelProto:
    """A convolution and a ReLU, weightless as NNLQP's files: the weight is an input without an initializer's data."""
    weight = TensorProto(name="w", dims=(width, 3, 3, 3), data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["y"], ["output"]),
        ],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, width, 8, 8])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three networks on five platforms, one model missing and one broken."""
    lines = {"unseen_structure": [], "multi_platform": []}
    for subset, batch in (("unseen_structure", 1), ("multi_platform", 8)):
        for width, family in ((4, "alexnet"), (8, "resnet18")):
            folder = tmp_path / "dataset" / subset / "onnx" / f"nnmeter_{family}"
            folder.mkdir(parents=True)
            name = f"nnmeter_{family}_transform_{width:04d}.onnx"
            onnx.save(model(width, batch), folder / name)
            path = f"onnx/nnmeter_{family}/{name}"
            if batch == 1:
                lines[subset].append(f"{width} {path} 1 {width / 10} {family} 1")
            else:
                for number in (2, 10, 12, 13):
                    lines[subset].append(f"{width}{number} {path} 8 {width * number / 10} {family} {number} train")
    broken = tmp_path / "dataset/multi_platform/onnx/broken.onnx"
    broken.write_bytes(b"\x08\x07broken")
    lines["multi_platform"] += ["7 onnx/missing.onnx 8 1.0 vgg16 10 test", "8 onnx/broken.onnx 8 1.0 vgg16 10 test"]
    for subset, rows in lines.items():
        (tmp_path / "dataset" / subset / "gt.txt").write_text("\n".join(rows) + "\n")
    return tmp_path / "dataset"


def lower(path: Path, batch: int) -> Graph:
    return frontends.load(path, batch=batch)


def test_samples_name_their_platform_split_and_network(dataset: Path) -> None:
    skipped: Counter[str] = Counter()
    samples = [s for s, _ in nnlqp.read(dataset, lower, skipped)]
    assert len(samples) == 2 + 2 * 3
    first = samples[2]
    assert (first.platform_key, first.batch, first.latency_ms) == ("t4|fp32|tensorrt-7.1", 8, 4.0)
    assert first.name == "nnlqp/nnmeter_alexnet_transform_0004"
    assert first.environment == {
        "subset": "multi_platform", "family": "AlexNet", "platform": "gpu-T4-trt7.1-fp32", "stage": "train"
    }  # fmt: skip
    assert (first.source, first.measured_at, first.cv) == ("import:nnlqp", "", None)
    assert {s.platform_key for s in samples} == {
        "gtx1660|fp32|tensorrt-7.1", "t4|fp32|tensorrt-7.1", "t4|int8|tensorrt-7.1", "p4|fp32|tensorrt-7.1"
    }  # fmt: skip


def test_what_cannot_be_used_is_counted_by_reason(dataset: Path) -> None:
    skipped: Counter[str] = Counter()
    list(nnlqp.read(dataset, lower, skipped))
    assert skipped["no spec sheet for cpu-openppl-fp32"] == 2
    assert skipped["model file missing"] == 1
    assert sum(skipped[reason] for reason in skipped if reason.startswith("broken.onnx: ")) == 1
    assert len(skipped) == 3


def test_each_model_is_lowered_once_at_its_batch(dataset: Path) -> None:
    asked: list[tuple[str, int]] = []

    def counting(path: Path, batch: int) -> Graph:
        asked.append((path.name, batch))
        return lower(path, batch)

    pairs = list(nnlqp.read(dataset, counting, Counter()))
    assert sorted(Counter(asked).values()) == [1] * 5
    graphs = [g for _, g in pairs if g is not None]
    assert [g.tensors[g.inputs[0]].shape[0] for g in graphs] == [1, 1, 8, 8]
    assert all(g is None or g.fingerprint == s.fingerprint for s, g in pairs)


def test_a_folder_goes_through_the_store_and_comes_out_the_same(dataset: Path, tmp_path: Path) -> None:
    with SampleStore(tmp_path / "a.sqlite") as store:
        assert store.add_many(nnlqp.read(dataset, lower, Counter())) == 8
        assert len(store.fingerprints()) == 4
        out = tmp_path / "out"
        assert nnlqp.write(out, store.query(), store.graph) == 8
    assert not (out / "platforms.txt").exists()
    again = list(nnlqp.read(out, lower, Counter()))
    before = list(nnlqp.read(dataset, lower, Counter()))
    for (one, _), (two, _) in zip(again, before, strict=True):
        assert (one.fingerprint, one.platform_key, one.batch, one.latency_ms) == (
            two.fingerprint, two.platform_key, two.batch, two.latency_ms
        )  # fmt: skip
        assert one.name.startswith(two.name)  # batch 1 and 8 are two networks now, of two names
        assert one.environment.get("stage") == two.environment.get("stage")
        assert one.environment["family"] == two.environment["family"]
    assert (out / "gt.txt").read_text().splitlines()[0] == (
        "000000 onnx/alexnet/nnmeter_alexnet_transform_0004.onnx 1 0.4 alexnet 1"
    )


def _named(name: str, **changes: object) -> tuple[object, Graph]:
    graph = network()
    return measured(graph, name=name, **changes), graph


@pytest.mark.parametrize(
    ("name", "family", "model_path"),
    [
        ("gen/resnet/17", "ResNet", "onnx/resnet18/gen_resnet_17.onnx"),
        ("gen/mobilenetv2/3", "MobileNetV2", "onnx/mobilenetv2/gen_mobilenetv2_3.onnx"),
        ("gen/transformer/3", "transformer", "onnx/transformer/gen_transformer_3.onnx"),
        ("timm/resnet50@224", "other", "onnx/other/timm_resnet50@224.onnx"),
        ("a b/../c", "other", "onnx/other/a_b_.._c.onnx"),
        ("", "other", f"onnx/other/{network().fingerprint[:16]}.onnx"),
    ],
)
def test_our_own_networks_get_a_family_and_a_path(tmp_path: Path, name: str, family: str, model_path: str) -> None:
    sample, graph = _named(name)
    nnlqp.write(tmp_path / "out", [sample], lambda _: graph)  # type: ignore[list-item]
    from costmodel.corpora.nnlqp import read

    row = next(read(tmp_path / "out"))
    assert row.family == family
    assert row.model == tmp_path / "out" / model_path
    assert row.model.is_file()


def test_platforms_of_our_own_are_numbered_and_named(tmp_path: Path) -> None:
    samples = [
        measured(device="mine", runtime="onnxruntime-1.32.0", batch=1), measured(device="mine", precision="int8"),
        measured(device="mine", runtime="onnxruntime-1.32.0", batch=2), measured(runtime="tensorrt-7.1"),
    ]  # fmt: skip
    nnlqp.write(tmp_path / "out", samples, lambda _: network())
    lines = (tmp_path / "out/gt.txt").read_text().splitlines()
    assert [line.split()[5] for line in lines] == ["1000", "1001", "1000", "10"]
    assert (tmp_path / "out/platforms.txt").read_text() == (
        "1000 mine|fp32|onnxruntime-1.32.0\n1001 mine|int8|tensorrt-8.6.1\n"
    )
    read = [s for s, _ in nnlqp.read(tmp_path / "out", lower, Counter())]
    assert [s.platform_key for s in read] == [s.platform_key for s in samples]


def test_two_networks_of_one_name_have_two_files(tmp_path: Path) -> None:
    graphs = {network(w).fingerprint: network(w) for w in (4, 5)}
    get: Callable[[str], Graph] = graphs.__getitem__
    nnlqp.write(tmp_path / "out", [measured(g, name="same") for g in graphs.values()], get)
    assert len(list((tmp_path / "out").rglob("*.onnx"))) == 2


def test_an_existing_folder_is_not_written_over(dataset: Path) -> None:
    with pytest.raises(DataError, match="give a new folder"):
        nnlqp.write(dataset / "multi_platform", [measured()], lambda _: network())
