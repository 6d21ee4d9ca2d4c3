"""Plain LoRA, several adapters in one forward: their deltas run in hooks, and the base stays what it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from catalog.errors import CatalogError, ShapeMismatch, UnsupportedAdapter
from workers.encoding.output_head import NAMES as HEADS
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan
from workers.encoding.trace import Trace, run
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import FineTune

Item = TypeVar("Item")
CPU_TOKENS = 768
GPU_TOKENS = 16_384


@dataclass(frozen=True, eq=False)
class LoraPath:
    """Encodes plain LoRA adapters on the resident base."""

    base: ResidentBase

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """One result an adapter, in order; those that do not fit the base are left out of the forward."""
        results: dict[int, Trace | CatalogError] = {}
        fitted = []
        for place, finetune in enumerate(finetunes):
            try:
                fitted.append((place, fit(finetune.modules, self.base.model), fit_head(finetune.modules, self.base)))
            except CatalogError as error:
                results[place] = error
        for group in _evenly(fitted, max(1, token_limit(self.base.device) // plan.tokens)):
            with applied(self.base.model, [modules for _, modules, _ in group]):
                traces = run(self.base.model, plan, len(group))
            for (place, _, head), trace in zip(group, traces, strict=True):
                results[place] = replace(trace, head=self.base.head.with_lora(head)) if head and plan.head else trace
        return [results[place] for place in range(len(finetunes))]


def _evenly(items: Sequence[Item], limit: int) -> Iterator[Sequence[Item]]:
    """As few groups as the limit allows, of sizes that differ by one at most."""
    groups = -(-len(items) // limit)
    for number in range(groups):
        yield items[number * len(items) // groups : (number + 1) * len(items) // groups]


def token_limit(device: str) -> int:
    """How many tokens of several models share a forward.

    Below it, reading the weights from memory takes longer than computing with them; beyond it nothing gets faster, and
    on a CPU the activations drop out of its caches (a fifth slower with twice the tokens, measured).
    """
    return CPU_TOKENS if device == "cpu" else GPU_TOKENS


def fit(modules: Mapping[str, LoraModule], model: nn.Module) -> dict[str, LoraModule]:
    """An adapter's modules by their names in the headless base.

    Raises `ShapeMismatch` where the base has no such module or one of other widths, `UnsupportedAdapter` where the
    module is no linear layer or embedding.
    """
    fitted = {}
    for name, lora in modules.items():
        if name in HEADS:
            continue
        place, module = _find(name, model)
        wanted = _widths(place, module)
        if isinstance(module, nn.Embedding) != lora.embedding:
            raise ShapeMismatch(f"{name[:120]} is {'no' if lora.embedding else 'an'} embedding in the base.")
        if (lora.a.shape[1], lora.b.shape[0]) != wanted:
            raise ShapeMismatch(
                f"{name[:120]} is {wanted[0]} to {wanted[1]} wide in the base, "
                f"{lora.a.shape[1]} to {lora.b.shape[0]} in the adapter."
            )
        fitted[place] = lora
    return fitted


def names_in_causal_lm(modules: Mapping[str, LoraModule], model: nn.Module) -> dict[str, LoraModule]:
    """An adapter's modules by their names in a causal LM around the headless base, where one that was trained on the
    headless base has them without the prefix. Raises `ShapeMismatch` where the base has no such module.
    """
    return {name if name in HEADS else _whole(name, model): lora for name, lora in modules.items()}


def fit_head(modules: Mapping[str, LoraModule], base: ResidentBase) -> LoraModule | None:
    """An adapter's change of the output head, which hidden states do not see; raises `ShapeMismatch`."""
    lora = next((modules[name] for name in HEADS if name in modules), None)
    if lora is not None and (lora.a.shape[1], lora.b.shape[0]) != (base.hidden_size, base.vocabulary):
        raise ShapeMismatch(
            f"The output head leads from {base.hidden_size} to {base.vocabulary} in the base, "
            f"from {lora.a.shape[1]} to {lora.b.shape[0]} in the adapter."
        )
    return lora


@contextmanager
def applied(model: nn.Module, adapters: Sequence[Mapping[str, LoraModule]]) -> Iterator[None]:
    """While it lasts, the model's rows are split evenly between K adapters, each of which adds its own delta."""
    with ExitStack() as hooks:
        for name in sorted({name for adapter in adapters for name in adapter}):
            parts = [adapter.get(name) for adapter in adapters]
            handle = model.get_submodule(name).register_forward_hook(_Delta(parts))
            hooks.callback(handle.remove)
        yield


@dataclass(frozen=True, eq=False)
class _Delta:
    """Forward hook of one module: `y += scale * B A x`, for K adapters at once."""

    parts: Sequence[LoraModule | None]  # K; None: that adapter leaves the module alone

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        a, b, scale = self._stack(output)
        models = len(self.parts)
        if isinstance(module, nn.Embedding):
            ids = args[0].reshape(models, -1)  # (K, T)
            inner = a.transpose(1, 2)[torch.arange(models, device=ids.device)[:, None], ids]  # (K, T, r)
            inner = inner * getattr(module, "embed_scale", 1.0)  # Gemma's embeddings scale what they look up
        else:
            inner = torch.bmm(args[0].reshape(models, -1, a.shape[2]).to(a.dtype), a.transpose(1, 2))
        flat = output.view(models, -1, b.shape[1])
        flat.baddbmm_(inner * scale, b.transpose(1, 2))
        return output

    def _stack(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A (K, r, in), B (K, out, r) and scale (K, 1, 1) in float32, ranks filled up with zeros.

        Made when the module runs, not before: a whole adapter in float32 can be larger than its base's layers.
        """
        present = [part for part in self.parts if part is not None]
        rank = max(part.a.shape[0] for part in present)
        a = torch.zeros(len(self.parts), rank, present[0].a.shape[1], device=output.device)
        b = torch.zeros(len(self.parts), present[0].b.shape[0], rank, device=output.device)
        for place, part in enumerate(self.parts):
            if part is not None:
                a[place, : part.a.shape[0]] = part.a
                b[place, :, : part.b.shape[1]] = part.b
        scales = [0.0 if part is None else part.scale for part in self.parts]
        return a, b, torch.tensor(scales, device=output.device).view(-1, 1, 1)


def _find(name: str, model: nn.Module) -> tuple[str, nn.Module]:
    """A module by the name that it has in a causal LM, of which the headless base is one part."""
    prefixes = ("", f"{model.base_model_prefix}.", "model.")
    for prefix in prefixes:
        if name.startswith(prefix):
            try:
                return name.removeprefix(prefix), model.get_submodule(name.removeprefix(prefix))
            except AttributeError:
                continue
    raise ShapeMismatch(f"The base has no module {name[:120]}.")


def _whole(name: str, model: nn.Module) -> str:
    place, _ = _find(name, model)
    return f"{model.base_model_prefix}.{name}" if place == name else name


def _widths(name: str, module: nn.Module) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, nn.Embedding):
        return module.weight.shape[0], module.weight.shape[1]  # an enlarged vocabulary may stand in for its own
    raise UnsupportedAdapter(f"{name[:120]} is a {type(module).__name__}, on which no LoRA can run.")
