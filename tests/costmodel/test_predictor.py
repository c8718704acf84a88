"""The released bundle: onnxruntime against torch, provenance, ordering, the empty graph."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from costmodel.bundle import RELEASED, WEIGHTS, Bundle
from costmodel.errors import CorruptBundleError
from costmodel.familiarity import FILE, Familiar
from costmodel.features import (
    PLATFORM_FEATURES,
    extract,
    numeric_channel,
    platform_channel,
    platform_rates,
    roofline_times,
    statistics,
)
from costmodel.ir import DType, Graph, GraphBuilder
from costmodel.platforms import resolve
from costmodel.predictor import LeDGFormerModel, load
from tests.costmodel.test_features import small_net

PLATFORMS = [resolve("t4", "int8"), resolve("v100", "fp32", "pytorch-eager-2.1"), resolve("raspi4", "fp32", "unknown")]
RESNET = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"


def test_onnxruntime_equals_torch() -> None:
    torch = pytest.importorskip("torch", reason="the network is defined in torch; install the dev extra")
    from safetensors.torch import load_file

    from costmodel.model import Batch, LeDGFormer, ModelConfig

    model = LeDGFormerModel()
    model.bundle.calibration["roofline_share"] = dict.fromkeys(("new_platform", "new_runtime"), 0.0)
    model.bundle.config["training"]["corrected"] = {}
    network = LeDGFormer(ModelConfig(**model.bundle.config["model"])).eval()
    network.load_state_dict(load_file(RELEASED / WEIGHTS))
    graph = small_net(4)
    encoded = model.encode(graph)
    features = encoded.prepared.features
    n, window = len(features), network.config.window
    padded = -(-n // window) * window
    relation, target = np.divmod(features.seg, n)
    text, numeric = (
        np.zeros((padded, 384), np.float32),
        np.zeros((padded, numeric_channel(features.columns).shape[1]), np.float32),
    )
    text[:n], numeric[:n] = model.language.encode(features.sentences), numeric_channel(features.columns)
    batch = Batch(*(torch.from_numpy(a) for a in (
        text, numeric, np.repeat([0, 1], [n, padded - n]), features.src, relation * padded + target,
        statistics(features.columns, features.batch)[None],
    )))  # fmt: skip
    with torch.no_grad():
        nodes, vector = network.encode(batch)
        for platform, answer in zip(PLATFORMS, model.answer(encoded, PLATFORMS), strict=True):
            times = roofline_times(features.columns, platform_rates(platform))
            vectors = network.embed_platform(*(torch.from_numpy(a[None]) for a in model.reading_of(platform)))
            log_latency, _ = network.head(
                nodes,
                vector,
                batch.stats,
                vectors,
                torch.from_numpy(times),
                torch.arange(n),
                torch.zeros(n, dtype=torch.int64),
            )
            expected = max(float(log_latency.exp()), answer.bound_ms)
            assert answer.latency_ms == pytest.approx(expected, rel=1e-4)


def test_one_encoding_answers_as_many_do() -> None:
    model, graph = load(), small_net()
    together = model.estimate_many(graph, PLATFORMS)
    for platform, answer in zip(PLATFORMS, together, strict=True):
        assert model.estimate(graph, platform).latency_ms == pytest.approx(answer.latency_ms, rel=1e-5)


def test_node_order_and_names_do_not_matter_to_the_platform() -> None:
    answers = load().estimate_many(small_net(), [resolve("t4"), resolve("Tesla T4")])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("target", ["t4", "l4", "a100", "h100", "rtx4090", "rtx5090"])
def test_precisions_of_a_compiler_are_in_order(target: str) -> None:
    answers = load().estimate_many(wide_net(), [resolve(target, p, "tensorrt") for p in ("fp32", "fp16", "int8")])
    fp32, fp16, int8 = (a.latency_ms for a in answers)
    assert fp32 > fp16 > int8


def wide_net(batch: int = 1) -> Graph:
    """Ten 3×3 convolutions of 256 channels on 28×28."""
    b = GraphBuilder("wide")
    x = b.input((batch, 256, 28, 28))
    conv = {"kernel_shape": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1}
    for _ in range(10):
        x = b.node("Conv", [x, b.param((256, 256, 3, 3)), b.param((256,))], (batch, 256, 28, 28), **conv)
        x = b.node("Relu", [x], (batch, 256, 28, 28))
    return b.build([x])


def test_latency_grows_with_batch_and_stays_over_the_bound() -> None:
    for platform in (resolve("t4", "fp16"), resolve("rtx3090", "fp16", "pytorch-eager-2.4"), resolve("i9_10940x")):
        answers = [load().estimate(wide_net(batch), platform) for batch in (1, 8, 64)]
        latencies = [a.latency_ms for a in answers]
        assert latencies == sorted(latencies)
        assert latencies[-1] > 8 * latencies[0]
        assert all(a.bound_ms <= a.interval_ms[0] <= a.latency_ms <= a.interval_ms[1] for a in answers)


def test_a_faster_card_is_faster() -> None:
    slow, fast = load().estimate_many(wide_net(32), [resolve("t4", "fp16"), resolve("h100", "fp16")])
    assert slow.latency_ms > 2 * fast.latency_ms


def test_operators_outside_the_training_data_are_told() -> None:
    b = GraphBuilder()
    x = b.input((1, 8, 32), DType.FLOAT32)
    y = b.node("GridSample", [x, b.input((1, 8, 2))], (1, 8, 32))
    answer = load().estimate(b.build([y]), resolve("t4"))
    assert any("not in the training data" in w for w in answer.warnings)


def test_a_graph_without_nodes_takes_no_time() -> None:
    b = GraphBuilder()
    answer = load().estimate(b.build([b.input((1, 4))]), resolve("t4"))
    assert answer.latency_ms == answer.bound_ms
    assert answer.operators == ()


def test_a_changed_file_of_the_bundle_is_refused(tmp_path: Path) -> None:
    shutil.copytree(RELEASED, tmp_path / "b")
    with (tmp_path / "b" / "encode.onnx").open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(CorruptBundleError, match=r"encode\.onnx.*checksum"):
        LeDGFormerModel(tmp_path / "b").estimate(small_net(), resolve("t4"))


def test_the_bundle_is_small_and_names_its_training() -> None:
    files = [p for p in RELEASED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 20 * 2**20
    assert not [p for p in files if p.suffix in (".pkl", ".pt", ".bin")]
    training = Bundle().config["training"]
    assert training["rows"] > 10_000
    assert len(training["platforms"]) >= 20
    for word in ("seed", "steps", "validation", "hold_out"):
        assert word in training


def test_networks_unlike_training_are_told_where_that_was_measured(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(RELEASED, folder)
    rule = Familiar.from_bytes((folder / FILE).read_bytes())
    raw = replace(rule, limit=-1.0).to_bytes()  # whatever comes is far
    (folder / FILE).write_bytes(raw)
    config = json.loads((folder / "config.json").read_text())
    config["sha256"][FILE] = hashlib.sha256(raw).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    calibration = json.loads((folder / "calibration.json").read_text())
    found = {}
    for width in (None, 1.5):
        calibration["half_width"]["new_family"] = width
        (folder / "calibration.json").write_text(json.dumps(calibration))
        found[width] = LeDGFormerModel(folder).estimate(small_net(4), resolve("t4", "fp32", "paddle-trt"))
    assert not any("out of distribution" in w for w in found[None].warnings)
    assert any("out of distribution" in w for w in found[1.5].warnings)
    low, high = found[1.5].interval_ms
    assert high / low > found[None].interval_ms[1] / found[None].interval_ms[0]
    assert high == pytest.approx(found[1.5].latency_ms * np.exp(1.5))


def test_kinds_that_a_platform_was_not_measured_with_have_the_wider_interval() -> None:
    model = LeDGFormerModel(Bundle())
    platform = resolve("t4", "fp32", "paddle-trt")
    own = model.bundle.calibration["by_platform"]["t4|fp32|paddle-trt"]
    model.bundle.calibration["half_width"] |= {"new_kind": 0.9, "new_family": None}
    found = {}
    for kind in ("own", "other"):
        model = LeDGFormerModel(model.bundle)
        (form,) = model.forms([model.encode(small_net(4))], platform)
        (like,) = model._familiar.nearest(form.graph, form.stats)[1]
        own.clear()
        own[str(like) if kind == "own" else "something else"] = 0.2
        found[kind] = model.estimate(small_net(4), platform)
    for kind, width in (("own", 0.2), ("other", 0.9)):
        assert found[kind].interval_ms[1] == pytest.approx(found[kind].latency_ms * np.exp(width))
        assert any("measured with other kinds" in w for w in found[kind].warnings) == (kind == "other")


def test_the_roofline_has_the_say_that_calibration_gives_it(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(RELEASED, folder)
    calibration = json.loads((folder / "calibration.json").read_text())
    new, known = resolve("b200", "fp16", "tensorrt"), resolve("t4", "fp32", "paddle-trt")
    graph = wide_net(8)
    times = roofline_times(extract(graph).columns, platform_rates(new))
    found = {}
    for share in (0.0, 0.5, 1.0):
        calibration["roofline_share"] = {"new_platform": share, "new_runtime": share}
        (folder / "calibration.json").write_text(json.dumps(calibration))
        found[share] = LeDGFormerModel(folder).estimate_many(graph, [new, known])
    assert found[1.0][0].latency_ms == pytest.approx(np.exp(times[:, -1]).sum(), rel=1e-4)
    middle = np.sqrt(found[0.0][0].latency_ms * found[1.0][0].latency_ms)
    assert found[0.5][0].latency_ms == pytest.approx(middle, rel=1e-4)
    assert found[0.0][1].latency_ms == found[1.0][1].latency_ms


def test_a_new_device_has_the_interval_of_its_kind(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(RELEASED, folder)
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration["half_width"] |= {
        "new_platform": 0.5,
        "new_runtime": None,
        "new_gpu": 0.8,
        "new_cpu": 0.9,
        "new_mobile": 0.4,
    }
    (folder / "calibration.json").write_text(json.dumps(calibration))
    graph, platforms = wide_net(8), [resolve(d, "fp32", "onnxruntime") for d in ("b200", "raspi5", "platinum_8380")]
    for found, width in zip(LeDGFormerModel(folder).estimate_many(graph, platforms), (0.8, 0.5, 0.9), strict=True):
        assert found.provenance == "zero-shot from the spec sheet"
        assert np.log(found.interval_ms[1] / found.latency_ms) == pytest.approx(width)


def test_trees_correct_what_the_network_answers_for_measured_platforms() -> None:
    model, plain = LeDGFormerModel(), LeDGFormerModel()
    plain.bundle.config["training"]["corrected"] = {}
    known, any_version = (resolve("rtx3090", "fp16", r) for r in ("pytorch-eager-2.4.0", "pytorch-eager"))
    faster = replace(known, device=replace(known.device, bandwidth_gbs=2 * known.device.bandwidth_gbs))
    platforms = [known, any_version, resolve("b200", "fp16", "tensorrt"), faster]
    encoded = model.encode_many([wide_net(2), wide_net(16)])
    after, before = (np.log(m.latencies(encoded, platforms)) for m in (model, plain))
    whole = [model._correction.whole(e.prepared.features) for e in encoded]
    rates, channel = (np.stack([read(known)] * 2) for read in (platform_rates, platform_channel))
    times = [roofline_times(e.prepared.features.columns, platform_rates(known))[:, -1] for e in encoded]
    bound = np.log([np.exp(t).sum() for t in times])
    left = model._correction(whole, rates, channel, before[:, 0], bound)
    assert np.abs(left).max() > 1e-3
    np.testing.assert_allclose(after[:, 0] - before[:, 0], left, atol=1e-5)
    np.testing.assert_array_equal(after[:, 1], after[:, 0])
    np.testing.assert_array_equal(after[:, 2:], before[:, 2:])
    answer = model.answer(encoded[0], [known])[0]
    assert answer.latency_ms == pytest.approx(np.exp(after[0, 0]), rel=1e-6)
    assert sum(node.latency_ms for node in answer.operators) == pytest.approx(answer.latency_ms)


def test_a_measured_platform_is_recognised_by_its_sheet() -> None:
    model = load()
    own = resolve("t4", "fp32", "paddle-trt")
    device = replace(own.device, bandwidth_gbs=own.device.bandwidth_gbs / 2)
    other = replace(own, device=device)
    shown = [model.reading_of(p)[1][PLATFORM_FEATURES:] for p in (own, other)]
    assert [part.sum() for part in shown] == [1, 0]
    exact, any_version = (resolve("rtx3090", "fp16", r) for r in ("pytorch-eager-2.4.0", "pytorch-eager"))
    assert model.reading_of(exact)[1][PLATFORM_FEATURES:].sum() == 1
    assert model.reading_of(any_version)[1][PLATFORM_FEATURES:].sum() == 1
    assert model.reading_of(resolve("rtx3090", "fp16", "pytorch-eager-1.9"))[1][PLATFORM_FEATURES:].sum() == 0
