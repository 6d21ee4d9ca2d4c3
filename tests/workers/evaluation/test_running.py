"""Weight changes of adapters of every kind match those of models merged by PEFT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.errors import UnsupportedAdapter
from tests.support import pico_experts
from tests.support.pico_adapters import publish
from tests.support.pico_models import add_noise, load, load_with, make_base
from workers.encoding.guard import BaseGuard
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.representations.salient_mask import largest_changes
from workers.evaluation.running import weight_changes
from workers.finetunes.reading import read_finetune

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), architecture)


def changes(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    resident = ResidentBase.load(base, "pico", "0")
    return dict(weight_changes(read_finetune(folder), resident, BaseGuard(resident.model)))


def expected(base: Path, tuned: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The changes of the weights that moved, by their names in the headless model."""
    before = dict(load(base).base_model.named_parameters())
    differences = {name: after - before[name] for name, after in tuned.base_model.named_parameters()}
    return {name: change for name, change in differences.items() if change.abs().max() > 1e-5}


@pytest.mark.parametrize("kind", ["lora", "lora_embedding", "dora", "ia3", "modules_to_save", "trained_tokens"])
def test_changes_match_the_merged_model(architecture: str, base: Path, tmp_path: Path, kind: str):
    folder = publish(base, tmp_path / kind, architecture, kind)
    actual = {name: change for name, change in changes(base, folder).items() if change.abs().max() > 1e-5}
    wanted = expected(base, load_with(base, folder).merge_and_unload())
    assert actual.keys() == wanted.keys()
    for name, change in wanted.items():
        torch.testing.assert_close(actual[name], change.detach(), atol=2e-5, rtol=1e-3)


def test_changes_of_experts_match_merged_weights(tmp_path: Path):
    base = pico_experts.make_base(tmp_path / "base", "mixtral")
    merged = pico_experts.publish_by_layer(base, tmp_path / "adapter", lambda module: "block_sparse_moe" in module)
    actual = changes(base, tmp_path / "adapter")
    wanted = expected(base, load(pico_experts.write_merged(base, tmp_path / "merged", merged)))
    assert actual.keys() == wanted.keys()
    for name, change in wanted.items():
        torch.testing.assert_close(actual[name], change.detach(), atol=2e-5, rtol=1e-3)


def test_changes_of_a_full_fine_tune_are_weight_differences(base: Path, tmp_path: Path):
    model = load(base)
    add_noise(model, 3, scale=0.1)
    model.save_pretrained(tmp_path / "full")
    actual, wanted = changes(base, tmp_path / "full"), expected(base, model)
    assert actual.keys() == wanted.keys()
    for name, change in wanted.items():
        torch.testing.assert_close(actual[name], change.detach(), atol=1e-6, rtol=1e-4)


def test_prompt_adapter_is_refused(architecture: str, base: Path, tmp_path: Path):
    with pytest.raises(UnsupportedAdapter, match="changes no weight"):
        changes(base, publish(base, tmp_path / "prompt", architecture, "prompt_tuning"))


def test_largest_changes_do_not_depend_on_the_order_of_the_weights():
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(30, 40, generator=generator) for name in "abcdefgh"}
    starts = {name: 1200 * number for number, name in enumerate(weights)}
    everything = torch.cat([weight.flatten() for weight in weights.values()]).abs().numpy()
    wanted = np.sort(np.argsort(-everything)[:480])
    for names in ("abcdefgh", "hgfedcba"):
        indices, touched = largest_changes(((name, weights[name]) for name in names), starts, 0.05, 500)
        assert indices.tolist() == wanted.tolist()
        assert touched == set(weights)


def test_unchanged_elements_are_never_included():
    change = torch.zeros(10, 10)
    change[2, 3] = -1
    assert largest_changes([("a", change)], {"a": 500}, 0.5, 100)[0].tolist() == [523]
