"""The model card of a task's adapter."""

from __future__ import annotations

from pathlib import Path

from catalog.tables import Task
from catalog.tasks.training_config import TrainingConfig

CARD = """\
---
base_model: {base}
library_name: peft
tags:
- lora
---

# {title}

A LoRA adapter that Deltadex trained on {count} examples of a task, in order to find models for it.

Training: rank {rank}, alpha {alpha}, AdamW with a learning rate that falls linearly from {learning_rate} to 0,
{steps} steps of {batch_size} examples, seed {seed}, prompts in Alpaca's template. The adapter was trained briefly, to
be measured; its answers were not evaluated.
"""


def write_card(folder: Path, task: Task, base: str, count: int) -> None:
    """Write the card into the adapter's folder, replacing PEFT's template. `count` is the number of examples."""
    config = TrainingConfig(**task.training_config)
    title = f"Task {task.name}" if task.name else f"Task {task.id}"
    settings = {**config.as_dict(), "steps": config.steps(count), "seed": task.seed}
    (folder / "README.md").write_text(CARD.format(base=base, title=title, count=count, **settings), encoding="utf-8")
