"""What a verified folder becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from catalog.errors import InvalidAdapterConfig, InvalidModelConfig, Refused, RemoteCode
from workers.finetunes.json_file import read_object
from workers.finetunes.lora_config import LoraModule

MAX_FILE_BYTES = 20 * 2**30
MAX_CONFIG_BYTES = 4 * 2**20
PARTS_DEEP = 4  # a model's language model is a part of it, or a part of a part


@dataclass(frozen=True)
class FineTune:
    """A verified fine-tune, ready to be encoded.

    `kind` is what it is called: a PEFT type in small letters, "dora", or "full". `path` says which way it is encoded:
    "lora" (several in one forward), "peft", "prompt" or "full". `declared_base` and `card_base` are only the author's
    claims. `tensors` are an adapter's own, in the file's dtype, and stay on disk for a full model; `shapes` are known
    for both. `modules` are the low-rank parts.
    """

    name: str
    kind: str
    path: str
    folder: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    declared_base: str | None = None
    card_base: str | None = None
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    modules: Mapping[str, LoraModule] = field(default_factory=dict, repr=False)

    @property
    def facts(self) -> dict[str, Any]:
        """What of it bears on merging, as it is stored with its revision."""
        ranks = sorted({module.a.shape[0] for module in self.modules.values()})
        return {"path": self.path, "ranks": ranks, "rslora": bool(self.config.get("use_rslora"))}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_config(path: Path, error: type[InvalidAdapterConfig | InvalidModelConfig]) -> dict[str, Any]:
    """A config file's JSON object; raises `error`, `FileTooLarge`, `FolderUnreadable`, `RemoteCode`."""
    content = read_object(path, error, max_bytes=MAX_CONFIG_BYTES)
    if content.get("auto_map") or content.get("trust_remote_code"):
        raise RemoteCode(f"{path.name} asks for code from its repo to run; Deltadex never runs a repo's code.")
    return content


def refuse_quantised(config: Mapping[str, Any], name: str, error: type[Refused], instead: str) -> None:
    """Raises `error`, which says at its end whose activations are wanted, and what to do `instead`."""
    if method := quantisation(config):
        raise error(f"{name} is quantised ({method}), so its activations are not those of {instead}")


def quantisation(config: Mapping[str, Any]) -> str | None:
    """How the weights of a model are quantised, by its config or one of its parts'; None where they are not."""
    level = [config]
    for _ in range(PARTS_DEEP):
        for part in level:
            if found := part.get("quantization_config"):
                return str(found.get("quant_method", "unknown") if isinstance(found, dict) else "unknown")[:40]
        level = [value for part in level for value in part.values() if isinstance(value, Mapping)]
    return None
