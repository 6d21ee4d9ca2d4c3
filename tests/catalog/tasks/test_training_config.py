from __future__ import annotations

import pytest

from catalog.tasks.training_config import Recipe


@pytest.mark.parametrize(("examples", "steps"), [(5, 10), (20, 20), (31, 31), (200, 100)])
def test_every_example_is_seen_and_few_examples_often(examples, steps):
    assert Recipe(batch=2, passes=2, least_steps=10, most_steps=100).steps(examples) == steps
