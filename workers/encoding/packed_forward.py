"""The packed forward pass: the prompts of several models in one row of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workers.encoding.decoder import decoder_layers, main_stream
from workers.encoding.packing import Packing
from workers.encoding.token_plan import TokenPlan
from workers.encoding.trace import Trace
from workers.process.cancellation import raise_if_cancelled


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
        def capture(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured[name] = main_stream(args[0] if args else kwargs["hidden_states"], model)
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
