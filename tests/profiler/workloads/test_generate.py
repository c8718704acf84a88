"""Every family: deterministic, distinct, valid ONNX that runs, weightless, within its size."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import frontends
from costmodel.analysis import analyze
from costmodel.errors import InputError
from profiler.weights import fill_weights
from profiler.workloads import FAMILIES, generate, operator, parse_name, transformer
from profiler.workloads.net import INLINE

ALL = (*FAMILIES, "transformer", "operator")


def outline(model: onnx.ModelProto) -> str:
    """A digest of operators, attributes and weight shapes, whatever the protobuf library."""
    lines = [str([d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]) for i in model.graph.input]
    lines += [f"{n.op_type} {sorted((a.name, list(a.ints), a.i, a.s) for a in n.attribute)}" for n in model.graph.node]
    lines += [f"{t.data_type} {list(t.dims)}" for t in model.graph.initializer]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


# A network's name, such as gen/resnet/17, stands for it in measured data: a change here orphans those measurements.
OUTLINES = {
    "alexnet": "2a74d226ff1e",
    "efficientnet": "b40fe0a6bf34",
    "googlenet": "0fdeb8b7e015",
    "mnasnet": "dbc25670e83e",
    "mobilenetv2": "149891d63a61",
    "mobilenetv3": "01d001760d92",
    "nasbench201": "19f7fa67f301",
    "resnet": "d6654d6083db",
    "squeezenet": "92116d32770a",
    "vgg": "bc23bd5c3c81",
    "transformer": "6d1de34ad85b",
    "operator": "6a35bb1a9819",
}


@pytest.mark.parametrize("family", ALL)
def test_a_seed_always_means_the_same_network(family: str) -> None:
    assert generate(family, 3).SerializeToString() == generate(family, 3).SerializeToString()
    assert outline(generate(family, 3)) == OUTLINES[family]


@pytest.mark.parametrize("family", ALL)
def test_seeds_give_distinct_networks(family: str) -> None:
    prints = {frontends.load(generate(family, seed), batch=1).fingerprint for seed in range(10)}
    assert len(prints) == 10


@pytest.mark.parametrize("family", ALL)
def test_models_are_valid_and_run(family: str) -> None:
    model = generate(family, 1)
    declared = [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim][1:]
    fill_weights(model, None, seed=0)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {i.name: rng.standard_normal((2, *i.shape[1:]), dtype=np.float32) for i in session.get_inputs()}
    (output,) = session.run(None, feed)
    assert output.shape == (2, *declared)
    assert np.isfinite(output).all()
    assert 1e-6 < output.std() < 1e6


@pytest.mark.parametrize("family", ALL)
def test_large_weights_are_placeholders_and_small_ones_real(family: str) -> None:
    for tensor in generate(family, 0).graph.initializer:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        assert external == (math.prod(tensor.dims) > INLINE)
        assert external or tensor.raw_data


@pytest.mark.parametrize("family", ALL)
def test_batch_is_the_one_symbol(family: str) -> None:
    model = generate(family, 0)
    one, four = (analyze(frontends.load(model, batch=n)) for n in (1, 4))
    assert four.flops == 4 * one.flops
    assert four.params == one.params
    assert model.graph.input[0].name == "input"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("family", [f for f in ALL if f not in ("nasbench201", "operator")])
def test_sizes_stay_in_range(family: str) -> None:
    for seed in range(20, 25):
        cost = analyze(frontends.load(generate(family, seed), batch=1))
        assert 30e6 <= cost.flops < 6.6e9  # the generator counts convolutions and products only
        assert cost.params <= 25_000_000
        assert cost.coverage == 1


def test_names_lead_back_to_family_and_seed() -> None:
    assert parse_name("gen/resnet/17") == ("resnet", 17)
    assert parse_name(generate("vgg", 4).graph.name) == ("vgg", 4)
    assert transformer(2).SerializeToString() == generate("transformer", 2).SerializeToString()
    assert operator(2).SerializeToString() == generate("operator", 2).SerializeToString()


@pytest.mark.parametrize("name", ["resnet/17", "gen/resnet", "gen/resnet/x", "gen/resnet/-1", "gen/a/b/1", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"write 'gen/<family>/<seed>'"):
        parse_name(name)


def test_unknown_families_and_negative_seeds_are_refused() -> None:
    with pytest.raises(InputError, match=r"no family 'resnt'; use 'resnet', or one of alexnet"):
        generate("resnt", 0)
    with pytest.raises(InputError, match="count from 0"):
        generate("vgg", -1)
