"""Packed attention: linear layers process every token once and no padding; attention gets one row for each prompt.

The prompts of all models in a batch are concatenated into a single row of K*T tokens, so that linear layers, norms and
activations do no unnecessary work. Only attention needs the boundaries of prompts: it unpacks the row, attends, and
packs the result again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.utils import logging as transformers_logging

from workers.encoding.token_plan import PROMPT, TokenPlan

ATTENTION_NAME = "deltadex_packed"
MAX_BRANCH_TOKENS = 256  # in a row: scores grow with the square, but every row repeats the prompt
PADDING_POSITION = 1 << 40  # later than any other position, and beyond any window


class Packing:
    """The layout of one model's tokens when its prompts are unpacked to N rows of length L.

    A prompt with many branches has several rows, each with the prompt and some of the branches, because branches do not
    attend to each other.
    """

    def __init__(self, plan: TokenPlan, models: int) -> None:
        """`models` (K) is the number of models that read these tokens, one after another in the packed row."""
        rows = _rows(plan)
        device = plan.ids.device
        self.models = models
        self.rows = len(rows)  # N
        self.length = max(len(row) for row in rows)  # L
        # slots are the N*L positions of the rows
        self._token_of_slot = torch.zeros(self.rows * self.length, dtype=torch.long, device=device)
        self._slot_of_token = torch.zeros(plan.tokens, dtype=torch.long, device=device)  # (T,)
        self._positions = torch.full((self.rows, self.length), PADDING_POSITION, device=device)
        self._branches = torch.full((self.rows, self.length), PROMPT, device=device)
        for number in range(self.rows - 1, -1, -1):  # backwards, so that a prompt's tokens are read from its first row
            row, start = rows[number].to(device), number * self.length
            self._token_of_slot[start : start + len(row)] = row
            self._slot_of_token[row] = torch.arange(start, start + len(row), device=device)
            self._positions[number, : len(row)] = plan.positions[row]
            self._branches[number, : len(row)] = plan.branch[row]
        self._max_position = int(plan.positions.max())
        self._biases: dict[int | None, Tensor] = {}
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}

    def unpack(self, x: Tensor) -> Tensor:
        """(1, H, K*T, D) -> (K*N, H, L, D), in one copy."""
        heads, width = x.shape[1], x.shape[3]
        gather_index, _ = self._order(heads)
        # a token's heads are contiguous in the output of a linear layer, so this reshape does not copy
        rows = x.transpose(1, 2).reshape(-1, width).index_select(0, gather_index)
        return rows.view(-1, heads, self.length, width)

    def pack(self, x: Tensor) -> Tensor:
        """(K*N, H, L, D) -> (1, K*T, H, D), in one copy."""
        heads, width = x.shape[1], x.shape[3]
        _, inverse_index = self._order(heads)
        return x.reshape(-1, width).index_select(0, inverse_index).view(1, -1, heads, width)

    def bias(self, window: int | None) -> Tensor:
        """The attention bias, (N, 1, L, L): 0 for visible keys, minus infinity for others.

        A query sees the keys of the prompt and of its own branch at positions up to its own, less than `window` back.
        """
        window = None if window is None or window > self._max_position else window
        if window not in self._biases:
            distance = self._positions[:, :, None] - self._positions[:, None, :]  # (N, L, L)
            key = self._branches[:, None, :]
            visible = (distance >= 0) & ((key == PROMPT) | (key == self._branches[:, :, None]))
            if window is not None:
                visible &= distance < window
            self._biases[window] = _bias(visible)
        return self._biases[window]

    def _order(self, heads: int) -> tuple[Tensor, Tensor]:
        """The (token, head) of every slot and head in the unpacked layout, and the inverse."""
        if heads not in self._orders:
            device = self._slot_of_token.device
            model = torch.arange(self.models, device=device)[:, None, None, None]
            head = torch.arange(heads, device=device)
            token = self._token_of_slot.view(1, self.rows, 1, self.length)
            gather_index = (model * len(self._slot_of_token) + token) * heads + head[:, None]  # (K, N, H, L)
            row, column = (self._slot_of_token // self.length)[:, None], (self._slot_of_token % self.length)[:, None]
            inverse_index = ((model[:, 0] * self.rows + row) * heads + head) * self.length + column  # (K, T, H)
            self._orders[heads] = gather_index.flatten(), inverse_index.flatten()
        return self._orders[heads]


def _bias(visible: Tensor) -> Tensor:
    """(N, L, L) -> (N, 1, L, L)."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -torch.inf)[:, None]


def _rows(plan: TokenPlan) -> list[Tensor]:
    """The tokens of each row."""
    rows = []
    probe, branch = plan.probe.cpu(), plan.branch.cpu()
    for probe_number in range(plan.probes):
        tokens = (probe == probe_number).nonzero().squeeze(1)
        prompt = tokens[branch[tokens] == PROMPT]
        branches = tokens[branch[tokens] != PROMPT].split_with_sizes(_sizes(branch[tokens]))
        row: list[Tensor] = [prompt]
        for tail in branches:
            if sum(map(len, row)) + len(tail) - len(prompt) > MAX_BRANCH_TOKENS and len(row) > 1:
                rows.append(torch.cat(row))
                row = [prompt]
            row.append(tail)
        rows.append(torch.cat(row))
    return rows


def _sizes(branch: Tensor) -> list[int]:
    """Tokens of each branch, in their order."""
    return torch.unique_consecutive(branch[branch != PROMPT], return_counts=True)[1].tolist()


def install(model: PreTrainedModel) -> None:
    """Install packed attention in a model. Classes whose attention cannot be replaced keep their own."""
    use_attention(model, ATTENTION_NAME)


def use_attention(model: PreTrainedModel, name: str) -> None:
    transformers_logging.set_verbosity_error()  # it warns about classes whose attention cannot be replaced
    model.set_attn_implementation(name)


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
    """Causal attention within each prompt, with the signature of transformers' attention interface.

    Queries that share a key head are processed as one longer query, so that keys are not repeated.
    """
    heads, kv_heads, length = query.shape[1], key.shape[1], packing.length
    q, k, v = (packing.unpack(x) for x in (query, key, value))  # (K*N, H, L, D)
    pairs = len(q) * kv_heads
    q, k, v = q.view(pairs, -1, q.shape[3]), k.view(pairs, length, -1), v.view(pairs, length, -1)  # q: (.., G*L, D)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    scores = torch.baddbmm(q.new_zeros(1), q, k.transpose(1, 2), beta=0, alpha=scale)  # (K*N*KV, G*L, L)
    if softcap is not None:  # Gemma 2, arXiv 2408.00118 section 2
        scores.div_(softcap).tanh_().mul_(softcap)
    scores.view(packing.models, packing.rows, heads, length, length).add_(packing.bias(sliding_window))
    output = torch.bmm(scores.softmax(dim=-1), v)
    return packing.pack(output.view(-1, heads, length, v.shape[2])), None


AttentionInterface.register(ATTENTION_NAME, attend)
