"""Operator classes and the numbers beside them: what a device tends to be good or bad at."""

from __future__ import annotations

import numpy as np

from costmodel.features import COLUMNS, GraphFeatures
from costmodel.ir import Graph, Node
from costmodel.opwords import operator_class

CLASSES = ("convolution", "convolution 1x1", "depthwise", "matmul", "pointwise", "normalisation", "pooling", "movement")
_CLASS = {name: i for i, name in enumerate(CLASSES)}
_AT = {name: i for i, name in enumerate(COLUMNS)}
_PRODUCTS = 4  # the first classes, whose arithmetic is products
_OF_WORD = {
    "Mix": "matmul", "Recur": "matmul", "Signal": "matmul", "Norm": "normalisation", "Pool": "pooling",
    "Reduce": "pooling", "Move": "movement", "View": "movement", "Make": "movement", "Select": "movement",
}  # fmt: skip

_TYPICAL = (
    # column, centre and spread of its ln over common networks
    ("channels_in", 4.5, 2.0), ("channels_out", 4.5, 2.0), ("parallel", 11.0, 3.0), ("flops", 15.0, 4.0),
    ("weights", 8.0, 4.0),
)  # fmt: skip
_NUMBERS = len(_TYPICAL) + 3
_TILES = (8, 16)  # channels that vector and matrix units take at a time
TRAITS = len(CLASSES) + 2 * _NUMBERS + 2 * len(_TILES) + 1

EXPECTED = np.zeros(TRAITS)
"""(TRAITS,) what a trait adds to ln of a node's time where nothing is measured: depthwise convolutions run below their
roofline, and a channel that fills no whole tile costs nearly as much as one that does."""
EXPECTED[_CLASS["depthwise"]] = 0.7
EXPECTED[-3:-1] = 0.6

SPREAD = np.ones(TRAITS)
"""(TRAITS,) how far devices differ in a trait, relative to classes."""
SPREAD[len(CLASSES) : len(CLASSES) + 2 * _NUMBERS] = 0.5


def class_of(node: Node) -> str:
    """The class of a node; grouped convolutions count as depthwise, what nothing else fits as pointwise."""
    word = operator_class(node.op)
    if word == "Mix" and "Conv" in node.op:
        group, kernel = node.attrs.get("group", 1), node.attrs.get("kernel_shape")
        if isinstance(group, int) and group > 1:
            return "depthwise"
        single = isinstance(kernel, tuple) and all(k == 1 for k in kernel)
        return "convolution 1x1" if single else "convolution"
    return _OF_WORD.get(word, "pointwise")


def classes_of(graph: Graph) -> np.ndarray:
    """(n,) index into `CLASSES` of each node."""
    return np.array([_CLASS[class_of(node)] for node in graph.nodes], np.int64)


def traits(graph: Graph, features: GraphFeatures, klass: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """(n, TRAITS) of order one: the class of each node one-hot; then channels, output size, work, weights, kernel,
    stride and ln of compute over memory time (`intensity`), once for products and once for the rest; of products also
    ln of channels in and out rounded up to tiles of 8 and of 16 over what they are, and whether they read an image."""
    columns = [
        (np.log1p(features.columns[:, _AT[name]].astype(np.float64)) - centre) / spread
        for name, centre, spread in _TYPICAL
    ]
    kernel = np.log([_first(node, "kernel_shape") for node in graph.nodes])
    stride = np.array([_first(node, "strides") > 1 for node in graph.nodes], np.float64)
    numbers = np.clip(np.stack([*columns, kernel, stride, intensity / 3], 1), -3, 3)
    product = (klass < _PRODUCTS)[:, None]
    return np.concatenate(
        [np.eye(len(CLASSES))[klass], numbers * product, numbers * ~product, _tiles(features) * product], 1
    )


def _tiles(features: GraphFeatures) -> np.ndarray:
    channels = np.maximum(features.columns[:, [_AT["channels_in"], _AT["channels_out"]]].astype(np.float64), 1)
    waste = [np.log(np.ceil(channels / tile) * tile / channels) for tile in _TILES]
    return np.concatenate([*waste, channels[:, :1] <= 3], 1)


def _first(node: Node, attribute: str) -> float:
    value = node.attrs.get(attribute)
    return float(value[0]) if isinstance(value, tuple) and value and not isinstance(value[0], str) else 1.0
