"""Greedy answers of many fine-tunes: plain LoRAs share a batch, all others take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.encoding.guard import BaseGuard
from workers.encoding.lora_path import applied, fit, fit_head
from workers.encoding.output_head import Head
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import MAX_TOKENS
from workers.evaluation.running import tuned
from workers.finetunes.reading import FineTune

ROWS = 48  # prompts of several models in one batch


def answers(
    finetunes: Sequence[FineTune], base: ResidentBase, guard: BaseGuard, prompts: Sequence[str], length: int
) -> list[list[str]]:
    """What each model answers to each prompt, greedily, up to `length` tokens or its end of text.

    Raises what `tuned` and fitting raise.
    """
    found: dict[int, list[str]] = {}
    # one that changes the output head has a row of logits of its own
    shared = [at for at, each in enumerate(finetunes) if each.path == "lora" and fit_head(each.modules, base) is None]
    step = max(1, ROWS // len(prompts))
    with torch.inference_mode():
        for group in (shared[start : start + step] for start in range(0, len(shared), step)):
            with applied(base.model, [fit(finetunes[at].modules, base.model) for at in group]):
                texts = _generate(base, base.model, base.head, list(prompts) * len(group), length)
            for number, at in enumerate(group):
                found[at] = texts[number * len(prompts) : (number + 1) * len(prompts)]
        for at in sorted(set(range(len(finetunes))) - set(shared)):
            with tuned(finetunes[at], base, guard) as (model, head):
                found[at] = _generate(base, model, head, prompts, length)
    return [found[at] for at in range(len(finetunes))]


def _generate(base: ResidentBase, model: PreTrainedModel, head: Head, prompts: Sequence[str], length: int) -> list[str]:
    """Continuations of the prompts, each the likeliest token after the other."""
    tokenizer = base.tokenizer
    ends: Any = tokenizer.eos_token_id
    ids, mask = _left_padded([tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] for text in prompts])
    ids, mask = ids.to(base.device), mask.to(base.device)
    chosen: list[Tensor] = []
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=base.device)
    cache: Any = None
    with _eager(model):
        for _ in range(length):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            token = head.logits(output.last_hidden_state[:, -1].float()).argmax(dim=1)  # (rows,)
            ended |= token == (-1 if ends is None else ends)
            chosen.append(torch.where(ended, -1, token))
            if ended.all():
                break
            ids, mask = token[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    rows = torch.stack(chosen, dim=1).tolist()
    return [str(tokenizer.decode([token for token in row if token >= 0], skip_special_tokens=True)) for row in rows]


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, (rows, T) each; what fills up stands before, so that all answers begin in one column."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, attention is transformers' own: packed rows have no cache of keys."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
