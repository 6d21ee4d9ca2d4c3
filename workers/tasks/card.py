"""The model card of an adapter that was made for a task."""

from __future__ import annotations

from pathlib import Path

from catalog.tables import Task
from catalog.tasks.training_config import Recipe

CARD = """\
---
base_model: {base}
library_name: peft
tags:
- lora
---

# {title}

A LoRA adapter that Deltadex trained on {count} examples of a task, to find models for it: rank {rank}, alpha {alpha},
AdamW at a rate that falls from {rate} to 0, {steps} steps of {batch} examples, seed {seed}, prompts in Alpaca's
template. It is a quick one, made to be measured; nothing else was asked of it.
"""


def write_card(folder: Path, task: Task, base: str, count: int) -> None:
    """Beside the adapter; in place of the one that PEFT has begun."""
    recipe = Recipe(**task.recipe)
    title = f"Task {task.name}" if task.name else f"Task {task.id}"
    told = {**recipe.as_dict(), "steps": recipe.steps(count), "seed": task.seed}
    (folder / "README.md").write_text(CARD.format(base=base, title=title, count=count, **told), encoding="utf-8")
