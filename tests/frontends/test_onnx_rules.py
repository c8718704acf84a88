"""The ONNX package's own operator tests as a yardstick of every shape rule."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
from onnx import TensorProto

from costmodel.errors import InputError, LedgCostError
from frontends import load
from frontends.onnx_rules import axes_of, axis_of, broadcast, registry
from frontends.onnx_values import DTYPES

# Their result's size depends on the data, so the lowering takes the largest one.
UPPER_BOUNDS = ("test_compress", "test_nonmaxsuppression", "test_nonzero", "test_unique", "test_range_")
# Their axes, sizes or trip counts are run-time inputs, or their inputs are sequences.
DYNAMIC = ("_expanded", "test_identity_", "test_loop", "test_optional", "test_sequence_", "test_split_to_sequence",
           "test_scan_sum", "test_string_split")  # fmt: skip


def test_shapes_and_types_agree_with_the_onnx_operator_tests() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = [case for case in collect_testcases(None) if case.model is not None]
    agreed, problems = 0, []
    for case in cases:
        try:
            graph = load(case.model)
        except LedgCostError as error:
            if not any(part in case.name for part in DYNAMIC):
                problems.append((case.name, str(error)))
            continue
        results = case.data_sets[0][1] if case.data_sets else []
        if len(results) != len(graph.outputs) or case.name.startswith(UPPER_BOUNDS):
            continue
        if any(isinstance(r, list) for r in results):
            continue
        expected = [tuple(r.dims) if isinstance(r, TensorProto) else np.shape(r) for r in results]
        found = [graph.tensors[t].shape for t in graph.outputs]
        declared = [DTYPES.get(o.type.tensor_type.elem_type) for o in case.model.graph.output]
        types = [graph.tensors[t].dtype for t in graph.outputs]
        if expected != found or any(d is not None and d != t for d, t in zip(declared, types, strict=True)):
            problems.append((case.name, f"{found} {types}, not {expected} {declared}"))
        else:
            agreed += 1
    assert problems == []
    assert agreed > 0.9 * len(cases)


def test_common_operators_have_rules() -> None:
    from onnx import defs

    newest = Counter(schema.name for schema in defs.get_all_schemas() if not schema.domain)
    ruled = {op for domain, op in registry() if not domain}
    without = set(newest) - ruled - {"If", "Loop", "Scan"}
    assert without <= {
        "CausalConvWithState", "ImageDecoder", "LinearAttention", "RegexFullMatch", "SequenceMap", "StringConcat",
        "StringNormalizer", "StringSplit", "TfIdfVectorizer", "FlexAttention",
    }  # fmt: skip


def test_axes_and_broadcasts() -> None:
    assert axis_of(-1, 3) == 2
    assert axes_of((-1, 0), 4) == (0, 3)
    assert broadcast((4, 1, 3), (5, 1), ()) == (4, 5, 3)
    assert broadcast((0, 1), (1, 3)) == (0, 3)
    for bad in (lambda: axis_of(3, 3), lambda: broadcast((2,), (3,))):
        with pytest.raises(InputError):
            bad()
