from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from catalog.merges.methods import METHODS, Blend
from tests.support.pico import make_adapter as make_lora
from tests.support.pico import make_base
from tests.support.pico_models import load, make_adapter
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import read_finetune
from workers.merges.combining import combine
from workers.process.cancellation import Stopped, heeding

WEIGHTS = {"one": 1.0, "two": -0.5}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    top = tmp_path_factory.mktemp("adapters")
    return [make_lora(top / str(seed), seed=seed) for seed in range(2)]


def modules(*adapters: Path) -> list[Any]:
    return [read_finetune(adapter).modules for adapter in adapters]


def delta(module: LoraModule) -> Tensor:
    return module.scale * module.b.float() @ module.a.float()  # (out, in)


def by_peft(base: Path, adapters: list[Path], **settings: Any) -> Any:
    """PEFT's own way: the adapters on the whole base, and merged there."""
    first, *others = zip(
        WEIGHTS, adapters, strict=True
    )  # no numbers: PEFT takes such a name for a layer's, and saves less
    tuned = peft.PeftModel.from_pretrained(load(base), first[1], first[0])
    for name, adapter in others:
        tuned.load_adapter(adapter, name)
    tuned.base_model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "merged", **settings)
    return tuned


def delta_in(tuned: Any, name: str, adapter: str = "merged") -> Tensor:
    return tuned.base_model.model.get_submodule(name).get_delta_weight(adapter).detach()


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_what_peft_gives_on_the_whole_base(base: Path, adapters: list[Path], method: str):
    density = 1.0 if METHODS[method].random else 0.5  # where chance decides, nothing is left to it
    expected = by_peft(base, adapters, combination_type=method, density=density)
    found = combine(modules(*adapters), Blend(WEIGHTS, method, density))
    assert len(found) == 4
    for name, module in found.items():
        torch.testing.assert_close(delta(module), delta_in(expected, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "rank"), [("cat", None), ("svd", 8)])
def test_the_exact_methods_give_the_weighted_sum(adapters: list[Path], method: str, rank: int | None):
    one, two = modules(*adapters)
    for name, module in combine([one, two], Blend(WEIGHTS, method, rank=rank)).items():
        assert module.a.shape[0] == 8
        torch.testing.assert_close(delta(module), delta(one[name]) - 0.5 * delta(two[name]), rtol=1e-4, atol=1e-5)


def test_the_linear_method_multiplies_sums_of_factors(adapters: list[Path]):
    one, two = modules(*adapters)
    found = combine([one, two], Blend(WEIGHTS, "linear"))
    for name, module in found.items():
        first, second = one[name], two[name]
        a = math.sqrt(first.scale) * first.a - math.sqrt(0.5 * second.scale) * second.a  # the sign goes into A alone
        b = math.sqrt(first.scale) * first.b + math.sqrt(0.5 * second.scale) * second.b
        torch.testing.assert_close(delta(module), b @ a, rtol=1e-4, atol=1e-5)


def test_a_module_that_one_part_lacks_takes_what_the_others_bring(adapters: list[Path]):
    one, two = modules(*adapters)
    name, *rest = one
    found = combine([one, {each: two[each] for each in rest}], Blend(WEIGHTS, "cat"))
    torch.testing.assert_close(delta(found[name]), delta(one[name]), rtol=1e-4, atol=1e-5)
    assert {module.a.shape[0] for module in found.values()} == {8}


def test_ranks_may_differ_where_products_are_added(base: Path, tmp_path: Path):
    pattern = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}, lora_alpha=3)
    made = [make_adapter(base, tmp_path / "one", pattern), make_lora(tmp_path / "two", rank=6)]
    one, two = modules(*made)
    for name, module in combine([one, two], Blend(WEIGHTS, "cat")).items():
        assert module.a.shape[0] == 10
        torch.testing.assert_close(delta(module), delta(one[name]) - 0.5 * delta(two[name]), rtol=1e-4, atol=1e-5)


def test_embeddings_are_merged_as_well(base: Path, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])
    made = [make_adapter(base, tmp_path / str(seed), config, seed=seed) for seed in range(2)]
    one, two = modules(*made)
    name = next(name for name, module in one.items() if module.embedding)
    found = combine([one, two], Blend(WEIGHTS, "svd", rank=8))[name]
    assert found.embedding
    torch.testing.assert_close(delta(found), delta(one[name]) - 0.5 * delta(two[name]), rtol=1e-4, atol=1e-5)


def test_an_rslora_is_added_as_strong_as_it_is_and_not_as_in_peft(base: Path, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_rslora=True)
    made = [make_adapter(base, tmp_path / "one", config), make_lora(tmp_path / "two")]
    one, two = modules(*made)
    by_them = by_peft(base, made, combination_type="cat")
    for name, module in combine([one, two], Blend(WEIGHTS, "cat")).items():
        total = delta(one[name]) - 0.5 * delta(two[name])
        torch.testing.assert_close(delta(module), total, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(delta_in(by_them, name), math.sqrt(8) * total, rtol=1e-4, atol=1e-4)


def test_peft_leaves_the_magnitudes_of_a_dora_out(base: Path, tmp_path: Path):
    """Why DoRAs are refused: what they do to a weight is not what stays of them in a merge."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_dora=True)
    dora = make_adapter(base, tmp_path / "dora", config)
    merged = by_peft(base, [make_lora(tmp_path / "lora", scale=0), dora], combination_type="cat")
    assert not merged.peft_config["merged"].use_dora
    alone = peft.PeftModel.from_pretrained(load(base), dora).merge_and_unload()
    name = "model.layers.0.self_attn.q_proj"
    did = alone.get_submodule(name).weight - load(base).get_submodule(name).weight
    assert (delta_in(merged, name) + 0.5 * did).norm() > 0.5 * did.norm()


def test_chance_is_drawn_by_the_seed_alone(adapters: list[Path]):
    parts = modules(*adapters)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (combine(parts, Blend(WEIGHTS, "dare_linear", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(delta(first[name]), delta(again[name])) for name in first)
    assert not any(torch.equal(delta(first[name]), delta(other[name])) for name in first)


def test_it_ends_between_two_modules_once_it_is_given_up(adapters: list[Path]):
    done: list[float] = []
    with heeding(lambda: len(done) == 2), pytest.raises(Stopped):
        combine(modules(*adapters), Blend(WEIGHTS, "cat"), on_module=done.append)
    assert done == [0.25, 0.5]


def test_peft_leaves_files_that_do_not_load_where_ranks_vary(base: Path, tmp_path: Path):
    """Why one rank alone is taken where factors are added."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2})
    merged = by_peft(base, [make_adapter(base, tmp_path / name, config) for name in WEIGHTS], combination_type="linear")
    merged.save_pretrained(tmp_path, selected_adapters=["merged"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(load(base), tmp_path / "merged")
