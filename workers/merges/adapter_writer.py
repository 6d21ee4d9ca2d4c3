"""The folder of a merged adapter: weights, config, card, and a recipe for mergekit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn

from catalog.tables import Merge
from workers.finetunes.lora_config import PREFIX
from workers.finetunes.repo_files import ADAPTER_WEIGHTS
from workers.merges.card import card_of
from workers.merges.combining import Modules
from workers.merges.mergekit_config import recipe_of

RECIPE = "mergekit.yml"


def write(folder: Path, merge: Merge, modules: Modules, base: nn.Module, configs: Sequence[Mapping[str, Any]]) -> None:
    """Leaves what PEFT loads on the `base`, which is headless or whole; `configs` are the parts'."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, module in modules.items():
        for side, tensor in (("A", module.a), ("B", module.b)):
            leaf = f"lora_embedding_{side}" if module.embedding else f"lora_{side}.weight"
            tensors[f"{PREFIX}{name}.{leaf}"] = tensor
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    rank = next(iter(modules.values())).a.shape[0]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=targets(modules, base),
        fan_in_fan_out=any(config.get("fan_in_fan_out") for config in configs),
        base_model_name_or_path=merge.base_repo,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    recipe = recipe_of(merge)
    if recipe is not None:
        (folder / RECIPE).write_text(recipe, encoding="utf-8")
    (folder / "README.md").write_text(card_of(merge, rank, RECIPE if recipe else None), encoding="utf-8")


def targets(names: Iterable[str], base: nn.Module) -> list[str]:
    """The modules as PEFT is to find them: by the ends of their names where nothing else in the base has these, else by
    their whole names.
    """
    whole = sorted(names)
    ends = {name.rpartition(".")[2] for name in whole}
    like = [name for name, _ in base.named_modules() if name.rpartition(".")[2] in ends]
    return sorted(ends) if len(like) == len(whole) else whole
