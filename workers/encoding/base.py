"""The resident base: one headless model that every fine-tune of it is measured against, never mutated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from catalog.errors import CorruptWeights, NothingToEmbed, UnsupportedBase
from workers.encoding import packing, precision
from workers.encoding.safetensors_file import read_header

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class ResidentBase:
    """A base model in memory: `AutoModel` (no output head), in evaluation mode, without gradients.

    `repo` and `sha` name it in every space. In a reduced `dtype` the matrix products run in that dtype and the rest in
    float32 (see `precision`).
    """

    folder: Path
    repo: str
    sha: str
    dtype: str
    device: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, folder: Path, repo: str, sha: str, *, dtype: str = "float32", device: str = "cpu") -> ResidentBase:
        """Loads a base from a folder of safetensors; nothing is downloaded and no code of the folder runs.

        Raises `NothingToEmbed`, `CorruptWeights`, `UnsupportedBase`.
        """
        folder = Path(folder)
        if dtype not in DTYPES:
            raise UnsupportedBase(f"{dtype} is no dtype that a base is loaded in: choose from {', '.join(DTYPES)}.")
        files = sorted(folder.glob("*.safetensors"))
        if not files or not (folder / "config.json").is_file():
            raise NothingToEmbed(f"{folder.name} holds no config.json with safetensors files.")
        for file in files:
            read_header(file)
        return cls(folder, repo, sha, dtype, device, _load_model(folder, dtype, device), _load_tokenizer(folder))

    @property
    def hidden_size(self) -> int:
        return self.model.config.get_text_config().hidden_size

    @property
    def layers(self) -> int:
        """How many decoder layers there are; `hidden_states` has one more entry."""
        return self.model.config.get_text_config().num_hidden_layers

    @property
    def nbytes(self) -> int:
        tensors = (*self.model.parameters(), *self.model.buffers())
        return sum(tensor.nbytes for tensor in tensors)

    def checksum(self) -> str:
        """A digest of every parameter's name, shape and bits: two equal ones mean an untouched base.

        The bits are summed as integers, in the model's own memory, so that the check costs one pass over the weights.
        """
        digest = hashlib.sha256()
        for name, tensor in self.model.named_parameters():
            bits = tensor.detach().view(torch.int16 if tensor.element_size() == 2 else torch.int32)
            digest.update(f"{name}{list(tensor.shape)}{int(bits.sum(dtype=torch.int64))}\n".encode())
        return digest.hexdigest()


def _load_model(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if getattr(config, "quantization_config", None):
            raise UnsupportedBase(f"{folder.name} is quantised; use the unquantised model that it was made from.")
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise CorruptWeights(f"The weights in {folder.name} cannot be read: {error}.") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UnsupportedBase(f"transformers cannot load {folder.name}: {_first_line(error)}") from error
    # transformers fills in what the files lack with random numbers
    if info["missing_keys"]:
        raise UnsupportedBase(f"{folder.name} lacks weights that its config asks for: {_some(info['missing_keys'])}.")
    if dtype != "float32":
        precision.to_mixed(model)
    packing.install(model)
    return model.requires_grad_(False).eval().to(device)


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer backend raises classes of its own
        raise UnsupportedBase(f"{folder.name} holds no tokenizer that can be loaded: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _some(names: Any) -> str:
    return ", ".join(sorted(names)[:3])
