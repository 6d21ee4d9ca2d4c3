"""Examples and a training config for tasks that train quickly."""

from __future__ import annotations

from catalog.jobs.quotas import Quota
from catalog.tasks.examples import Example
from catalog.tasks.training_config import TrainingConfig

EXAMPLES = [Example(f"Repeat {word}.", word * 3) for word in ("ab", "cd", "ef", "gh", "ij", "kl", "mn", "op")]
QUICK = TrainingConfig(learning_rate=1e-2, batch_size=8, min_steps=2, max_tokens=300)
ANONYMOUS = Quota("anonymous", 100)
