"""Attention over packed rows: linear layers see every token once and no padding, attention sees one row a prompt.

The models of a batch and their prompts lie behind one another in a single row of K*T tokens, so that every linear
layer, norm and activation does exactly the work that the prompts ask for. Only attention needs to know where one
prompt ends; it spreads the row out, attends, and packs it again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from catalog.errors import UnsupportedBase
from workers.encoding.token_plan import PROMPT, TokenPlan

NAME = "deltadex_packed"
ROW_TOKENS = 256  # of branches beside one another: scores grow with the square, and the prompt comes once a row
OUT_OF_SIGHT = 1 << 40  # a position behind all others, and no window reaches back from it


class Packing:
    """Where the tokens of one model go when its prompts are spread out to N rows of L. A prompt with many branches has
    several rows, for branches do not see each other: each holds the prompt and some of them.
    """

    def __init__(self, plan: TokenPlan, models: int) -> None:
        """`models` (K) read the same tokens, one model behind the other."""
        rows = _rows(plan)
        device = plan.ids.device
        self.models = models
        self.rows = len(rows)  # N
        self.length = max(len(row) for row in rows)  # L
        self._token = torch.zeros(self.rows * self.length, dtype=torch.long, device=device)  # the token at each place
        self._place = torch.zeros(plan.tokens, dtype=torch.long, device=device)  # (T,), where each token is attended to
        self._positions = torch.full((self.rows, self.length), OUT_OF_SIGHT, device=device)
        self._branches = torch.full((self.rows, self.length), PROMPT, device=device)
        for number in range(self.rows - 1, -1, -1):  # of a prompt's rows the first is where its own tokens are read
            row, start = rows[number].to(device), number * self.length
            self._token[start : start + len(row)] = row
            self._place[row] = torch.arange(start, start + len(row), device=device)
            self._positions[number, : len(row)] = plan.positions[row]
            self._branches[number, : len(row)] = plan.branch[row]
        self._reach = int(plan.positions.max())
        self._biases: dict[int | None, Tensor] = {}
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}

    def spread(self, x: Tensor) -> Tensor:
        """(1, H, K*T, D) -> (K*N, H, L, D), in one copy."""
        heads, width = x.shape[1], x.shape[3]
        there, _ = self._order(heads)
        # a token's heads lie together in what a linear layer gave, and so this reshape copies nothing
        rows = x.transpose(1, 2).reshape(-1, width).index_select(0, there)
        return rows.view(-1, heads, self.length, width)

    def pack(self, x: Tensor) -> Tensor:
        """(K*N, H, L, D) -> (1, K*T, H, D), in one copy."""
        heads, width = x.shape[1], x.shape[3]
        _, back = self._order(heads)
        return x.reshape(-1, width).index_select(0, back).view(1, -1, heads, width)

    def bias(self, window: int | None) -> Tensor:
        """What is added to the scores, (N, 1, L, L): 0 where a query may look, minus infinity elsewhere.

        It sees what stands no later on the prompt or on its own branch, and less than `window` back.
        """
        window = None if window is None or window > self._reach else window
        if window not in self._biases:
            back = self._positions[:, :, None] - self._positions[:, None, :]  # (N, L, L)
            key = self._branches[:, None, :]
            seen = (back >= 0) & ((key == PROMPT) | (key == self._branches[:, :, None]))
            if window is not None:
                seen &= back < window
            self._biases[window] = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -torch.inf)[:, None]
        return self._biases[window]

    def _order(self, heads: int) -> tuple[Tensor, Tensor]:
        """For every place of the spread layout the (token, head) that goes there, and the other way round."""
        if heads not in self._orders:
            device = self._place.device
            model = torch.arange(self.models, device=device)[:, None, None, None]
            head = torch.arange(heads, device=device)
            token = self._token.view(1, self.rows, 1, self.length)
            there = (model * len(self._place) + token) * heads + head[:, None]  # (K, N, H, L)
            row, column = (self._place // self.length)[:, None], (self._place % self.length)[:, None]
            back = ((model[:, 0] * self.rows + row) * heads + head) * self.length + column  # (K, T, H)
            self._orders[heads] = there.flatten(), back.flatten()
        return self._orders[heads]


def _rows(plan: TokenPlan) -> list[Tensor]:
    """The tokens of each row."""
    rows = []
    probe, branch = plan.probe.cpu(), plan.branch.cpu()
    for each in range(plan.probes):
        own = (probe == each).nonzero().squeeze(1)
        prompt = own[branch[own] == PROMPT]
        branches = own[branch[own] != PROMPT].split_with_sizes(_sizes(branch[own]))
        held: list[Tensor] = [prompt]
        for tail in branches:
            if sum(map(len, held)) + len(tail) - len(prompt) > ROW_TOKENS and len(held) > 1:
                rows.append(torch.cat(held))
                held = [prompt]
            held.append(tail)
        rows.append(torch.cat(held))
    return rows


def _sizes(branch: Tensor) -> list[int]:
    """Tokens of each branch, in their order."""
    return torch.unique_consecutive(branch[branch != PROMPT], return_counts=True)[1].tolist()


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
    """Causal attention within each prompt, with the signature of transformers' attention interface.

    The queries that share a key head are attended to as one longer query, so that keys are never repeated.
    """
    heads, kv_heads, length = query.shape[1], key.shape[1], packing.length
    q, k, v = (packing.spread(x) for x in (query, key, value))  # (K*N, H, L, D)
    pairs = len(q) * kv_heads
    q, k, v = q.view(pairs, -1, q.shape[3]), k.view(pairs, length, -1), v.view(pairs, length, -1)  # q: (.., G*L, D)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    scores = torch.baddbmm(q.new_zeros(1), q, k.transpose(1, 2), beta=0, alpha=scale)  # (K*N*KV, G*L, L)
    if softcap is not None:  # Gemma 2, arXiv 2408.00118 section 2
        scores.div_(softcap).tanh_().mul_(softcap)
    scores.view(packing.models, packing.rows, heads, length, length).add_(packing.bias(sliding_window))
    output = torch.bmm(scores.softmax(dim=-1), v)
    return packing.pack(output.view(-1, heads, length, v.shape[2])), None


AttentionInterface.register(NAME, attend)
