"""Attention over packed rows: linear layers see every token once and no padding, attention sees one row a prompt.

The models of a batch and their prompts lie behind one another in a single row of K*T tokens, so that every linear
layer, norm and activation does exactly the work that the prompts ask for. Only attention needs to know where one
prompt ends; it spreads the row out, attends, and packs it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from catalog.errors import UnsupportedBase
from workers.encoding.prompts import TokenPlan

NAME = "deltadex_packed"
OUT_OF_SIGHT = 1 << 40  # a position behind all others, and no window reaches back from it


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the tokens of one model go when its N prompts are spread out to rows of L."""

    models: int  # K
    length: int  # L
    spread: Tensor  # (N*L,), the token at each place; padding repeats the first token, behind what anyone reads
    pack: Tensor  # (T,), the place of each token
    mask: Tensor | None  # (N, 1, L, L), True where a query may look; None where causality says it all
    positions: Tensor  # (N, L); of padding: out of every prompt's sight
    reach: int  # the highest position of any token

    @property
    def rows(self) -> int:
        return len(self.positions)


def pack(plan: TokenPlan, models: int) -> Packing:
    """The layout for K models that read the same tokens."""
    counts = torch.bincount(plan.probe)
    length, rows = int(counts.max()), len(counts)
    column = torch.cat([torch.arange(int(count)) for count in counts]).to(plan.probe.device)
    place = plan.probe * length + column
    spread = torch.zeros(rows * length, dtype=torch.long, device=place.device)
    spread[place] = torch.arange(plan.tokens, device=place.device)
    reach = int(plan.positions.max())
    positions = torch.full((rows * length,), OUT_OF_SIGHT, device=place.device)
    positions[place] = plan.positions
    return Packing(models, length, spread, place, None, positions.view(rows, length), reach)


def install(model: PreTrainedModel) -> None:
    """Makes packed attention the model's own; raises `UnsupportedBase` where its code computes attention otherwise."""
    if not model._supports_attention_backend:
        raise UnsupportedBase(f"{model.config.model_type} models do not let their attention be replaced.")
    model.set_attn_implementation(NAME)


def attend(
    module: nn.Module,
    query: Tensor,  # (1, H, K*T, D)
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each prompt, with the signature of transformers' attention interface."""
    query, key, value = (_spread(x, packing) for x in (query, key, value))  # (K*N, H, L, D)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    mask = _window(packing, sliding_window)
    if mask is not None and packing.models > 1:
        mask = mask.repeat(packing.models, 1, 1, 1)
    if softcap is None:
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
        )
    else:
        output = _capped(query, key, value, mask, scaling, softcap)
    rows = output.transpose(1, 2).reshape(packing.models, packing.rows * packing.length, -1)
    packed = rows.index_select(1, packing.pack)  # (K, T, H*D)
    return packed.view(1, -1, output.shape[1], output.shape[3]), None


def _spread(x: Tensor, packing: Packing) -> Tensor:
    heads, width = x.shape[1], x.shape[3]
    tokens = x.transpose(1, 2).reshape(packing.models, -1, heads * width)  # (K, T, H*D)
    rows = tokens.index_select(1, packing.spread)
    return rows.view(-1, packing.length, heads, width).transpose(1, 2)


def _window(packing: Packing, sliding_window: int | None) -> Tensor | None:
    """The mask of a layer that looks back no further than its window, which reaches from a token over itself."""
    if sliding_window is None or sliding_window > packing.reach:
        return packing.mask
    back = packing.positions[:, :, None] - packing.positions[:, None, :]  # (N, L, L)
    near = ((back >= 0) & (back < sliding_window))[:, None]
    near = near | torch.eye(packing.length, dtype=torch.bool, device=near.device)  # padding sees at least itself
    return near if packing.mask is None else near & packing.mask


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """Scores through a soft cap before the softmax (Gemma 2, arXiv 2408.00118 section 2)."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ value


AttentionInterface.register(NAME, attend)
