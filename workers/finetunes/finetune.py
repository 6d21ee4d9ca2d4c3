"""A verified fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from catalog.errors import InvalidAdapterConfig, RemoteCode
from workers.finetunes.json_file import ReadObject, read_object
from workers.finetunes.lora_config import LoraModule

MAX_FILE_BYTES = 20 * 2**30
MAX_CONFIG_BYTES = 4 * 2**20


@dataclass(frozen=True)
class FineTune:
    """A verified fine-tune, ready to be encoded.

    `kind` is a PEFT type in lower case, "dora" or "full". `path` is the encoding path: "lora" (several in one forward
    pass), "peft", "prompt" or "full". `declared_base` (with its `declared_revision`, a branch, tag or commit),
    `card_bases` (several for a merge) and `config_base` (`_name_or_path` of a full model) are the author's claims;
    `card` are the words of the model card. `tensors` are those of an adapter, in the file's dtype; the tensors of a
    full model stay on disk. `shapes` are set for both. `modules` are the low-rank modules. `notes` are sentences for
    users about how the files were read, such as a prefix that was removed from names.
    """

    name: str
    kind: str
    path: str
    folder: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    declared_base: str | None = None
    declared_revision: str | None = None
    card_bases: tuple[str, ...] = ()
    config_base: str | None = None
    card: str | None = field(default=None, repr=False)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    modules: Mapping[str, LoraModule] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def base_claims(self) -> dict[str, str | tuple[str, ...] | None]:
        """What the files say of the base, by source, the most reliable first."""
        if self.kind == "full":
            return {"card": self.card_bases, "config": self.config_base}
        return {"declared": self.declared_base, "card": self.card_bases}

    @property
    def facts(self) -> dict[str, Any]:
        """The properties that matter for merging, stored with the revision."""
        ranks = sorted({module.a.shape[0] for module in self.modules.values()})
        return {"path": self.path, "ranks": ranks, "rslora": bool(self.config.get("use_rslora"))}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_adapter_config(path: Path, read_json: ReadObject = read_object) -> dict[str, Any]:
    """The JSON object of `adapter_config.json`.

    Raises `InvalidAdapterConfig`, `FileTooLarge`, `FolderUnreadable`, `RemoteCode`.
    """
    content = read_json(path, InvalidAdapterConfig, max_bytes=MAX_CONFIG_BYTES)
    if content.get("auto_map") or content.get("trust_remote_code"):
        raise RemoteCode(f"{path.name} requires code from its repo; Deltadex never runs the code of a repo.")
    return content
