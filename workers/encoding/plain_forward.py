"""The plain forward pass, which is the published procedure: each prompt alone, in the unmodified model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from catalog.errors import UnsupportedBase
from workers.encoding.decoder import WHAT_TO_DO, main_stream
from workers.encoding.token_plan import PROMPT, TokenPlan
from workers.encoding.trace import Trace
from workers.process.cancellation import raise_if_cancelled

PREFIXES_BY_CONFIG = ("gemma2", "gemma3_text", "gemma4")  # of which PEFT's types of models contain one


@dataclass(frozen=True, eq=False)
class VirtualTokens:
    """V virtual tokens before each prompt: their embeddings, or their keys and values in each layer."""

    embeddings: Tensor | None = None  # (V, H)
    prefix: Tensor | None = None  # (layers, 2, heads, V, D)

    @property
    def count(self) -> int:
        if self.prefix is not None:
            return self.prefix.shape[3]
        return 0 if self.embeddings is None else len(self.embeddings)


NO_TOKENS = VirtualTokens()


def run(model: PreTrainedModel, plan: TokenPlan, virtual: VirtualTokens = NO_TOKENS) -> Trace:
    """The trace of one model. A continuation is run after its prompt, in a sequence of its own.

    Raises `Cancelled` between two sequences, and `UnsupportedBase` if the model gives no hidden states.
    """
    wanted = [-1, *(layer for layer in (plan.layer, plan.middle) if layer not in (None, -1))]
    states: dict[int, Tensor] = {}  # by layer, (T, H)
    for tokens, new in _sequences(plan):
        raise_if_cancelled()
        sequence_states = _hidden_states(model, plan.ids[tokens], virtual)
        for layer in wanted:
            state = _layer(sequence_states, layer, model).float()[-new:]
            states.setdefault(layer, state.new_empty(plan.tokens, state.shape[1]))[tokens[-new:]] = state
    middle = None if plan.middle is None else states[plan.middle]
    return Trace(plan, states[plan.layer], states[-1] if plan.to_end else None, middle)


def _sequences(plan: TokenPlan) -> Iterator[tuple[Tensor, int]]:
    """The tokens of each sequence, and how many of them, at its end, are in no earlier one."""
    for number in range(plan.probes):
        tokens = (plan.probe == number).nonzero().squeeze(1)
        branch = plan.branch[tokens]
        prompt = tokens[branch == PROMPT]
        yield prompt, len(prompt)
        for tail_number in branch[branch != PROMPT].unique().tolist():
            tail = tokens[branch == tail_number]
            yield torch.cat([prompt, tail]), len(tail)


def _hidden_states(model: Any, ids: Tensor, virtual: VirtualTokens) -> tuple[Tensor, ...]:
    """`hidden_states` of one sequence, (1, L, H) each, with the output of the final norm as the last one."""
    inputs: dict[str, Any] = {"input_ids": ids[None]}
    if virtual.embeddings is not None:
        embedded = model.get_input_embeddings()(inputs.pop("input_ids"))
        inputs["inputs_embeds"] = torch.cat([virtual.embeddings[None].to(embedded.dtype), embedded], dim=1)
    if virtual.prefix is not None:
        inputs["past_key_values"] = _cache(virtual.prefix.to(model.dtype), model)
    mask = torch.ones(1, virtual.count + len(ids), dtype=torch.long, device=ids.device)
    with torch.inference_mode():
        output = model(**inputs, attention_mask=mask, use_cache=False, output_hidden_states=True)
    states = getattr(output, "hidden_states", None) or ()
    last = getattr(output, "last_hidden_state", None)
    if last is None and states:  # a class with an output head (Llama 4)
        last = states[-1]
    if last is None or last.ndim != 3 or last.shape[1] < len(ids):
        raise UnsupportedBase(
            f"{model.config.model_type} models give no hidden state for each token of a text, so they cannot be "
            f"measured. {WHAT_TO_DO}"
        )
    return (*(main_stream(state, model)[:, -len(ids) :] for state in states[:-1]), last[:, -len(ids) :])


def _cache(prefix: Tensor, model: Any) -> DynamicCache:
    """The cache that PEFT passes for a prefix, (layers, 2, heads, V, D): it has the config's kinds of layers for Gemma
    alone.
    """
    layers = [(keys[None], values[None]) for keys, values in prefix.unbind(0)]
    if not any(name in model.config.model_type for name in PREFIXES_BY_CONFIG):
        return DynamicCache(layers)
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache


def _layer(states: tuple[Tensor, ...], layer: int, model: PreTrainedModel) -> Tensor:
    """The states of one layer, (L, H)."""
    if layer >= len(states):
        raise UnsupportedBase(
            f"{model.config.model_type} models do not give the hidden states of their layers. Measure them after the "
            "final norm alone, by the feature delta_activations."
        )
    return states[layer][0]
