"""One forward pass of packed prompts, and what it leaves behind for the features to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workers.encoding.output_head import Head
from workers.encoding.packing import Packing
from workers.encoding.token_plan import TokenPlan
from workers.process.cancellation import check


@dataclass(frozen=True, eq=False)
class Trace:
    """What one model's forward left: all that any feature needs, float32, in the plan's order of tokens.

    `head` is None where the model has the output head of its base.
    """

    plan: TokenPlan
    hidden: Tensor  # (T, H), at the plan's layer
    final: Tensor | None  # (T, H), after the final norm; None where the plan does not go to the end
    middle: Tensor | None = None  # (T, H), at the plan's middle layer; None where it has none
    head: Head | None = None

    @property
    def vocabulary(self) -> int:
        return self._head.vocabulary

    def logits(self, tokens: Tensor) -> Tensor:
        """What the model says behind some tokens, (M, V)."""
        assert self.final is not None  # the plan of a feature that reads logits goes to the end
        return self._head.logits(self.final[tokens])

    @property
    def _head(self) -> Head:
        assert self.head is not None  # the encoder fills in the base's
        return self.head

    def select(self, plan: TokenPlan, tokens: Tensor) -> Trace:
        """The trace of a plan whose tokens are some of this one's."""
        final, middle = (None if state is None else state[tokens] for state in (self.final, self.middle))
        return Trace(plan, self.hidden[tokens], final, middle, self.head)


def join(plan: TokenPlan, parts: Sequence[Trace]) -> Trace:
    """The trace of a plan that was run in parts."""
    if len(parts) == 1:
        return parts[0]
    hidden = torch.cat([part.hidden for part in parts])
    return Trace(
        plan, hidden, _joined(part.final for part in parts), _joined(part.middle for part in parts), parts[0].head
    )


def _joined(states: Iterable[Tensor | None]) -> Tensor | None:
    there = [state for state in states if state is not None]
    return torch.cat(there) if there else None


def run(model: PreTrainedModel, plan: TokenPlan, models: int) -> list[Trace]:
    """The traces of K models that share the resident weights and differ by the hooks that are on them now.

    Raises `Stopped` between two layers once the work is given up (`workers.process.cancellation`).
    """
    watched = _watched(model, plan)
    with torch.inference_mode(), _heeding(model), watched as seen, _sparing(model, plan, models):
        try:
            output = model(
                input_ids=plan.ids.repeat(models)[None],
                position_ids=plan.positions.repeat(models)[None],
                use_cache=False,
                packing=Packing(plan, models),
            )
            seen["final"] = output.last_hidden_state
        except _SeenEnough:
            pass
    states = {name: state.float().view(models, plan.tokens, -1) for name, state in seen.items()}  # (K, T, H)
    hidden = states["hidden"] if "hidden" in states else states["final"]
    final, middle = (states[name] if name in states else [None] * models for name in ("final", "middle"))
    return [Trace(plan, hidden[each], final[each], middle[each]) for each in range(models)]


class _SeenEnough(Exception):
    """Ends a forward whose further layers nobody reads."""


@contextmanager
def _heeding(model: PreTrainedModel) -> Iterator[None]:
    """Asks before each layer whether the work is still wanted."""
    handles = [layer.register_forward_pre_hook(lambda *_: check()) for layer in decoder_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watched(model: PreTrainedModel, plan: TokenPlan) -> Iterator[dict[str, Tensor]]:
    """Notes what goes into the plan's layers, which is what `hidden_states` holds at their index; -1 notes nothing."""
    seen: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen[name] = args[0] if args else kwargs["hidden_states"]
            if not plan.to_end:
                raise _SeenEnough

        return note

    wanted = {"hidden": None if plan.layer == -1 else plan.layer, "middle": plan.middle}
    handles = [
        decoder_layers(model)[layer].register_forward_pre_hook(noting(name), with_kwargs=True)
        for name, layer in wanted.items()
        if layer is not None
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _sparing(model: PreTrainedModel, plan: TokenPlan, models: int) -> Iterator[None]:
    """Runs the last layer's MLP, most of the layer's work, for the tokens alone whose final states are read.

    Of all other tokens that layer is asked for keys and values only, which come before its MLP.
    """
    read, mlp = plan.read_at_end, getattr(decoder_layers(model)[-1], "mlp", None)
    if read is None or mlp is None:
        yield
        return
    total = models * plan.tokens
    tokens = torch.cat([read + plan.tokens * each for each in range(models)])

    def gather(module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        return args[0].view(total, -1)[None, tokens]

    def scatter(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows = output.new_zeros(1, total, output.shape[-1])
        rows[0, tokens] = output[0]
        return rows

    before, after = mlp.register_forward_pre_hook(gather), mlp.register_forward_hook(scatter)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a model's layers, whatever its architecture calls it."""
    count = model.config.get_text_config().num_hidden_layers
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
