"""The resident base: a headless model that its fine-tunes are measured against, and that is never modified."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from catalog.errors import NoSupportedWeights, UnsupportedBase
from workers.encoding.decoder import layer_count
from workers.encoding.forward import PLAIN, ForwardPass, Proof
from workers.encoding.model_loading import DTYPES, clean_view, load_config, load_headless, load_whole
from workers.encoding.output_head import Head, input_embeddings, load_head
from workers.encoding.token_plan import TokenPlan
from workers.encoding.tokenizer import Tokenizer, load_tokenizer
from workers.finetunes.finetune import MAX_CONFIG_BYTES
from workers.finetunes.json_file import read_object
from workers.finetunes.model_config import code_notes, refuse_quantized

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseFiles:
    """What was read of a base's files besides its weights: the object in config.json, and the tokenizer."""

    config: Mapping[str, Any]
    tokenizer: Tokenizer


def read_base(folder: Path) -> BaseFiles:
    """Read a base's files in this process, with every check that needs no weights.

    Raises `UnsupportedBase` and `CorruptWeights`.
    """
    config = _read_config(folder)
    with _checked_view(folder, config):
        return BaseFiles(config, load_tokenizer(folder))


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
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        folder: Path,
        repo: str,
        sha: str,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        files: BaseFiles | None = None,
    ) -> ResidentBase:
        """Load a base from a folder of safetensors files. Nothing is downloaded, and no code from the folder is run.
        Its other files are read in this process if `files` is None.

        Raises `NoSupportedWeights`, `CorruptWeights`, `UnsupportedBase`.
        """
        folder = Path(folder)
        if dtype not in DTYPES:
            raise UnsupportedBase(f"The dtype {dtype} is not supported: choose one of {', '.join(DTYPES)}.")
        if not list(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
            raise NoSupportedWeights(f"{folder.name} has no config.json with safetensors files.")
        config = files.config if files else _read_config(folder)
        forward = ForwardPass(_load_model(folder, config, dtype, device), DTYPES[dtype])
        notes = code_notes(config, repo, UnsupportedBase)
        tokenizer = files.tokenizer if files else load_tokenizer(folder)
        return cls(folder, repo, sha, dtype, device, forward, config, tokenizer, notes)

    def prove(self, plan: TokenPlan) -> Proof:
        """Decide by a measurement on which path this base runs, and switch to it. `plan` is that of `plan_proof`.

        Raises `UnsupportedBase` if the base cannot be measured.
        """
        proof = self.forward.prove(plan)
        if proof.path == PLAIN and not self.forward.is_plain:
            log.warning("%s runs on the plain path, which is slower: %s", self.repo, proof.reason)
            self.__dict__.pop("_head", None)  # it may be the embedding of this model
            del self.forward  # its memory is needed to load the unmodified classes and dtypes
            model = _load_model(self.folder, self.config, self.dtype, self.device)
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


def load_for_training(base: ResidentBase, dtype: str) -> PreTrainedModel:
    """A separate copy of a base with its output head, for training. Raises what `ResidentBase.load` raises."""
    with _checked_view(base.folder, base.config) as (view, config):
        model: Any = load_whole(view, config, dtype, UnsupportedBase)
        return model.to(base.device)


def _load_model(folder: Path, content: Mapping[str, Any], dtype: str, device: str) -> PreTrainedModel:
    with _checked_view(folder, content) as (view, config):
        model: Any = load_headless(view, config, dtype, UnsupportedBase)
        return model.to(device)


@contextmanager
def _checked_view(folder: Path, content: Mapping[str, Any]) -> Iterator[tuple[Path, PreTrainedConfig]]:
    """A clean view of the folder, and the config of the object `content`."""
    refuse_quantized(content, folder.name, UnsupportedBase, "the original: use the unquantized original as the base.")
    code_notes(content, folder.name, UnsupportedBase)
    with clean_view(folder, content) as view:
        yield view, load_config(view, UnsupportedBase)


def _read_config(folder: Path) -> dict[str, Any]:
    return read_object(folder / "config.json", UnsupportedBase, max_bytes=MAX_CONFIG_BYTES)
