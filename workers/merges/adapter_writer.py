"""Writes the folder of a merged adapter: weights, config, model card, and a config for mergekit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn

from catalog.tables import Merge
from workers.finetunes.lora_config import PEFT_PREFIX
from workers.finetunes.repo_files import ADAPTER_WEIGHTS
from workers.merges.card import model_card
from workers.merges.combining import Modules
from workers.merges.mergekit_config import mergekit_config

MERGEKIT_FILE = "mergekit.yml"


def write(folder: Path, merge: Merge, modules: Modules, base: nn.Module, configs: Sequence[Mapping[str, Any]]) -> None:
    """Write an adapter that PEFT loads on the `base`, with or without its head; `configs` are those of the parts."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, module in modules.items():
        for side, tensor in (("A", module.a), ("B", module.b)):
            leaf = f"lora_embedding_{side}" if module.embedding else f"lora_{side}.weight"
            tensors[f"{PEFT_PREFIX}{name}.{leaf}"] = tensor
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    rank = next(iter(modules.values())).a.shape[0]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=target_names(modules, base),
        fan_in_fan_out=any(config.get("fan_in_fan_out") for config in configs),
        base_model_name_or_path=merge.base_repo,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    mergekit_yaml = mergekit_config(merge)
    if mergekit_yaml is not None:
        (folder / MERGEKIT_FILE).write_text(mergekit_yaml, encoding="utf-8")
    card = model_card(merge, rank, MERGEKIT_FILE if mergekit_yaml else None)
    (folder / "README.md").write_text(card, encoding="utf-8")


def target_names(names: Iterable[str], base: nn.Module) -> list[str]:
    """PEFT's `target_modules` for modules with these names: the last parts of the names if no other module of the base
    has them, else the full names.
    """
    full_names = sorted(names)
    suffixes = {name.rpartition(".")[2] for name in full_names}
    matching = [name for name, _ in base.named_modules() if name.rpartition(".")[2] in suffixes]
    return sorted(suffixes) if len(matching) == len(full_names) else full_names
