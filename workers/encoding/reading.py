"""Reading a fine-tune's folder: everything checked that can be checked without its base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from catalog.errors import (
    FileTooLarge,
    FolderUnreadable,
    InvalidAdapterConfig,
    NothingToEmbed,
    PickledWeights,
    RemoteCode,
    UnsupportedAdapter,
)
from workers.encoding.lora_config import LoraModule, is_plain, parse_lora
from workers.encoding.safetensors_file import load_tensors

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_FILE_BYTES = 20 * 2**30
MAX_CONFIG_BYTES = 4 * 2**20


@dataclass(frozen=True)
class FineTune:
    """A verified fine-tune, ready to be encoded.

    `kind` says which path encodes it. `declared_base` is only the author's claim. `tensors` are an adapter's own, in
    the file's dtype; `modules` is filled for plain LoRA alone.
    """

    name: str
    kind: str
    folder: Path
    config: Mapping[str, Any]
    declared_base: str | None = None
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    modules: Mapping[str, LoraModule] = field(default_factory=dict, repr=False)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_finetune(folder: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> FineTune:
    """Reads and verifies an adapter's config and weights; nothing in the folder is executed or unpickled.

    Raises `NothingToEmbed`, `PickledWeights`, `RemoteCode`, `InvalidAdapterConfig`, `UnsupportedAdapter`,
    `CorruptWeights`, `NonFiniteWeights`, `FileTooLarge`, `FolderUnreadable`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FolderUnreadable(f"{folder} is not a folder.")
    if not (folder / ADAPTER_CONFIG).is_file():
        raise _nothing_in(folder)
    config = read_config(folder / ADAPTER_CONFIG)
    refuse_code(config)
    kind = str(config.get("peft_type", "")).lower()
    if kind != "lora":
        raise UnsupportedAdapter(f"{folder.name} has the PEFT type {str(config.get('peft_type'))[:40]!r}.")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise _nothing_in(folder)
    if not is_plain(config):
        raise UnsupportedAdapter(f"{folder.name} is a LoRA with parts besides A and B.")
    tensors = load_tensors(folder / ADAPTER_WEIGHTS, max_file_bytes=max_file_bytes)
    return FineTune(folder.name, kind, folder, config, _declared_base(config), tensors, parse_lora(config, tensors))


def read_config(path: Path) -> dict[str, Any]:
    """A config file's JSON object; raises `InvalidAdapterConfig`, `FileTooLarge`, `FolderUnreadable`."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise FileTooLarge(f"{path.name} is larger than {MAX_CONFIG_BYTES:,} bytes.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidAdapterConfig(f"{path.name} is not JSON.") from error
    if not isinstance(content, dict):
        raise InvalidAdapterConfig(f"{path.name} is not a JSON object.")
    return content


def refuse_code(config: Mapping[str, Any]) -> None:
    """Raises `RemoteCode` where a config wants code from its repo to run."""
    if config.get("auto_map") or config.get("trust_remote_code"):
        raise RemoteCode("The config asks for code from its repo to run; Deltadex never runs a repo's code.")


def _declared_base(config: Mapping[str, Any]) -> str | None:
    declared = config.get("base_model_name_or_path")
    return declared if isinstance(declared, str) and declared else None


def _nothing_in(folder: Path) -> NothingToEmbed | PickledWeights | FolderUnreadable:
    try:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    except OSError as error:
        return FolderUnreadable(f"{folder.name} cannot be read: {error.strerror or error}.")
    if pickled:
        return PickledWeights(f"{pickled[0]} is pickled, and unpickling runs code: publish the weights as safetensors.")
    return NothingToEmbed(f"{folder.name} holds no {ADAPTER_CONFIG} with {ADAPTER_WEIGHTS}.")
