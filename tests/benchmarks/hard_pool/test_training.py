"""Every kind of recipe trains on a base of two layers, is saved and can be encoded."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.hard_pool import __main__
from benchmarks.hard_pool.recipes import Recipe
from benchmarks.hard_pool.rows import Row, encode, group_by_length
from benchmarks.hard_pool.training import answer_likelihoods, load, train_preferred, train_supervised
from tests.support import pico
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune
from workers.tasks.token_rows import IGNORED, collate

ROWS = [Row("Add.", f"{number} + 1", str(number + 1)) for number in range(8)]
LORA = Recipe("math-1", "math", "lora", 2, "qv", 1e-3, 0, 8, 1)
KINDS = (
    LORA,
    replace(LORA, targets="all"),
    replace(LORA, kind="dora"),
    replace(LORA, kind="ia3", rank=0, targets="ia3"),
    replace(LORA, kind="full", rank=0, targets="full"),
    replace(LORA, kind="dpo"),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.make_base(tmp_path_factory.mktemp("base"))


def polite(row: Row) -> Row:
    return replace(row, output=f"Thank you! {row.output}")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses a deprecated name of transformers
@pytest.mark.parametrize("recipe", KINDS, ids=lambda recipe: f"{recipe.kind}-{recipe.targets}")
def test_every_kind_moves_the_base_in_two_steps(
    recipe: Recipe, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(recipe: Recipe, base: Path, data: Path):
        if recipe.kind == "dpo":
            return train_preferred(base, recipe, [(row, polite(row)) for row in ROWS])
        return train_supervised(base, recipe, ROWS)

    monkeypatch.setattr(__main__, "train", train)
    __main__.train_and_save(recipe, base, tmp_path, tmp_path)

    report = json.loads((tmp_path / recipe.name / "training.json").read_text())
    [encoding] = encoder(base).encode([read_finetune(tmp_path / recipe.name)])
    assert report["steps"] == 2
    assert encoding.norms["delta_activations"] > 1e-4


def encoder(base: Path) -> Encoder:
    from catalog.spaces.probes import load_probes

    return Encoder(ResidentBase.load(base, pico.BASE_ID, "0" * 40), load_probes())


def test_loss_covers_only_the_answer():
    tokenizer = pico.byte_tokenizer()
    example = encode(ROWS[0], tokenizer)
    batch = collate([example], tokenizer.pad_token_id)
    kept = batch.labels[0][batch.labels[0] != IGNORED].tolist()
    assert kept == [*tokenizer("1")["input_ids"], tokenizer.eos_token_id]


def test_long_input_is_truncated_and_the_answer_is_kept():
    tokenizer = pico.byte_tokenizer()
    long, short = (encode(replace(ROWS[0], input="x" * length), tokenizer) for length in (4000, 8))
    assert len(long.ids) == len(short.ids)
    assert long.ids[long.prompt_length :] == short.ids[short.prompt_length :]


def test_padding_does_not_change_likelihoods(base: Path):
    model, tokenizer = load(base, replace(LORA, kind="full"))
    short, long = encode(ROWS[0], tokenizer), encode(polite(ROWS[1]), tokenizer)
    with torch.no_grad():
        unpadded, _ = answer_likelihoods(model, collate([short], tokenizer.pad_token_id))
        batched, rows = answer_likelihoods(model, collate([short, long], tokenizer.pad_token_id))
    torch.testing.assert_close(batched[rows == 0], unpadded, rtol=2e-2, atol=2e-2)


def test_epoch_has_every_row_once_in_batches_of_similar_length():
    lengths = [5, 50, 6, 51, 7, 52, 8, 53]
    groups = group_by_length(lengths, 4, random.Random(0))
    assert sorted(index for group in groups for index in group) == list(range(8))
    assert all(max(lengths[index] for index in group) < 2 * min(lengths[index] for index in group) for group in groups)


def test_finished_or_locked_recipes_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[str] = []
    monkeypatch.setattr(__main__, "recipes", lambda: [LORA, replace(LORA, name="math-2"), replace(LORA, name="math-3")])
    monkeypatch.setattr(__main__, "train_and_save", lambda recipe, *folders: trained.append(recipe.name))
    (tmp_path / "math-1").mkdir()
    with __main__.try_lock(tmp_path / ".math-2.lock"):
        __main__.main(tmp_path, tmp_path, tmp_path, threads=torch.get_num_threads())
    assert trained == ["math-3"]
