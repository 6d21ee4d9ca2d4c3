"""Greedy answers of many fine-tunes. Plain LoRA adapters share a batch; all other fine-tunes run one at a time."""

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
from workers.encoding.token_plan import MAX_PROMPT_TOKENS
from workers.evaluation.running import tuned
from workers.finetunes.reading import FineTune

MAX_BATCH_ROWS = 48  # prompts times models


def generate_answers(
    finetunes: Sequence[FineTune], base: ResidentBase, guard: BaseGuard, prompts: Sequence[str], length: int
) -> list[list[str]]:
    """The greedy answer of each model to each prompt, of at most `length` tokens, or up to the end of text.

    Raises what `tuned` and `fit` raise.
    """
    answers: dict[int, list[str]] = {}
    # a batch has one output head, so an adapter that changes the head is not batched
    batched = [
        i
        for i, finetune in enumerate(finetunes)
        if finetune.path == "lora" and fit_head(finetune.modules, base) is None
    ]
    step = max(1, MAX_BATCH_ROWS // len(prompts))
    with torch.inference_mode():
        for batch in (batched[start : start + step] for start in range(0, len(batched), step)):
            with applied(base.model, [fit(finetunes[i].modules, base.model) for i in batch]):
                texts = _generate(base, base.model, base.head, list(prompts) * len(batch), length)
            for number, i in enumerate(batch):
                answers[i] = texts[number * len(prompts) : (number + 1) * len(prompts)]
        for i in sorted(set(range(len(finetunes))) - set(batched)):
            with tuned(finetunes[i], base, guard) as (model, head):
                answers[i] = _generate(base, model, head, prompts, length)
    return [answers[i] for i in range(len(finetunes))]


def _generate(base: ResidentBase, model: PreTrainedModel, head: Head, prompts: Sequence[str], length: int) -> list[str]:
    """Continue each prompt by greedy decoding."""
    tokenizer = base.tokenizer
    eos: Any = tokenizer.eos_token_id
    ids, mask = _left_padded(
        [tokenizer(text, truncation=True, max_length=MAX_PROMPT_TOKENS)["input_ids"] for text in prompts]
    )
    ids, mask = ids.to(base.device), mask.to(base.device)
    tokens: list[Tensor] = []
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=base.device)
    cache: Any = None
    with _eager_attention(model):
        for _ in range(length):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            token = head.logits(output.last_hidden_state[:, -1].float()).argmax(dim=1)  # (rows,)
            ended |= token == (-1 if eos is None else eos)
            tokens.append(torch.where(ended, -1, token))
            if ended.all():
                break
            ids, mask = token[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    rows = torch.stack(tokens, dim=1).tolist()
    return [str(tokenizer.decode([token for token in row if token >= 0], skip_special_tokens=True)) for row in rows]


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, (rows, T) each, padded on the left so that all answers begin in the same column."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use the eager attention of transformers: the attention for packed rows has no KV cache."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
