from __future__ import annotations

import pytest

from catalog.recipe import Recipe


@pytest.mark.parametrize(("examples", "steps"), [(5, 15), (20, 15), (31, 16), (200, 100)])
def test_every_example_is_seen_and_few_examples_often(examples, steps):
    assert Recipe(batch=2, least_steps=15).steps(examples) == steps
