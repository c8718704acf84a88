"""Compares the torch frontend with the ONNX export of the same networks, and prints and writes what it finds.

    python tools/check_torch.py [NAME…] [--json FILE]

Weightless configurations of transformers models and networks in the manner of torchvision are lowered both ways. FLOPs
must agree within 1 % and estimates within 2 %; the exit status tells. How graphs are compared: tools/agreement.py.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import frontends
from costmodel.analysis import analyze
from costmodel.ir import Graph
from frontends import torch_export
from tools import agreement

FLOPS_TOLERANCE, ESTIMATE_TOLERANCE = 0.01, 0.02

Case = tuple[nn.Module, dict[str, torch.Tensor]]
CASES: dict[str, Callable[[], Case]] = {}


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    """Registers a network under the function's name."""
    CASES[function.__name__] = function
    return function


def image(size: int = 224, batch: int = 1) -> torch.Tensor:
    """A random picture (batch, 3, size, size)."""
    return torch.randn(batch, 3, size, size)


def tokens(length: int = 64, batch: int = 1) -> torch.Tensor:
    """Random token ids (batch, length)."""
    return torch.randint(0, 100, (batch, length))


def conv_norm(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size, and its batch normalisation."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outside)]


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))"""

    def __init__(self, body: list[nn.Module], shortcut: nn.Module | None = None, last: bool = True) -> None:
        super().__init__()
        self.body, self.shortcut, self.last = nn.Sequential(*body), shortcut or nn.Identity(), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x) + self.shortcut(x)
        return torch.relu(y) if self.last else y


def basic_block(inside: int, width: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions."""
    body = [*conv_norm(inside, width, 3, stride), nn.ReLU(inplace=True), *conv_norm(width, width, 3)]
    same = stride == 1 and inside == width
    return Residual(body, None if same else nn.Sequential(*conv_norm(inside, width, 1, stride)))


def bottleneck(inside: int, width: int, stride: int) -> nn.Module:
    """1x1, 3x3, 1x1 with four times the width."""
    outside = 4 * width
    body = [*conv_norm(inside, width, 1), nn.ReLU(inplace=True), *conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True), *conv_norm(width, outside, 1)]  # fmt: skip
    same = stride == 1 and inside == outside
    return Residual(body, None if same else nn.Sequential(*conv_norm(inside, outside, 1, stride)))


def resnet(block: Callable[[int, int, int], nn.Module], growth: int, depths: tuple[int, ...]) -> nn.Module:
    """ResNet (He et al. 2016)."""
    layers: list[nn.Module] = [*conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for i in range(depth):
            layers.append(block(inside, width, 2 if i == 0 and stage else 1))
            inside = width * growth
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 1000))


@case
def resnet18() -> Case:
    """ResNet-18."""
    return resnet(basic_block, 1, (2, 2, 2, 2)), {"input": image()}


@case
def resnet50() -> Case:
    """ResNet-50."""
    return resnet(bottleneck, 4, (3, 4, 6, 3)), {"input": image()}


