from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from catalog.merges.methods import METHODS, MergeSpec
from tests.support.pico import make_adapter as make_lora
from tests.support.pico import make_base
from tests.support.pico_models import load, make_adapter
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import read_finetune
from workers.merges.combining import combine, max_result_bytes
from workers.process.cancellation import Cancelled, cancel_scope

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


def merged_by_peft(base: Path, adapters: list[Path], **settings: Any) -> Any:
    """The adapters, loaded on the whole base and merged there by PEFT."""
    first, *others = zip(
        WEIGHTS, adapters, strict=True
    )  # names without digits, which PEFT would take for those of layers
    tuned = peft.PeftModel.from_pretrained(load(base), first[1], first[0])
    for name, adapter in others:
        tuned.load_adapter(adapter, name)
    tuned.base_model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "merged", **settings)
    return tuned


def delta_in(tuned: Any, name: str, adapter: str = "merged") -> Tensor:
    return tuned.base_model.model.get_submodule(name).get_delta_weight(adapter).detach()


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_the_result_of_peft_on_the_whole_base(base: Path, adapters: list[Path], method: str):
    density = 1.0 if METHODS[method].random else 0.5  # at density 1 nothing is dropped at random
    expected = merged_by_peft(base, adapters, combination_type=method, density=density)
    merged = combine(modules(*adapters), MergeSpec(WEIGHTS, method, density))
    assert len(merged) == 4
    for name, module in merged.items():
        torch.testing.assert_close(delta(module), delta_in(expected, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "rank"), [("cat", None), ("svd", 8)])
def test_cat_and_svd_of_full_rank_give_the_weighted_sum(adapters: list[Path], method: str, rank: int | None):
    one, two = modules(*adapters)
    for name, module in combine([one, two], MergeSpec(WEIGHTS, method, rank=rank)).items():
        assert module.a.shape[0] == 8
        torch.testing.assert_close(delta(module), delta(one[name]) - 0.5 * delta(two[name]), rtol=1e-4, atol=1e-5)


def test_linear_multiplies_the_sums_of_factors(adapters: list[Path]):
    one, two = modules(*adapters)
    merged = combine([one, two], MergeSpec(WEIGHTS, "linear"))
    for name, module in merged.items():
        first, second = one[name], two[name]
        a = math.sqrt(first.scale) * first.a - math.sqrt(0.5 * second.scale) * second.a  # only A takes the sign
        b = math.sqrt(first.scale) * first.b + math.sqrt(0.5 * second.scale) * second.b
        torch.testing.assert_close(delta(module), b @ a, rtol=1e-4, atol=1e-5)


def test_module_that_one_part_lacks_is_merged_from_the_others(adapters: list[Path]):
    one, two = modules(*adapters)
    name, *rest = one
    merged = combine([one, {other: two[other] for other in rest}], MergeSpec(WEIGHTS, "cat"))
    torch.testing.assert_close(delta(merged[name]), delta(one[name]), rtol=1e-4, atol=1e-5)
    assert {module.a.shape[0] for module in merged.values()} == {8}


def test_cat_accepts_different_ranks(base: Path, tmp_path: Path):
    pattern = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}, lora_alpha=3)
    folders = [make_adapter(base, tmp_path / "one", pattern), make_lora(tmp_path / "two", rank=6)]
    one, two = modules(*folders)
    for name, module in combine([one, two], MergeSpec(WEIGHTS, "cat")).items():
        assert module.a.shape[0] == 10
        torch.testing.assert_close(delta(module), delta(one[name]) - 0.5 * delta(two[name]), rtol=1e-4, atol=1e-5)


def test_embeddings_are_merged(base: Path, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])
    folders = [make_adapter(base, tmp_path / str(seed), config, seed=seed) for seed in range(2)]
    one, two = modules(*folders)
    name = next(name for name, module in one.items() if module.embedding)
    merged = combine([one, two], MergeSpec(WEIGHTS, "svd", rank=8))[name]
    assert merged.embedding
    torch.testing.assert_close(delta(merged), delta(one[name]) - 0.5 * delta(two[name]), rtol=1e-4, atol=1e-5)


def test_rslora_keeps_its_scale_unlike_in_peft(base: Path, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_rslora=True)
    folders = [make_adapter(base, tmp_path / "one", config), make_lora(tmp_path / "two")]
    one, two = modules(*folders)
    peft_merge = merged_by_peft(base, folders, combination_type="cat")
    for name, module in combine([one, two], MergeSpec(WEIGHTS, "cat")).items():
        total = delta(one[name]) - 0.5 * delta(two[name])
        torch.testing.assert_close(delta(module), total, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(delta_in(peft_merge, name), math.sqrt(8) * total, rtol=1e-4, atol=1e-4)


def test_peft_drops_the_magnitudes_of_a_dora(base: Path, tmp_path: Path):
    """The reason why DoRAs are refused: their merged delta is not the delta of the DoRA."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_dora=True)
    dora = make_adapter(base, tmp_path / "dora", config)
    merged = merged_by_peft(base, [make_lora(tmp_path / "lora", scale=0), dora], combination_type="cat")
    assert not merged.peft_config["merged"].use_dora
    alone = peft.PeftModel.from_pretrained(load(base), dora).merge_and_unload()
    name = "model.layers.0.self_attn.q_proj"
    dora_delta = alone.get_submodule(name).weight - load(base).get_submodule(name).weight
    assert (delta_in(merged, name) + 0.5 * dora_delta).norm() > 0.5 * dora_delta.norm()


def test_random_methods_depend_on_the_seed_alone(adapters: list[Path]):
    parts = modules(*adapters)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (combine(parts, MergeSpec(WEIGHTS, "dare_linear", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(delta(first[name]), delta(again[name])) for name in first)
    assert not any(torch.equal(delta(first[name]), delta(other[name])) for name in first)


def test_cancellation_stops_between_two_modules(adapters: list[Path]):
    done: list[float] = []
    with cancel_scope(lambda: len(done) == 2), pytest.raises(Cancelled):
        combine(modules(*adapters), MergeSpec(WEIGHTS, "cat"), on_module=done.append)
    assert done == [0.25, 0.5]


def test_peft_saves_files_that_do_not_load_if_ranks_vary(base: Path, tmp_path: Path):
    """The reason why methods that combine factors require equal ranks."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2})
    merged = merged_by_peft(
        base, [make_adapter(base, tmp_path / name, config) for name in WEIGHTS], combination_type="linear"
    )
    merged.save_pretrained(tmp_path, selected_adapters=["merged"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(load(base), tmp_path / "merged")


@pytest.mark.parametrize("spec", [MergeSpec(WEIGHTS), MergeSpec(WEIGHTS, "ties"), MergeSpec(WEIGHTS, "svd", rank=3)])
def test_size_of_the_result_is_known_before(adapters: list[Path], spec: MergeSpec):
    parts = modules(*adapters)
    merged = combine(parts, spec).values()
    assert max_result_bytes(parts, spec) == sum(module.a.nbytes + module.b.nbytes for module in merged)
