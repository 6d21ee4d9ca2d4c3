from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog.errors import ShapeMismatch, UnsupportedAdapter
from tests.support.pico import make_adapter
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import read_finetune
from workers.process.cancellation import Stopped, heeding
from workers.selections.weights import BOUND, PENALTY, compose, part_of, weighted


def delta(module: LoraModule) -> torch.Tensor:
    return module.scale * module.b @ module.a


def test_a_weighted_sum_is_that_of_the_deltas(parts):
    weights = [0.5, -1.0, 0.25]
    for name, module in weighted(parts, weights).modules.items():
        expected = sum(weight * delta(part.modules[name]) for part, weight in zip(parts, weights, strict=True))
        torch.testing.assert_close(delta(module), expected)


def test_a_module_that_only_one_part_has_is_that_parts(parts):
    name = next(iter(parts[0].modules))
    alone = replace(parts[1], modules={other: each for other, each in parts[1].modules.items() if other != name})
    found = weighted([parts[0], alone], [2.0, 1.0]).modules[name]
    torch.testing.assert_close(delta(found), 2 * delta(parts[0].modules[name]))


def test_no_weight_at_all_is_the_base_and_one_the_adapter_itself(parts, scorer):
    [none, one, itself] = scorer.finetunes([weighted(parts, [0, 0, 0]), weighted(parts, [0, 1, 0]), parts[1].finetune])
    np.testing.assert_allclose(none.summed, scorer.base().summed, rtol=1e-4)
    np.testing.assert_allclose(one.summed, itself.summed, rtol=1e-4)


def test_the_best_weights_tried_are_no_worse_than_none(parts, scorer):
    seen: list[float] = []
    found = compose(scorer, parts, 12, seen.append)
    assert seen == pytest.approx([number / 12 for number in range(1, len(seen) + 1)])
    assert len(seen) <= 12
    [result] = scorer.finetunes([weighted(parts, found.weights)])
    assert result.per_token == pytest.approx(found.loss, rel=1e-4)
    assert found.loss + PENALTY * np.abs(found.weights).sum() <= scorer.base().per_token + 1e-4
    assert np.abs(found.weights).max() <= BOUND


def test_it_is_no_worse_than_each_module_alone(parts, scorer):
    found = compose(scorer, parts, 40, lambda done: None)
    penalised = found.loss + PENALTY * np.abs(found.weights).sum()
    for result in scorer.finetunes([part.finetune for part in parts]):
        assert penalised <= result.per_token + PENALTY + 1e-4


def test_fewer_tries_than_it_can_do_with_are_as_many_as_it_needs(parts, scorer):
    seen: list[float] = []
    compose(scorer, parts, 2, seen.append)
    assert (len(seen), seen[-1]) == (5, 1.0)


def test_work_that_is_given_up_stops(parts, scorer):
    seen: list[float] = []
    with heeding(lambda: len(seen) == 3), pytest.raises(Stopped):
        compose(scorer, parts, 40, seen.append)
    assert len(seen) == 3


def test_what_does_not_fit_the_base_is_no_part(encoder, tmp_path):
    with pytest.raises(ShapeMismatch):
        part_of("wide", read_finetune(make_adapter(tmp_path / "wide", hidden=64)), encoder.base)


def test_what_is_no_plain_lora_is_no_part(encoder, parts):
    with pytest.raises(UnsupportedAdapter):
        part_of("dora", replace(parts[0].finetune, path="peft"), encoder.base)