@case
def mobilenet_v2() -> Case:
    """MobileNetV2 (Sandler et al. 2018)."""
    layers: list[nn.Module] = [*conv_norm(3, 32, 3, 2), nn.ReLU6(inplace=True)]
    inside = 32
    for expansion, outside, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(count):
            stride, wide = first if i == 0 else 1, inside * expansion
            body: list[nn.Module] = [*conv_norm(inside, wide, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
            body += [*conv_norm(wide, wide, 3, stride, wide), nn.ReLU6(inplace=True), *conv_norm(wide, outside, 1)]
            same = stride == 1 and inside == outside
            layers.append(Residual(body, last=False) if same else nn.Sequential(*body))
            inside = outside
    layers += [*conv_norm(320, 1280, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, 1000)), {"input": image()}


@case
def vgg16() -> Case:
    """VGG-16 (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    inside = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU(inplace=True)]
            inside = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)), {"input": image()}


class Joined(nn.Module):
    """Concatenates what several bodies make of one input, after it or in its place."""

    def __init__(self, bodies: list[nn.Module], keep: bool) -> None:
        super().__init__()
        self.bodies, self.keep = nn.ModuleList(bodies), keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [body(x) for body in self.bodies]
        return torch.cat([x, *made] if self.keep else made, 1)


@case
def densenet121() -> Case:
    """DenseNet-121 (Huang et al. 2017)."""
    layers: list[nn.Module] = [*conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for stage, count in enumerate((6, 12, 24, 16)):
        for _ in range(count):
            body = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), *conv_norm(width, 128, 1),
                                 nn.ReLU(inplace=True), nn.Conv2d(128, 32, 3, padding=1, bias=False))  # fmt: skip
            layers.append(Joined([body], keep=True))
            width += 32
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if stage < 3:
            layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)), {"input": image()}


@case
def squeezenet() -> Case:
    """SqueezeNet 1.1 (Iandola et al. 2016)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True)]
    inside = 64
    for i, (squeeze, wide) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    ):
        layers += [nn.Conv2d(inside, squeeze, 1), nn.ReLU(inplace=True)]
        layers.append(Joined([nn.Conv2d(squeeze, wide, 1), nn.Conv2d(squeeze, wide, 3, padding=1)], keep=False))
        layers.append(nn.ReLU(inplace=True))
        inside = 2 * wide
        if i in (1, 3):
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    head = [nn.Dropout(), nn.Conv2d(inside, 1000, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head), {"input": image()}


def transformer(architecture: str, inputs: dict[str, torch.Tensor], **settings: Any) -> Case:
    """A transformers model of this architecture with random weights; `settings` go into its configuration."""
    import transformers

    kind = getattr(transformers, architecture)
    config = kind.config_class(**settings)
    for key in ("use_cache",):
        if hasattr(config, key):
            setattr(config, key, False)
    return kind(config).eval(), inputs


@case
def bert() -> Case:
    """BERT of four layers."""
    ids = tokens(128)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return transformer("BertModel", inputs, num_hidden_layers=4)


@case
def gpt2() -> Case:
    """GPT-2 of four layers."""
    return transformer("GPT2LMHeadModel", {"input_ids": tokens()}, n_layer=4, vocab_size=8192)


@case
def opt() -> Case:
    """OPT of four layers."""
    return transformer("OPTForCausalLM", {"input_ids": tokens()}, num_hidden_layers=4, vocab_size=8192)


@case
def llama() -> Case:
    """LLaMA with grouped queries."""
    return transformer(
        "LlamaForCausalLM", {"input_ids": tokens()}, num_hidden_layers=4, hidden_size=512, intermediate_size=1376,
        num_attention_heads=8, num_key_value_heads=2, vocab_size=8192,
    )  # fmt: skip


@case
def t5_encoder() -> Case:
    """The encoder of T5-small."""
    return transformer("T5EncoderModel", {"input_ids": tokens()}, attn_implementation="eager")


@case
def vit() -> Case:
    """ViT-Base/16 of four layers."""
    return transformer("ViTForImageClassification", {"pixel_values": image()}, num_hidden_layers=4)


@case
def deit() -> Case:
    """DeiT-Base of four layers."""
    return transformer("DeiTForImageClassification", {"pixel_values": image()}, num_hidden_layers=4)


@case
def swin() -> Case:
    """Swin-T."""
    return transformer("SwinForImageClassification", {"pixel_values": image()}, attn_implementation="eager")


@case
def convnext() -> Case:
    """ConvNeXt-T."""
    return transformer("ConvNextForImageClassification", {"pixel_values": image()})


@case
def regnet() -> Case:
    """RegNet Y."""
    return transformer("RegNetForImageClassification", {"pixel_values": image()})


@case
def resnet_hf() -> Case:
    """ResNet-50 as transformers builds it."""
    return transformer("ResNetForImageClassification", {"pixel_values": image()})


@case
def mobilenet_v2_hf() -> Case:
    """MobileNetV2 as transformers builds it."""
    return transformer("MobileNetV2ForImageClassification", {"pixel_values": image()})


@case
def segformer() -> Case:
    """SegFormer-B0 with its decoder."""
    return transformer("SegformerForSemanticSegmentation", {"pixel_values": image(256)})


@case
def lstm_tagger() -> Case:
    """A bidirectional LSTM over embedded tokens."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1000, 128)
            self.cells = nn.LSTM(128, 128, 2, batch_first=True, bidirectional=True)
            self.head = nn.Linear(256, 20)

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return self.head(self.cells(self.table(input))[0])

    return Tagger(), {"input": tokens()}


def unlike_zero(module: nn.Module) -> None:
    """Vectors that start as zeros, which the ONNX exporter would leave out, get values as training gives them."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)


def both(name: str) -> tuple[Graph, Graph, float]:
    """The graph from torch, the one from ONNX, and the seconds that the first took."""
    module, inputs = CASES[name]()
    unlike_zero(module.eval())
    start = time.perf_counter()
    ours = torch_export.load(module, example_inputs=inputs)
    seconds = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(module, kwargs=inputs, dynamo=True, verbose=False)
    assert exported is not None
    return ours, frontends.load(exported.model_proto), seconds


def compare(name: str) -> dict[str, Any]:
    """One row of the table; differences are those of the torch graph from the ONNX one."""
    ours, theirs, seconds = both(name)
    a = analyze(ours)
    return {
        "gflops": round(a.flops / 1e9, 3), "million_params": round(a.params / 1e6, 2), "torch_nodes": len(ours),
        **agreement.compare(theirs, ours), "seconds": seconds,
    }  # fmt: skip


def main() -> int:
    """Prints the table; 1 if a network is out of tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--json", type=Path, help="write the table here")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rows: dict[str, dict[str, Any]] = {}
    good = 0
    titles = ("GFLOPs", "error", "params M", "nodes", "ONNX", "same", "est.", "s")
    print(f"{'network':18}" + "".join(t.rjust(w) for t, w in zip(titles, (10, 9, 10, 7, 6, 6, 9, 7), strict=True)))
    for name in options.names or CASES:
        row = rows[name] = compare(name)
        estimate = max(map(abs, row["estimate"].values()))
        good += abs(row["flops"]) <= FLOPS_TOLERANCE and estimate <= ESTIMATE_TOLERANCE
        print(
            f"{name:18}{row['gflops']:10.3f}{abs(row['flops']):9.3%}{row['million_params']:10.2f}"
            f"{row['torch_nodes']:7}{row['nodes']:6}{'yes' if row['identical'] else 'no':>6}{estimate:9.2%}"
            f"{row.pop('seconds'):7.1f}",
            flush=True,
        )
    limits = f"{FLOPS_TOLERANCE:.0%} of FLOPs and {ESTIMATE_TOLERANCE:.0%} of the estimate"
    print(f"{good} of {len(rows)} within {limits}")
    if options.json:
        table = {
            "command": " ".join(["python tools/check_torch.py", *options.names, "--json FILE"]),
            "versions": {"torch": torch.__version__.split("+")[0], "transformers": version("transformers")},
            "first": "ONNX export", "second": "torch.export",
            "flops_within_1_and_estimate_within_2_percent": good, **agreement.tally(rows.values()),
            "explanations": agreement.explained(rows.values()), "networks": rows,
        }  # fmt: skip
        options.json.write_text(agreement.dumped(table, 2) + "\n", encoding="utf-8")
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
