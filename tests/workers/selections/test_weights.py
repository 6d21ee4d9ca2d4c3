from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog.errors import ShapeMismatch, UnsupportedAdapter
from tests.support.pico import make_adapter
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import read_finetune
from workers.process.cancellation import Cancelled, cancel_scope
from workers.selections.weights import MAX_WEIGHT, PENALTY, compose, fit_adapter, weighted_sum


def delta(module: LoraModule) -> torch.Tensor:
    return module.scale * module.b @ module.a


def test_the_weighted_sum_is_a_sum_of_deltas(adapters):
    weights = [0.5, -1.0, 0.25]
    for name, module in weighted_sum(adapters, weights).modules.items():
        expected = sum(weight * delta(adapter.modules[name]) for adapter, weight in zip(adapters, weights, strict=True))
        torch.testing.assert_close(delta(module), expected)


def test_a_module_of_one_adapter_alone_keeps_its_delta(adapters):
    name = next(iter(adapters[0].modules))
    alone = replace(adapters[1], modules={other: each for other, each in adapters[1].modules.items() if other != name})
    found = weighted_sum([adapters[0], alone], [2.0, 1.0]).modules[name]
    torch.testing.assert_close(delta(found), 2 * delta(adapters[0].modules[name]))


def test_zero_weights_are_the_base_and_weight_one_is_the_adapter(adapters, scorer):
    [none, one, itself] = scorer.finetunes(
        [weighted_sum(adapters, [0, 0, 0]), weighted_sum(adapters, [0, 1, 0]), adapters[1].finetune]
    )
    np.testing.assert_allclose(none.summed, scorer.base().summed, rtol=1e-4)
    np.testing.assert_allclose(one.summed, itself.summed, rtol=1e-4)


def test_the_best_weights_tried_are_no_worse_than_none(adapters, scorer):
    seen: list[float] = []
    found = compose(scorer, adapters, 12, seen.append)
    assert seen == pytest.approx([number / 12 for number in range(1, len(seen) + 1)])
    assert len(seen) <= 12
    [result] = scorer.finetunes([weighted_sum(adapters, found.weights)])
    assert result.per_token == pytest.approx(found.loss, rel=1e-4)
    assert found.loss + PENALTY * np.abs(found.weights).sum() <= scorer.base().per_token + 1e-4
    assert np.abs(found.weights).max() <= MAX_WEIGHT


def test_the_best_weights_are_no_worse_than_each_adapter_alone(adapters, scorer):
    found = compose(scorer, adapters, 40, lambda done: None)
    penalized = found.loss + PENALTY * np.abs(found.weights).sum()
    for result in scorer.finetunes([part.finetune for part in adapters]):
        assert penalized <= result.per_token + PENALTY + 1e-4


def test_a_budget_below_the_minimum_of_cobyla_is_raised_to_it(adapters, scorer):
    seen: list[float] = []
    compose(scorer, adapters, 2, seen.append)
    assert (len(seen), seen[-1]) == (5, 1.0)


def test_a_cancelled_composition_stops(adapters, scorer):
    seen: list[float] = []
    with cancel_scope(lambda: len(seen) == 3), pytest.raises(Cancelled):
        compose(scorer, adapters, 40, seen.append)
    assert len(seen) == 3


def test_an_adapter_that_does_not_fit_the_base_is_refused(encoder, tmp_path):
    with pytest.raises(ShapeMismatch):
        fit_adapter("wide", read_finetune(make_adapter(tmp_path / "wide", hidden=64)), encoder.base)


def test_an_adapter_that_is_not_plain_lora_is_refused(encoder, adapters):
    with pytest.raises(UnsupportedAdapter):
        fit_adapter("dora", replace(adapters[0].finetune, path="peft"), encoder.base)
