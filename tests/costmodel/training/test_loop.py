"""Training on a tiny made-up corpus: shards, splits, resuming, and the exported bundle against torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install the dev extra")

from costmodel.baselines.analytic import fit_line, line, roofline  # noqa: E402
from costmodel.errors import BundleVersionError, CorruptBundleError, DataError  # noqa: E402
from costmodel.features import PLATFORM_FEATURES, identities  # noqa: E402
from costmodel.ir import Graph, GraphBuilder  # noqa: E402
from costmodel.metrics import mape  # noqa: E402
from costmodel.model import ModelConfig  # noqa: E402
from costmodel.training.batches import Batches, Pool  # noqa: E402
from costmodel.training.calibration import (  # noqa: E402
    ROOFLINE_SHARES,
    UnseenReading,
    calibrate,
    half_widths,
    kin_of,
    mixed,
    roofline_shares,
    standing,
    unseen_answers,
)
from costmodel.training.corpus import (  # noqa: E402
    EXPORTED,
    FOLDED,
    Corpus,
    Row,
    lower,
    lower_named,
    marked,
    named_graph,
    read_corpus,
    write_shard,
)
from costmodel.training.export import conformal_quantile  # noqa: E402
from costmodel.training.folds import kinds  # noqa: E402
from costmodel.training.loop import TrainConfig, Trainer, divide, forward, known_platforms, predict_rows  # noqa: E402
from costmodel.training.run import Run  # noqa: E402
from costmodel.training.split import TEST_DEVICES, VALIDATION_DEVICES, split_of  # noqa: E402
from costmodel.training.tables import in_order  # noqa: E402

PLATFORMS = [
    ("t4", "fp16", "tensorrt"),
    ("2080ti", "fp32", "pytorch-eager"),
    ("titanxp", "fp32", "pytorch-eager"),
    ("v100", "fp32", "pytorch-eager"),
]
TINY = TrainConfig(
    model=ModelConfig(width=16, layers=2, heads=2, dropout=0.0, window=8, text_width=12, platform_width=8,
        platform_text_width=4, head_width=8,
    ),
    steps=120, nodes=120, pairs=2, evaluate_every=40, lr=1e-2,
)  # fmt: skip


def net(width: int, depth: int, batch: int = 1) -> Graph:
    b = GraphBuilder(f"net{width}x{depth}")
    x = b.input((batch, width))
    for _ in range(depth):
        y = b.node("Gemm", [x, b.param((width, width)), b.param((width,))], (batch, width), transA=0, transB=1)
        x = b.node("Add", [b.node("Relu", [y], (batch, width)), x], (batch, width))
    return b.build([x])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    cache = tmp_path_factory.mktemp("cache")
    graphs, rows = [], []
    for width in range(64, 1024, 24):
        depth = 1 + width % 5
        name = f"net/{width}"
        graphs.append(lower(name, net(width, depth)))
        for k, (device, precision, runtime) in enumerate(PLATFORMS):
            for batch in (1, 16):
                ms = (k + 1) * depth * (0.01 + 1e-8 * width**2 * batch)
                rows.append(Row(name, device, runtime, precision, batch, ms, "help/fbnet"))
    write_shard(cache / "tiny", graphs, rows, [])
    return read_corpus(cache, ["tiny"])


@pytest.fixture(scope="module")
def batches(corpus: Corpus) -> Batches:
    rng = np.random.default_rng(0)
    platforms = [" ".join(p) for p in corpus.platforms], rng.normal(size=(len(corpus.platforms), 12))
    return Batches(corpus, rng.normal(size=(len(corpus.sentences), 12)), platforms, window=8)


def quiet(_: str) -> None:
    pass


def test_shards_survive_the_disk(corpus: Corpus) -> None:
    assert len(corpus.names) == 40
    assert len(corpus.row_ms) == 40 * 8
    g = corpus.names.index("net/88")
    expected = lower("net/88", net(88, 1 + 88 % 5))
    span = slice(corpus.node_start[g], corpus.node_start[g + 1])
    np.testing.assert_array_equal(corpus.columns[span], expected.columns)
    assert [corpus.sentences[i] for i in corpus.sentence[span]] == expected.sentences
    assert corpus.fingerprints[g] == expected.fingerprint


@pytest.mark.parametrize(("device", "runtime", "mark"), [
    ("2080ti", "pytorch-eager", ""), ("pixel3", "unknown", FOLDED), ("gtx1660", "tensorrt-7.1", EXPORTED),
])  # fmt: skip
def test_cells_are_described_as_their_runtime_runs_them(device: str, runtime: str, mark: str) -> None:
    name = "nb201/|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
    graph = named_graph(marked(Row(name, device, runtime, "fp32", 1, 1.0, "x")))
    assert named_graph(name + mark).fingerprint == graph.fingerprint
    assert sum(node.op == "BatchNormalization" for node in graph.nodes) == {"": 51, FOLDED: 36, EXPORTED: 1}[mark]
    families = {lower_named(name + other).family for other in ("", FOLDED, EXPORTED)}
    assert len(families) == 1
    assert lower_named(name + mark).in_layers is (mark != EXPORTED)


def test_a_missing_shard_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ledg-cost train --data"):
        read_corpus(tmp_path, ["timm"])


def test_the_split_is_disjoint_by_fingerprint_and_by_device(corpus: Corpus) -> None:
    rows = divide(corpus, hold_out=True)
    fingerprint = np.array(corpus.fingerprints)[corpus.row_graph]
    train, val, test = (set(fingerprint[r]) for r in (rows.train, rows.val, rows.test))
    assert train
    assert not train & val
    assert not train & test
    assert not val & test
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    assert not set(device[rows.train]) & (TEST_DEVICES | VALIDATION_DEVICES)
    assert set(device[rows.test_device]) == {"v100"}
    assert set(device[rows.val_device]) == {"titanxp"}


def test_published_test_graphs_stay_test() -> None:
    fingerprint = "00000000" + "0" * 56
    assert split_of(fingerprint) == "train"
    assert split_of(fingerprint, test={fingerprint}) == "test"
    assert split_of("f" * 64, train={"f" * 64}) == "train"


def test_packing_is_independent_of_what_stands_beside(batches: Batches, corpus: Corpus) -> None:
    torch.manual_seed(0)
    trainer_network = Trainer(TINY, batches, Path(_scratch()), quiet).network.eval()
    for parameter in trainer_network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    rows = np.arange(24)
    y, p, r = predict_rows(trainer_network, batches, rows)
    assert sorted(r.tolist()) == rows.tolist()
    np.testing.assert_allclose(y, corpus.row_ms[r], rtol=1e-5)
    for i in (0, 7, 23):
        alone = predict_rows(trainer_network, batches, np.array([r[i]]))[1][0]
        assert alone == pytest.approx(p[i], rel=1e-4)


def _scratch() -> str:
    import tempfile

    return tempfile.mkdtemp()


def test_training_learns_and_a_cut_run_resumes_to_the_same_weights(batches: Batches, tmp_path: Path) -> None:
    whole = Trainer(TINY, batches, tmp_path / "whole", quiet)
    network = whole.run()
    first, last = whole.history[0]["score"], whole.history[-1]["score"]
    assert last < first

    class Cut(Exception):
        pass

    def cut(line: str) -> None:
        if line.startswith("validation step 80"):
            raise Cut

    interrupted = Trainer(TINY, batches, tmp_path / "cut", cut)
    with pytest.raises(Cut):
        interrupted.run()
    # The cut came between the evaluation and its checkpoint, so forty steps are repeated.
    said: list[str] = []
    resumed = Trainer(TINY, batches, tmp_path / "cut", said.append)
    again = resumed.run()
    assert said[0] == "resumed at step 40"
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, msg=key)


def test_the_step_is_chosen_by_all_validation_rows_together(batches: Batches, tmp_path: Path) -> None:
    trainer = Trainer(replace(TINY, steps=2, evaluate_every=1), batches, tmp_path, quiet)
    network = trainer.run()
    pooled = []
    for rows in (trainer.rows.val, trainer.rows.val_device):
        y, p, _ = predict_rows(network, batches, rows)
        pooled.append(mape(y, p))
    best = min(h["score"] for h in trainer.history)
    assert best == pytest.approx(pooled[0] + 0.3 * pooled[1], abs=0.01)


def test_another_configuration_does_not_resume(batches: Batches, tmp_path: Path) -> None:
    Trainer(replace(TINY, steps=3), batches, tmp_path, quiet).run()
    said: list[str] = []
    Trainer(replace(TINY, steps=3, seed=1), batches, tmp_path, said.append).run()
    assert "another configuration" in said[0]


def test_fit_line_recovers_its_own_coefficients_and_stays_non_negative() -> None:
    x = np.abs(np.random.default_rng(0).normal(size=(50, 3))) + 0.1
    np.testing.assert_allclose(fit_line(x, x @ [2.0, 0.5, 0.25]), [2.0, 0.5, 0.25])
    assert (fit_line(x, x @ [2.0, -0.1, 0.25]) >= 0).all()


def test_baselines_answer_every_row(corpus: Corpus) -> None:
    rows = divide(corpus, hold_out=True)
    for chosen in (rows.test, rows.test_device):
        for answer in (roofline(corpus, chosen), line(corpus, rows.train, chosen)):
            assert answer.shape == chosen.shape
            assert (answer > 0).all()


def test_exported_onnx_equals_torch(batches: Batches, tmp_path: Path) -> None:
    from costmodel.training.export import export_onnx

    onnxruntime = pytest.importorskip("onnxruntime")
    trainer = Trainer(TINY, batches, tmp_path, quiet)
    network = trainer.network.eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    items = batches.items(np.arange(64))
    export_onnx(network, batches.pack(items[:3]), tmp_path)
    encode = onnxruntime.InferenceSession(tmp_path / "encode.onnx")
    head = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    for chosen in (items[:1], items[4:9], items):
        step = batches.pack(chosen)
        b = step.batch
        feed = {"text": b.text, "numeric": b.numeric, "graph": b.graph, "src": b.src, "seg": b.seg, "stats": b.stats}
        nodes, graphs = encode.run(None, {k: v.numpy() for k, v in feed.items()})
        g = step.pair_graph.numpy()
        log_latency, _ = head.run(
            None,
            {
                "nodes": nodes, "graph": graphs[g], "stats": b.stats.numpy()[g], "text": step.platform_text.numpy(),
                "numeric": step.platform_numeric.numpy(), "times": step.times.numpy(), "node": step.node.numpy(),
                "pair": step.pair.numpy(),
            },
        )  # fmt: skip
        with torch.no_grad():
            expected = forward(network, step).numpy()
        np.testing.assert_allclose(np.exp(log_latency), np.exp(expected), rtol=1e-4)


def test_a_damaged_bundle_is_told_in_one_line(tmp_path: Path) -> None:
    from costmodel.bundle import Bundle

    with pytest.raises(CorruptBundleError, match="cannot be read"):
        Bundle(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(CorruptBundleError, match=r"config\.json"):
        Bundle(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(BundleVersionError, match="format 99"):
        Bundle(tmp_path)


def test_ladders_hold_compilers_to_the_order_of_precisions(batches: Batches, corpus: Corpus) -> None:
    from costmodel.training.run import ladders

    rungs = ladders({"v100"})
    names = {ladder[0].device.name for ladder in rungs}
    assert {"t4", "rtx4090"} <= names
    assert not names & {"v100", "p100-unknown", "raspi4"}
    assert {ladder[0].precision.value for ladder in rungs if len(ladder) > 1} == {"fp32"}
    rng = np.random.default_rng(0)
    platforms = len(corpus.platforms) + sum(map(len, rungs))
    text = [str(i) for i in range(platforms)], rng.normal(size=(platforms, 12))
    laddered = Batches(corpus, rng.normal(size=(len(corpus.sentences), 12)), text, window=8, ladders=rungs)
    step = laddered.pack(laddered.items(np.arange(40)), np.random.default_rng(1))
    assert len(step.target) == len(step.row) == 40
    assert len(step.pair_graph) > 40
    assert len(step.ordered) > 0
    precision = step.platform_numeric[step.ordered.flatten(), -6:].reshape(-1, 2, 6).argmax(-1)
    assert (precision[:, 0] < precision[:, 1]).all()  # fp32 < fp16 < int8 in the order of `Precision`
    assert (step.pair_graph[step.ordered[:, 0]] == step.pair_graph[step.ordered[:, 1]]).all()


def test_training_on_all_devices_needs_no_held_out_rows(batches: Batches, tmp_path: Path) -> None:
    trainer = Trainer(replace(TINY, steps=2, evaluate_every=1, hold_out=False), batches, tmp_path, quiet)
    trainer.run()
    assert len(trainer.rows.val_device) == len(trainer.rows.test_device) == 0
    assert not [key for key in trainer.history[-1] if key.startswith("val_device")]


def test_a_source_of_large_networks_takes_no_more_than_its_share(batches: Batches, corpus: Corpus) -> None:
    """A step cannot hold a part of a network, so a step now and then holds a whole one."""
    mean = float(np.diff(corpus.node_start).mean())
    pools = batches.pools(np.arange(len(corpus.row_ms)), {"help/fbnet": 0.5, "timm": 0.5}, round(3 * mean))
    assert set(pools) == {"help/fbnet"}
    assert pools["help/fbnet"].expected == pytest.approx(1.5, rel=0.02)
    rng = np.random.default_rng(0)
    sizes = [batches.draw(pools, 2, rng).batch.stats.shape[0] for _ in range(200)]
    assert set(sizes) == {1, 2}
    assert np.mean(sizes) == pytest.approx(pools["help/fbnet"].expected, abs=0.15)
    rare = {"help/fbnet": Pool(pools["help/fbnet"].items, 0.01)}
    assert {batches.draw(rare, 2, rng).batch.stats.shape[0] for _ in range(20)} == {1}  # no step is empty


def test_known_platforms_have_an_identity_that_training_hides_now_and_then(batches: Batches, corpus: Corpus) -> None:
    rows = divide(corpus, hold_out=True).train
    known = known_platforms(corpus, rows)
    assert known == ("t4|fp16|tensorrt", "2080ti|fp32|pytorch-eager")
    batches.know(known)
    try:
        items = batches.items(np.arange(160))
        plain = batches.pack(items).platform_numeric[:, PLATFORM_FEATURES:].numpy()
        own = np.array(["|".join(corpus.platforms[p]) for p in corpus.row_platform[np.concatenate(items)]])
        np.testing.assert_array_equal(plain, identities(own.tolist(), known))
        step = batches.pack(items, np.random.default_rng(0))
        shown = step.platform_numeric[:, PLATFORM_FEATURES:].numpy().any(1)
        assert 0.2 < shown[plain.any(1)].mean() < 0.8
        exact = batches.pack(items).platform_numeric.numpy()
        np.testing.assert_array_equal(step.platform_numeric.numpy()[shown], exact[shown])
        assert (step.platform_numeric.numpy()[~shown] != exact[~shown]).any()
    finally:
        batches.know(())


def test_the_roofline_speaks_for_platforms_that_training_lacks(batches: Batches, tmp_path: Path) -> None:
    run = Run(trainer := Trainer(replace(TINY, steps=2, evaluate_every=1), batches, tmp_path, quiet), trainer.run(),
              batches.corpus)  # fmt: skip
    assert standing(run, run.rows.train).tolist() == ["known", "known", "new_platform", "new_platform"]
    batches.named = frozenset(("tensorrt",))
    assert standing(run, run.rows.train).tolist()[2:] == ["new_runtime", "new_runtime"]
    elsewhere = {"new_runtime": {"half_width": 0.7, "roofline_share": 1.0}, "new_family": {"half_width": 0.3}}
    found = calibrate(run, elsewhere)
    assert found["half_width"]["new_family"] == 0.3
    assert found["roofline_share"]["new_platform"] in ROOFLINE_SHARES
    share = roofline_shares(run, found)
    assert share.tolist() == [0, 0, 1, 1]
    rows = np.arange(40)
    answers, plain, bound = in_order(run, rows, share=share), in_order(run, rows), roofline(run.corpus, rows)
    expected = np.where(share[run.corpus.row_platform[rows]] > 0, bound, plain)
    np.testing.assert_allclose(answers, expected)
    np.testing.assert_allclose(mixed(plain, bound, 0.5) ** 2, plain * bound)
    widths = half_widths(run, found, rows)
    assert (widths[share[run.corpus.row_platform[rows]] > 0] == 0.7).all()
    found["half_width"]["new_runtime"] = None
    any_kind = found["half_width"]["new_platform"]
    for kind, own, width in (("cpu", 9.0, any_kind), ("gpu", any_kind / 2, any_kind), ("gpu", 9.0, 9.0)):
        found["half_width"][f"new_{kind}"] = own
        widths = half_widths(run, found, rows)
        assert (widths[share[run.corpus.row_platform[rows]] > 0] == width).all()
    found["half_width"] |= {"new_kind": 0.4, "new_family": 0.0}
    t4 = run.corpus.row_platform[rows] == run.corpus.platforms.index(("t4", "fp16", "tensorrt"))
    (kind,) = set(kinds(run.corpus))
    for by_kind, width in (({kind: 0.1}, 0.1), ({"another": 0.1}, 0.4)):
        own = {**found, "by_platform": {"t4|fp16|tensorrt": by_kind}}
        assert set(half_widths(run, own, rows)[t4]) == {width}


def test_the_rows_of_one_network_are_one_sample_of_an_interval() -> None:
    y, p = np.exp(np.arange(100) / 100), np.ones(100)
    assert conformal_quantile(y, p) == pytest.approx(0.90)  # the 91st of 100
    assert conformal_quantile(y, p, np.arange(100)) == pytest.approx(0.90)
    assert conformal_quantile(y, p, np.arange(100) // 5) == pytest.approx(0.94)  # 19 of 20 networks
    assert conformal_quantile(y, p, np.arange(100) // 25) == pytest.approx(0.99)  # four networks hold no 90 %


def test_unmeasured_platforms_are_read_through_their_kin(
    batches: Batches, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(trainer := Trainer(replace(TINY, steps=2, evaluate_every=1), batches, tmp_path, quiet), trainer.run(),
              batches.corpus)  # fmt: skip
    for parameter in run.network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    t4, known, new = (PLATFORMS.index(p) for p in (PLATFORMS[0], PLATFORMS[1], PLATFORMS[2]))
    kin = kin_of(run, {"pytorch-eager"})
    assert kin[:, [t4, known]].max() == -1
    assert (kin[:, new] == known).all()
    assert kin_of(run, {"tensorrt"}).max() == -1
    rows, like = (np.flatnonzero(corpus.row_platform == p) for p in (new, known))
    assert (corpus.row_graph[rows] == corpus.row_graph[like]).all()
    through = UnseenReading("sheet", ("pytorch-eager",))
    plain, theirs = unseen_answers(run, rows, UnseenReading("sheet")), unseen_answers(run, like, through)
    scaled = unseen_answers(run, rows, through)
    assert (np.abs(scaled / plain - 1) > 0.01).any()
    rates = batches.rates.copy()
    rates[new] = rates[known]
    monkeypatch.setattr(batches, "rates", rates)
    for slower in (1, 2):
        rates[new, :4] = rates[known, :4] / slower
        rates[new, 4] = rates[known, 4] * slower
        plain = unseen_answers(run, rows, UnseenReading("sheet"))
        np.testing.assert_allclose(unseen_answers(run, rows, through), np.sqrt(plain * slower * theirs), rtol=1e-5)
