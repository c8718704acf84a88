"""The student encoder: a small transformer of our own, trained to give the teacher's embeddings for this language.

Training needs torch and a teacher (`costmodel.teacher`); what it writes is run by `costmodel.embedding` without either.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from costmodel.embedding import MAX_TOKENS, STUDENT, TOKENIZER, StudentRunner
from costmodel.language import (
    CONTRIB,
    FREQUENT,
    LEFTOVERS,
    all_onnx_operators,
    closed_language,
    platform_language,
    sample_nodes,
    sample_platforms,
)
from costmodel.opwords import operator_words

Vectors = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class StudentConfig:
    """Everything that changes the student; `nodes`, `paper` and `platforms` count the sampled training sentences."""

    vocabulary: int = 2400
    width: int = 128
    layers: int = 3
    heads: int = 4
    nodes: int = 26_000
    paper: int = 4_000
    platforms: int = 5_000
    held_out: int = 500
    batch: int = 128
    steps: int = 4500
    learning_rate: float = 2e-3
    seed: int = 0


@dataclass
class Language:
    """Sentences to train on, and groups of sentences to judge on that share none with them."""

    train: list[str]
    tests: dict[str, list[str]] = field(default_factory=dict)


def build_language(config: StudentConfig, extra: Iterable[str] = ()) -> Language:
    """Samples the language with a tenth of the operators left out.

    Test groups: `random` (operators known), `held-out operators`, `new words` (those of them with a word that no
    training operator has), `platforms`, `paper` (the template with bare numbers).
    """
    names = [*all_onnx_operators(), *CONTRIB.split(), *LEFTOVERS.split(), *torch_functions()]
    held = {operator_words(op) for op in names if _is_held_out(op)}
    kept = [op for op in dict.fromkeys(names) if operator_words(op) not in held]
    unseen = [op for op in dict.fromkeys(names) if operator_words(op) in held]
    words = {word for op in kept for word in operator_words(op).split()}
    strange = [op for op in unseen if not words.issuperset(operator_words(op).split())]
    seed, n = config.seed, config.held_out
    nodes = _distinct(sample_nodes(2 * (config.nodes + n), seed, kept))
    paper = _distinct(sample_nodes(2 * (config.paper + n), seed + 1, kept, "paper"), nodes)
    platforms = _distinct(sample_platforms(2 * (config.platforms + n), seed + 2))
    tests = {
        "random": nodes[:n],
        "held-out operators": _distinct(sample_nodes(20 * n, seed + 3, unseen, made_up=False))[:n],
        "new words": _distinct(sample_nodes(20 * n, seed + 4, strange, made_up=False))[:n],
        "platforms": platforms[:n],
        "paper": paper[:n],
    }
    train = nodes[n : n + config.nodes] + paper[n : n + config.paper] + platforms[n : n + config.platforms]
    known = [s for s in (*closed_language(), *extra) if _operator_part(s, held) is None]
    barred = {s for group in tests.values() for s in group}
    return Language([s for s in _distinct([*known, *platform_language(), *train]) if s not in barred], tests)


def torch_functions() -> list[str]:
    """Names of torch's functions and layers: the words that operators of other libraries are made of."""
    functions = {**vars(torch), **vars(torch.nn.functional)}
    names = {f"aten.{name}" for name, value in functions.items() if name.islower() and callable(value)}
    names |= {f"torch.{name}" for name in vars(torch.nn) if name[0].isupper()}
    return sorted(name for name in names if "._" not in name and name[-1] != "_")


def _is_held_out(op: str) -> bool:
    words = operator_words(op)
    return words not in map(operator_words, FREQUENT) and hashlib.sha256(words.encode()).digest()[0] < 26


def _operator_part(sentence: str, operators: Iterable[str]) -> str | None:
    rest = sentence.partition(" ")[2] + " "
    return next((words for words in operators if rest.startswith(f"{words} ")), None)


def _distinct(sentences: Iterable[str], besides: Iterable[str] = ()) -> list[str]:
    barred = set(besides)
    return [s for s in dict.fromkeys(sentences) if s not in barred]


# ── vocabulary ──────────────────────────────────────────────────────────────────────────────────────────────────────


def build_tokenizer(sentences: Sequence[str], vocabulary: int) -> Tokenizer:
    """A lower-case WordPiece vocabulary of this language; every digit is a token, so that numbers are read."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer = normalizers.BertNormalizer()  # lower case, no accents
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\d"), "isolated")]
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    spelled = [letters[i:] + letters[:i] for i in range(26)] * 4  # each letter, first and within a word
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, min_frequency=3, special_tokens=list(_SPECIAL),
        initial_alphabet=[*letters, *"0123456789.-+"], show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([*sentences, *spelled], trainer)
    ids = {token: tokenizer.token_to_id(token) for token in _SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


# ── network ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Layer(nn.Module):
    """Pre-norm transformer layer over unpadded sentences."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm_1(x)).reshape(batch, length, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, head_dim)
        scores = q @ k.transpose(2, 3) / math.sqrt(self.head_dim)
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Student(nn.Module):
    """Token ids (B, T), all of one length, to embeddings (B, out).

    Tokens are averaged twice: as they are, and after a wider hidden layer, since `width` directions cannot span the
    teacher's space (128 principal directions of the language hold 88 % of its variance, 256 hold 98 %).
    """

    def __init__(self, config: StudentConfig, vocabulary: int, out: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, config.width)
        self.positions = nn.Embedding(MAX_TOKENS, config.width)
        self.layers = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, out)
        self.widen = nn.Linear(config.width, 4 * config.width)
        self.rest = nn.Linear(4 * config.width, out, bias=False)
        nn.init.zeros_(self.rest.weight)
        nn.init.normal_(self.positions.weight, std=0.1)

    @torch.no_grad()
    def start_from(self, pieces: Tensor, targets: Tensor) -> None:
        """Starts as a bag of words in the teacher's space: `pieces` (vocabulary, out) are the teacher's embeddings of
        the tokens by themselves, kept in as many principal directions of `targets` (n, out) as the width allows."""
        mean = targets.mean(0)
        kept = min(self.tokens.embedding_dim, *targets.shape)
        directions = torch.pca_lowrank(targets - mean, q=kept, center=False)[2]  # (out, kept)
        spread = ((targets - mean) @ directions).std(0).mean()
        self.tokens.weight[:, :kept] = (pieces - mean) @ directions / spread
        self.head.weight[:, :kept] = directions * spread
        self.head.bias.copy_(mean)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))  # (B, T, width)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        vectors: Tensor = self.head(x.mean(1)) + self.rest(F.gelu(self.widen(x)).mean(1))
        return vectors


