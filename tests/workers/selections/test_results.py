from __future__ import annotations

import numpy as np
import pytest

from catalog.selections.strategies import Arm
from workers.selections.results import Tried, arms, mean


def tried(*losses: float) -> list[Tried]:
    return [Tried(seed, (("owner/a", 0.9, 0.5),), 1.0, loss) for seed, loss in enumerate(losses)]


def test_the_interval_of_a_mean_is_students():
    assert mean(np.array([1.0, 2.0, 3.0])) == {
        "mean": 2.0,
        "low": pytest.approx(2 - 4.3027 / np.sqrt(3), abs=1e-3),
        "high": pytest.approx(2 + 4.3027 / np.sqrt(3), abs=1e-3),
    }


def test_one_value_has_no_interval():
    assert mean(np.array([1.5])) == {"mean": 1.5, "low": None, "high": None}


def test_arms_stand_beside_random_seed_by_seed():
    nearest, random = arms({Arm.NEAREST: tried(1, 2, 3), Arm.RANDOM: tried(1.5, 2.5, 3.5)})
    assert nearest["beside_random"] == {"mean": -0.5, "low": -0.5, "high": -0.5}
    assert random["beside_random"] is None
    assert nearest["sets"][2] == {
        "seed": 2,
        "modules": [{"repo_id": "owner/a", "similarity": 0.9, "weight": 0.5}],
        "examples_loss": 1.0,
        "held_out_loss": 3.0,
    }


def test_without_random_there_is_nothing_to_stand_beside():
    [nearest] = arms({Arm.NEAREST: tried(1, 2)})
    assert nearest["beside_random"] is None
