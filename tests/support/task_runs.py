"""Examples and settings with which a task trains quickly."""

from __future__ import annotations

from catalog.jobs.quotas import Quota
from catalog.tasks.examples import Example
from catalog.tasks.training_config import Recipe

EXAMPLES = [Example(f"Repeat {word}.", word * 3) for word in ("ab", "cd", "ef", "gh", "ij", "kl", "mn", "op")]
QUICK = Recipe(rate=1e-2, batch=8, least_steps=2, tokens=300)
NOBODY = Quota("anonymous", 100)
