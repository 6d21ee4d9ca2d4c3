from __future__ import annotations

import pytest

from catalog.tasks.training_config import TrainingConfig


@pytest.mark.parametrize(("examples", "steps"), [(5, 10), (20, 20), (31, 31), (200, 100)])
def test_steps_are_the_epochs_within_minimum_and_maximum(examples: int, steps: int):
    assert TrainingConfig(batch_size=2, epochs=2, min_steps=10, max_steps=100).steps(examples) == steps
