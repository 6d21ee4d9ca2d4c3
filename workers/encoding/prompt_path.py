"""Prompt tuning, p-tuning and prefix tuning: virtual tokens before each probe, with the base's weights unchanged.

PEFT stores all three as one matrix with a row for each virtual token. In prompt tuning (arXiv 2104.08691) and p-tuning
(arXiv 2103.10385) a row is the token's embedding. In prefix tuning (arXiv 2101.00190 section 4.2) it is the token's key
and value in every layer; the other states of the virtual token are not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from catalog.errors import CatalogError, InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from catalog.errors.root import first_line
from workers.encoding import packing
from workers.encoding.module_names import TRY_OTHER_BASE
from workers.encoding.plain_forward import VirtualTokens
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import PROMPT, TokenPlan
from workers.encoding.trace import Trace
from workers.finetunes.finetune import FineTune

PREFIX_ATTENTION = "deltadex_prefixed"
TENSOR_NAME = "prompt_embeddings"
MAX_VIRTUAL_TOKENS = 2048  # more than any published prompt has; every probe gets all of them


@dataclass(frozen=True, eq=False)
class PromptPath:
    """Encodes prompts, one at a time."""

    base: ResidentBase

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """One result for each prompt, in order."""
        return [self._trace(finetune, plan) for finetune in finetunes]

    def _trace(self, finetune: FineTune, plan: TokenPlan) -> Trace | CatalogError:
        try:
            return self._run(_virtual_tokens(finetune, self.base), plan)
        except CatalogError as error:
            return error

    def _run(self, virtual: VirtualTokens, plan: TokenPlan) -> Trace:
        forward = self.base.forward
        if forward.is_plain:
            try:
                return forward.run_virtual(plan, virtual)
            except (RuntimeError, ValueError, TypeError, AttributeError) as error:
                if "memory" in str(error):
                    raise
                raise UnsupportedAdapter(
                    f"{self.base.model.config.model_type} models cannot run these virtual tokens "
                    f"({first_line(error)[:200]}). Submit an adapter that changes weights."
                ) from error
        longer = plan_with_virtual(plan, virtual.count)
        with _inserted(self.base.model, virtual, longer.virtual):
            trace = forward.run(longer.plan)[0]
        return trace.select(plan, longer.real)


@dataclass(frozen=True, eq=False)
class LongerPlan:
    """A plan of T + N*V tokens, and the indices of its virtual and real tokens."""

    plan: TokenPlan
    virtual: Tensor  # (N, V)
    real: Tensor  # (T,), in the order of the original plan


def plan_with_virtual(plan: TokenPlan, count: int) -> LongerPlan:
    """Prepend V virtual tokens to every probe; the positions of real tokens grow by V."""
    shift = (plan.probe + 1) * count
    real = torch.arange(plan.tokens, device=plan.ids.device) + shift
    total = plan.tokens + plan.probes * count
    is_virtual = torch.ones(total, dtype=torch.bool, device=real.device)
    is_virtual[real] = False
    virtual = is_virtual.nonzero().view(plan.probes, count)
    ids, positions, probe = (torch.zeros(total, dtype=torch.long, device=real.device) for _ in range(3))
    branch = torch.full((total,), PROMPT, device=real.device)
    ids[real], positions[real], probe[real] = plan.ids, plan.positions + count, plan.probe
    positions[virtual] = torch.arange(count, device=real.device)
    probe[virtual] = torch.arange(plan.probes, device=real.device)[:, None]
    branch[real] = plan.branch
    longer = replace(plan, ids=ids, positions=positions, probe=probe, last=real[plan.last], branch=branch)
    return LongerPlan(longer, virtual, real)


def _inserted(model: PreTrainedModel, tokens: VirtualTokens, virtual: Tensor) -> AbstractContextManager[None]:
    """Within the context, the virtual tokens at the indices `virtual`, (N, V), are those of the prompt."""
    if tokens.prefix is not None:
        return _prefixed(model, tokens.prefix, virtual)
    assert tokens.embeddings is not None  # they have one or the other
    return _embedded(model, tokens.embeddings, virtual)


@contextmanager
def _embedded(model: PreTrainedModel, prompt: Tensor, virtual: Tensor) -> Iterator[None]:
    """Within the context, the virtual tokens' embeddings are the prompt's rows, (V, H)."""

    def replace_embeddings(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        output = output.clone()  # (1, T, H)
        output[0, virtual] = prompt.to(output.dtype)
        return output

    handle = model.get_input_embeddings().register_forward_hook(replace_embeddings)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _prefixed(model: PreTrainedModel, layers: Tensor, virtual: Tensor) -> Iterator[None]:
    """Within the context, the virtual tokens' keys and values are those of the prefix, (layers, 2, heads, V, D)."""

    def pass_prefix(model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "prefix": layers, "virtual": virtual}

    handle = model.register_forward_pre_hook(pass_prefix, with_kwargs=True)
    original_attention = model.config._attn_implementation
    try:
        model.set_attn_implementation(PREFIX_ATTENTION)
        yield
    finally:
        model.set_attn_implementation(original_attention)
        handle.remove()


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,  # (1, H, T, D)
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    prefix: Tensor,
    virtual: Tensor,
    **options: Any,
) -> tuple[Tensor, None]:
    keys, values = prefix[module.layer_idx]  # (H, V, D) each
    if (key.shape[1], key.shape[3]) != (keys.shape[0], keys.shape[2]):
        raise ShapeMismatch(
            f"The prefix has {keys.shape[0]} heads of {keys.shape[2]}, the base {key.shape[1]} of {key.shape[3]}. "
            f"{TRY_OTHER_BASE}"
        )
    key, value = key.clone(), value.clone()
    # (H, V, D) -> (H, N, V, D): every probe has the same prefix
    key[0, :, virtual] = keys[:, None].to(key.dtype)
    value[0, :, virtual] = values[:, None].to(value.dtype)
    return packing.attend(module, query, key, value, attention_mask, **options)