def train(
    student: Student, ids: Sequence[Sequence[int]], targets: Vectors, config: StudentConfig, progress: Progress | None
) -> None:
    """Fits the student in `config.steps` steps of a one-cycle cosine schedule.

    Loss: 1 − cosine, plus the squared error in units of the targets' variance. Batches hold sentences of one length.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    truth = torch.from_numpy(targets)
    variance = float(targets.var())
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.05, cycle_momentum=False
    )
    lengths = np.array([len(tokens) for tokens in ids])
    groups = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    epochs = (batch for _ in range(config.steps) for batch in _batches(groups, config.batch, rng))
    student.train()
    for step, batch in zip(range(1, config.steps + 1), epochs, strict=False):
        made, wanted = student(torch.tensor([ids[i] for i in batch])), truth[batch]
        loss = (1 - F.cosine_similarity(made, wanted)).mean() + F.mse_loss(made, wanted) / variance
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress and (step % 50 == 0 or step == config.steps):
            progress(f"student, loss {float(loss.detach()):.3f}, step", step, config.steps)
    student.eval()


def _batches(groups: Sequence[NDArray[np.int64]], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """One epoch in random order, each batch from one group."""
    batches = []
    for group in groups:
        mixed = rng.permutation(group)
        batches += [mixed[i : i + size] for i in range(0, len(mixed), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def export(student: Student, path: Path) -> None:
    """Writes the student as ONNX (`ids` int64 [B, T] → `embedding` float32 [B, out]), weights stored as float16."""
    student.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter needs onnxscript
        torch.onnx.export(
            student, (torch.ones(2, 7, dtype=torch.int64),), str(path), input_names=["ids"],
            output_names=["embedding"], opset_version=17, dynamo=False,
            dynamic_axes={"ids": {0: "batch", 1: "tokens"}, "embedding": {0: "batch"}},
        )  # fmt: skip
    model = onnx.load(path)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) > 64:
            name, half = weight.name, numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


# ── agreement ───────────────────────────────────────────────────────────────────────────────────────────────────────


def agreement(made: Vectors, wanted: Vectors, centre: Vectors) -> dict[str, float]:
    """How well embeddings [n, width] agree: cosine (mean, median, 5th percentile), the same after taking away the mean
    of the language (`centre`), the share whose nearest teacher embedding is their own, and relative distance."""

    def cosines(a: Vectors, b: Vectors) -> Vectors:
        return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1), np.float32)

    plain, centred = cosines(made, wanted), cosines(made - centre, wanted - centre)
    apart = (made**2).sum(1)[:, None] - 2 * made @ wanted.T + (wanted**2).sum(1)
    distance = np.linalg.norm(made - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    return {
        "sentences": len(made),
        "cosine_mean": round(float(plain.mean()), 4),
        "cosine_median": round(float(np.median(plain)), 4),
        "cosine_p5": round(float(np.percentile(plain, 5)), 4),
        "centred_cosine_median": round(float(np.median(centred)), 4),
        "nearest_is_own": round(float((apart.argmin(1) == np.arange(len(made))).mean()), 4),
        "relative_distance_median": round(float(np.median(distance)), 4),
    }


def train_student(
    directory: Path,
    embed: Callable[[Sequence[str]], Vectors],
    config: StudentConfig | None = None,
    extra: Iterable[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains a student on the teacher's `embed`, writes `student.onnx` and `tokenizer.json`, returns what was measured.

    The figures are of the files as written, run by onnxruntime. `extra` are further sentences to train on.
    """
    config = config or StudentConfig()
    started = time.process_time()
    language = build_language(config, extra)
    targets = embed(language.train)
    tokenizer = build_tokenizer(language.train, config.vocabulary)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / TOKENIZER), pretty=False)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(language.train)]
    torch.manual_seed(config.seed)
    student = Student(config, tokenizer.get_vocab_size(), targets.shape[1])
    vocabulary = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    student.start_from(*map(torch.from_numpy, (embed([p.removeprefix("##") for p in pieces]), targets)))
    taught = time.process_time()
    train(student, ids, targets, config, progress)
    export(student, directory / STUDENT)
    runner, centre = StudentRunner(directory / STUDENT, directory / TOKENIZER), targets.mean(0)
    groups: Mapping[str, list[str]] = {"training": language.train[:2000], **language.tests}
    figures = {name: agreement(runner.encode(group), embed(group), centre) for name, group in groups.items()}
    return {
        "config": asdict(config),
        "vocabulary": tokenizer.get_vocab_size(),
        "parameters": sum(p.numel() for p in student.parameters()),
        "bytes": (directory / STUDENT).stat().st_size + (directory / TOKENIZER).stat().st_size,
        "training_sentences": len(language.train),
        "cpu_seconds": {"teacher": round(taught - started), "all": round(time.process_time() - started)},
        "agreement": figures,
    }
