"""One forward pass of packed prompts, and its trace, which the features read."""

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
from workers.process.cancellation import raise_if_cancelled

MAX_LOGIT_BYTES = 64 * 2**20  # of logits at a time; those of a whole forward pass can be larger than the model


@dataclass(frozen=True, eq=False)
class Trace:
    """The states of one forward pass that features read, float32, in the plan's order of tokens.

    `head` is None if the model has the output head of its base. `notes` are sentences for users about how the model was
    run.
    """

    plan: TokenPlan
    hidden: Tensor  # (T, H), at the plan's layer
    final: Tensor | None  # (T, H), after the final norm; None if the plan ends earlier
    middle: Tensor | None = None  # (T, H), at the plan's middle layer; None if it has none
    head: Head | None = None
    notes: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> int:
        return self._head.vocabulary

    def logits(self, tokens: Tensor) -> Tensor:
        """The logits after M tokens, (M, V)."""
        assert self.final is not None  # a plan for logits runs all layers
        return self._head.logits(self.final[tokens])

    def log_likelihoods(self, continuations: int) -> Tensor:
        """The log-likelihood of each continuation of the plan, (continuations,), in nats."""
        plan = self.plan
        likelihoods = torch.zeros(continuations, device=self.hidden.device)
        step = max(1, MAX_LOGIT_BYTES // (4 * self.vocabulary))
        for start in range(0, len(plan.target), step):
            block = slice(start, start + step)
            logits = self.logits(plan.predictor[block])  # (step, V)
            target_logits = logits.gather(1, plan.target[block, None]).squeeze(1)
            likelihoods.index_add_(0, plan.continuation[block], target_logits - logits.logsumexp(dim=1))
        return likelihoods

    @property
    def _head(self) -> Head:
        assert self.head is not None  # the encoder sets the base's head
        return self.head

    def select(self, plan: TokenPlan, tokens: Tensor) -> Trace:
        """The trace of `plan`, whose tokens are `tokens` of this trace."""
        final, middle = (None if state is None else state[tokens] for state in (self.final, self.middle))
        return Trace(plan, self.hidden[tokens], final, middle, self.head, self.notes)


def join(plan: TokenPlan, parts: Sequence[Trace]) -> Trace:
    """The trace of a plan that was run in parts."""
    if len(parts) == 1:
        return parts[0]
    hidden = torch.cat([part.hidden for part in parts])
    final, middle = _joined(part.final for part in parts), _joined(part.middle for part in parts)
    return Trace(plan, hidden, final, middle, parts[0].head, parts[0].notes)


def _joined(states: Iterable[Tensor | None]) -> Tensor | None:
    present = [state for state in states if state is not None]
    return torch.cat(present) if present else None


def run(model: PreTrainedModel, plan: TokenPlan, models: int) -> list[Trace]:
    """The traces of K models that share the resident weights and differ by the installed hooks.

    Raises `Cancelled` between two layers (`workers.process.cancellation`).
    """
    captured_inputs = _captured_inputs(model, plan)
    with (
        torch.inference_mode(),
        _cancellable(model),
        captured_inputs as captured,
        _last_mlp_on_read_tokens(model, plan, models),
    ):
        try:
            output = model(
                input_ids=plan.ids.repeat(models)[None],
                position_ids=plan.positions.repeat(models)[None],
                use_cache=False,
                packing=Packing(plan, models),
            )
            captured["final"] = output.last_hidden_state
        except _ForwardComplete:
            pass
    states = {name: state.float().view(models, plan.tokens, -1) for name, state in captured.items()}  # (K, T, H)
    hidden = states["hidden"] if "hidden" in states else states["final"]
    final, middle = (states[name] if name in states else [None] * models for name in ("final", "middle"))
    return [Trace(plan, hidden[number], final[number], middle[number]) for number in range(models)]


class _ForwardComplete(Exception):
    """Ends a forward pass after the last layer that is read."""


@contextmanager
def _cancellable(model: PreTrainedModel) -> Iterator[None]:
    """Check for cancellation before each layer."""
    handles = [layer.register_forward_pre_hook(lambda *_: raise_if_cancelled()) for layer in decoder_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _captured_inputs(model: PreTrainedModel, plan: TokenPlan) -> Iterator[dict[str, Tensor]]:
    """Capture the inputs of the plan's layers, which are `hidden_states` at their indices; none for layer -1."""
    captured: dict[str, Tensor] = {}

    def capture_hook(name: str) -> Callable[..., None]:
        def capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured[name] = args[0] if args else kwargs["hidden_states"]
            if not plan.to_end:
                raise _ForwardComplete

        return capture

    layers = {"hidden": None if plan.layer == -1 else plan.layer, "middle": plan.middle}
    handles = [
        decoder_layers(model)[layer].register_forward_pre_hook(capture_hook(name), with_kwargs=True)
        for name, layer in layers.items()
        if layer is not None
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _last_mlp_on_read_tokens(model: PreTrainedModel, plan: TokenPlan, models: int) -> Iterator[None]:
    """Run the last layer's MLP, most of the layer's work, only for tokens whose final states are read.

    Other tokens contribute only keys and values to the last layer, which do not depend on its MLP.
    """
    read_tokens, mlp = plan.read_at_end, getattr(decoder_layers(model)[-1], "mlp", None)
    if read_tokens is None or mlp is None:
        yield
        return
    total = models * plan.tokens
    tokens = torch.cat([read_tokens + plan.tokens * number for number in range(models)])

    def gather(module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        return args[0].view(total, -1)[None, tokens]

    def scatter(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows = output.new_zeros(1, total, output.shape[-1])
        rows[0, tokens] = output[0]
        return rows

    gather_hook, scatter_hook = mlp.register_forward_pre_hook(gather), mlp.register_forward_hook(scatter)
    try:
        yield
    finally:
        gather_hook.remove()
        scatter_hook.remove()


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a model's decoder layers, independent of the architecture's names."""
    count = model.config.get_text_config().num_hidden_layers
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
