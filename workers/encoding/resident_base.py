"""The resident base: a headless model that its fine-tunes are measured against, and that is never modified."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from catalog.errors import NoSupportedWeights, UnsupportedBase
from catalog.errors.root import first_line
from workers.encoding.decoder import layer_count
from workers.encoding.forward import PLAIN, ForwardPass, Proof
from workers.encoding.model_loading import DTYPES, clean_view, load_config, load_headless, load_whole
from workers.encoding.output_head import Head, input_embeddings, load_head
from workers.encoding.token_plan import TokenPlan
from workers.finetunes.finetune import MAX_CONFIG_BYTES
from workers.finetunes.json_file import read_object
from workers.finetunes.model_config import code_notes, refuse_quantized

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")

log = logging.getLogger(__name__)


@dataclass(eq=False)
class ResidentBase:
    """A base model in memory: `AutoModel` (no output head), in evaluation mode, without gradients.

    `repo` and `sha` identify it in its spaces. In a reduced `dtype`, matrix products run in that dtype and the rest in
    float32 (see `kernels`); on the plain path everything runs in it. `notes` are sentences for users about how its
    files were read.
    """

    folder: Path
    repo: str
    sha: str
    dtype: str
    device: str
    forward: ForwardPass
    tokenizer: PreTrainedTokenizerBase
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path, repo: str, sha: str, *, dtype: str = "float32", device: str = "cpu") -> ResidentBase:
        """Load a base from a folder of safetensors files. Nothing is downloaded, and no code from the folder is run.

        Raises `NoSupportedWeights`, `CorruptWeights`, `UnsupportedBase`.
        """
        folder = Path(folder)
        if dtype not in DTYPES:
            raise UnsupportedBase(f"The dtype {dtype} is not supported: choose one of {', '.join(DTYPES)}.")
        if not list(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
            raise NoSupportedWeights(f"{folder.name} has no config.json with safetensors files.")
        forward = ForwardPass(_load_model(folder, dtype, device), DTYPES[dtype])
        notes = code_notes(_read_config(folder), repo, UnsupportedBase)
        return cls(folder, repo, sha, dtype, device, forward, _load_tokenizer(folder), notes)

    def prove(self, plan: TokenPlan) -> Proof:
        """Decide by a measurement on which path this base runs, and switch to it. `plan` is that of `plan_proof`.

        Raises `UnsupportedBase` if the base cannot be measured.
        """
        proof = self.forward.prove(plan)
        if proof.path == PLAIN and not self.forward.is_plain:
            log.warning("%s runs on the plain path, which is slower: %s", self.repo, proof.reason)
            self.__dict__.pop("_head", None)  # it may be the embedding of this model
            del self.forward  # its memory is needed to load the unmodified classes and dtypes
            model = _load_model(self.folder, self.dtype, self.device)
            self.forward = ForwardPass(model, DTYPES[self.dtype], plain=True)
            self.forward.run(plan)  # the first run adds transformers' own hooks, which the guard would notice
        return proof

    def check_tokens(self, plan: TokenPlan) -> None:
        """Raises `UnsupportedBase` if the tokenizer has tokens that the embedding does not have."""
        token = int(plan.ids.max())
        if token >= self.vocabulary:
            raise UnsupportedBase(
                f"The tokenizer of {self.repo} reads the probes with the token {token:,}, and the embedding has "
                f"{self.vocabulary:,} rows: the base must have the tokenizer that was saved with its weights."
            )

    @property
    def model(self) -> PreTrainedModel:
        return self.forward.model

    @property
    def hidden_size(self) -> int:
        return self.model.config.get_text_config().hidden_size

    @property
    def vocabulary(self) -> int:
        return len(input_embeddings(self.model))

    @property
    def layers(self) -> int:
        """The number of decoder layers; `hidden_states` has one more entry."""
        return layer_count(self.model)

    @property
    def head(self) -> Head:
        """The output head, loaded at the first access. Raises `UnsupportedBase`."""
        if isinstance(self._head, UnsupportedBase):
            raise self._head
        return self._head

    def require_head(self) -> None:
        """Raises `UnsupportedBase` if there is no output head."""
        _ = self.head

    @cached_property
    def _head(self) -> Head | UnsupportedBase:
        try:
            return load_head(self.folder, self.model, self.device, UnsupportedBase)
        except UnsupportedBase as error:
            return error

    @property
    def nbytes(self) -> int:
        tensors = (*self.model.parameters(), *self.model.buffers())
        return sum(tensor.nbytes for tensor in tensors)


def load_for_training(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """A separate copy of a base with its output head, for training. Raises what `ResidentBase.load` raises."""
    with _checked_view(folder) as (view, config):
        model: Any = load_whole(view, config, dtype, UnsupportedBase)
        return model.to(device)


def _load_model(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    with _checked_view(folder) as (view, config):
        model: Any = load_headless(view, config, dtype, UnsupportedBase)
        return model.to(device)


@contextmanager
def _checked_view(folder: Path) -> Iterator[tuple[Path, PreTrainedConfig]]:
    """A clean view of the folder, and its config."""
    content = _read_config(folder)
    refuse_quantized(content, folder.name, UnsupportedBase, "the original: use the unquantized original as the base.")
    code_notes(content, folder.name, UnsupportedBase)
    with clean_view(folder, content) as view:
        yield view, load_config(view, UnsupportedBase)


def _read_config(folder: Path) -> dict[str, Any]:
    return read_object(folder / "config.json", UnsupportedBase, max_bytes=MAX_CONFIG_BYTES)


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizer backends raise various classes
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            reason = "it has no tokenizer file; add what the tokenizer's `save_pretrained` writes"
        else:
            reason = first_line(error)
        raise UnsupportedBase(f"The tokenizer of {folder.name} cannot be loaded: {reason}.") from error
