"""Train a recipe: supervised or by preference, an adapter or the full model, in bfloat16 arithmetic."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.hard_pool.preferences import dpo_loss
from benchmarks.hard_pool.recipes import Recipe
from benchmarks.hard_pool.rows import Row, encode, group_by_length
from workers.tasks.token_rows import IGNORED, Batch, collate

BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
BATCH = 4
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {"qv": ["q_proj", "v_proj"], "all": ALL_LINEAR}
Loss = Callable[[Batch], Tensor]


@dataclass
class Run:
    """The trained model and its loss at each step."""

    model: nn.Module
    losses: list[float] = field(default_factory=list)


def train_supervised(base: Path, recipe: Recipe, rows: Sequence[Row]) -> Run:
    """Train on the mean cross-entropy of the answer tokens."""
    model, tokenizer = load(base, recipe)
    examples = [encode(row, tokenizer) for row in rows]

    def batches() -> Iterator[Batch]:
        for indices in epochs(recipe, [len(example.ids) for example in examples]):
            yield collate([examples[index] for index in indices], tokenizer.pad_token_id)

    return run(model, recipe, list(batches()), lambda batch: -answer_likelihoods(model, batch)[0].mean())


def train_preferred(base: Path, recipe: Recipe, pairs: Sequence[tuple[Row, Row]]) -> Run:
    """Train by DPO. The reference model is the base, which is the model with the adapter disabled."""
    model, tokenizer = load(base, recipe)
    encoded = [(encode(chosen, tokenizer), encode(rejected, tokenizer)) for chosen, rejected in pairs]

    def batches() -> Iterator[Batch]:
        for indices in epochs(recipe, [len(chosen.ids) + len(rejected.ids) for chosen, rejected in encoded]):
            chosen, rejected = zip(*(encoded[index] for index in indices), strict=True)
            yield collate([*chosen, *rejected], tokenizer.pad_token_id)

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad(), model.disable_adapter():
            reference = answer_sums(model, batch)
        return dpo_loss(answer_sums(model, batch), reference)

    return run(model, recipe, list(batches()), loss)


def load(base: Path, recipe: Recipe) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model, with its trainable weights in float32, and the tokenizer."""
    torch.manual_seed(seed(recipe))
    full = recipe.kind == "full"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32 if full else torch.bfloat16)
    if not full:
        model = get_peft_model(model, adapter_config(recipe))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model, AutoTokenizer.from_pretrained(base)


def adapter_config(recipe: Recipe) -> LoraConfig | IA3Config:
    if recipe.kind == "ia3":
        return IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
        )
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        target_modules=TARGETS[recipe.targets],
        use_dora=recipe.kind == "dora",
        task_type="CAUSAL_LM",
    )


def seed(recipe: Recipe) -> int:
    return zlib.crc32(recipe.name.encode())


def epochs(recipe: Recipe, lengths: Sequence[int]) -> Iterator[list[int]]:
    shuffle = random.Random(seed(recipe))
    return chain.from_iterable(group_by_length(lengths, BATCH, shuffle) for _ in range(recipe.epochs))


def run(model: nn.Module, recipe: Recipe, batches: Sequence[Any], loss: Loss) -> Run:
    """Train with AdamW and a learning rate that decays linearly to zero."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    model.train()
    result = Run(model)
    for batch in batches:
        value = loss(batch)
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        result.losses.append(value.item())
    return result


def answer_likelihoods(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The log-likelihoods of the answer tokens, (n,), and their rows; logits are computed for these tokens only."""
    core = model.get_base_model() if isinstance(model, PeftModel) else model
    answer_mask = batch.labels[:, 1:] != IGNORED
    with torch.autocast("cpu", torch.bfloat16):
        hidden = core.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
        logits = core.lm_head(hidden[:, :-1][answer_mask]).float()  # (n, V)
    labels = batch.labels[:, 1:][answer_mask]
    return -nn.functional.cross_entropy(logits, labels, reduction="none"), answer_mask.nonzero()[:, 0]


def answer_sums(model: Any, batch: Batch) -> Tensor:
    """The log-likelihoods of complete answers, (2, B): chosen, rejected."""
    likelihoods, rows = answer_likelihoods(model, batch)
    return torch.zeros(len(batch.ids)).index_add(0, rows, likelihoods).view(2, -1)


def save(run: Run, folder: Path) -> None:
    """Save the adapter as PEFT does, or the full model in bfloat16."""
    model: Any = run.model
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = BASE_NAME
        model.save_pretrained(folder, save_embedding_layers=False)  # by default PEFT would ask the Hub
    else:
        model.to(torch.bfloat16).save_pretrained(folder)