def _virtual_tokens(finetune: FineTune, base: ResidentBase) -> VirtualTokens:
    """Raises `InvalidAdapterConfig`, `UnsupportedAdapter`, `ShapeMismatch`."""
    prompt = _prompt(finetune).to(base.device, torch.float32)  # (V, d)
    if finetune.config["peft_type"] != "PREFIX_TUNING":
        if prompt.shape[1] != base.hidden_size:
            raise ShapeMismatch(
                f"The prompt's embeddings have {prompt.shape[1]} dimensions, the base's {base.hidden_size}. "
                f"{TRY_OTHER_BASE}"
            )
        return VirtualTokens(embeddings=prompt)
    heads = _positive_integer(finetune.config, "num_attention_heads")
    width = prompt.shape[1] // (2 * base.layers)  # of the keys of all heads
    if width * 2 * base.layers != prompt.shape[1] or width % heads:
        raise ShapeMismatch(
            f"{prompt.shape[1]} values per token are not the keys and values of {base.layers} layers. {TRY_OTHER_BASE}"
        )
    layers = prompt.view(len(prompt), base.layers, 2, heads, width // heads)
    return VirtualTokens(prefix=layers.permute(1, 2, 3, 0, 4))


def _prompt(finetune: FineTune) -> Tensor:
    """Raises `InvalidAdapterConfig`, `UnsupportedAdapter`."""
    prompt = finetune.tensors.get(TENSOR_NAME)
    if prompt is None or len(finetune.tensors) > 1 or prompt.ndim != 2 or not prompt.is_floating_point():
        raise InvalidAdapterConfig(f"A {finetune.kind} adapter must have one matrix {TENSOR_NAME} and no other tensor.")
    if (finetune.config.get("num_transformer_submodules") or 1) != 1:
        raise UnsupportedAdapter("The prompt was trained for a model with an encoder and a decoder.")
    if _positive_integer(finetune.config, "num_virtual_tokens") != len(prompt) or not len(prompt):
        raise InvalidAdapterConfig(f"The config's number of virtual tokens differs from the prompt's: {len(prompt)}.")
    if len(prompt) > MAX_VIRTUAL_TOKENS:
        raise UnsupportedAdapter(f"The prompt has {len(prompt):,} virtual tokens; the limit is {MAX_VIRTUAL_TOKENS:,}.")
    return prompt


def _positive_integer(config: Any, name: str) -> int:
    value = config.get(name)
    if type(value) is not int or value < 1:
        raise InvalidAdapterConfig(f"{name} is {str(value)[:40]}; it must be a positive integer.")
    return value


AttentionInterface.register(PREFIX_ATTENTION, _attend)
