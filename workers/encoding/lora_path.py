"""Plain LoRA, several adapters in one forward pass: their deltas run in hooks and leave the base unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import CatalogError, ShapeMismatch, UnsupportedAdapter
from workers.encoding.module_names import TRY_OTHER_BASE, ModuleNames, head_part, submodule
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan
from workers.encoding.trace import Trace
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import FineTune
from workers.finetunes.tensor_names import without_prefixes

Item = TypeVar("Item")
CPU_TOKENS = 768
GPU_TOKENS = 16_384


@dataclass(frozen=True, eq=False)
class LoraPath:
    """Encodes plain LoRA adapters on the resident base."""

    base: ResidentBase

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """One result for each adapter, in order; adapters that do not fit the base are not run."""
        results: dict[int, Trace | CatalogError] = {}
        fitted = []
        for index, finetune in enumerate(finetunes):
            try:
                fitted.append((index, fit(finetune.modules, self.base.model), fit_head(finetune.modules, self.base)))
            except CatalogError as error:
                results[index] = error
        limit = max(1, token_limit(self.base.device) // plan.tokens) if self.base.forward.batches else 1
        for group in _even_groups(fitted, limit):
            with applied(self.base.model, [modules for _, modules, _ in group]):
                traces = self.base.forward.run(plan, len(group))
            for (index, _, head), trace in zip(group, traces, strict=True):
                results[index] = replace(trace, head=self.base.head.with_lora(head)) if head and plan.head else trace
        return [results[index] for index in range(len(finetunes))]


def _even_groups(items: Sequence[Item], limit: int) -> Iterator[Sequence[Item]]:
    """The smallest number of groups that the limit allows, with sizes that differ by at most one."""
    count = -(-len(items) // limit)
    for number in range(count):
        yield items[number * len(items) // count : (number + 1) * len(items) // count]


def token_limit(device: str) -> int:
    """The maximal number of tokens in one forward pass, of all its models together.

    With fewer tokens, reading the weights from memory takes longer than the arithmetic; with more, nothing gets faster,
    and on a CPU the activations no longer fit into its caches (measured: a fifth slower with twice the tokens).
    """
    return CPU_TOKENS if device == "cpu" else GPU_TOKENS


def fit(modules: Mapping[str, LoraModule], model: PreTrainedModel) -> dict[str, LoraModule]:
    """An adapter's modules by their names in the headless base, without those that text prompts do not run.

    Raises `ShapeMismatch` if the base has no such module, or one with other widths; `UnsupportedAdapter` if the module
    is neither a linear layer nor an embedding; and `InvalidAdapterConfig` if a name fits two modules, or two names one.
    """
    names, fitted = ModuleNames(model), {}
    for name, headless_name in names.find_all(modules).items():
        lora, module = modules[name], submodule(model, headless_name)
        base_widths = _widths(headless_name, module)
        if isinstance(module, nn.Embedding) != lora.embedding:
            raise ShapeMismatch(
                f"{name[:120]} is {'not ' if lora.embedding else ''}an embedding in the base. {TRY_OTHER_BASE}"
            )
        if lora.a.ndim != 2 or (lora.a.shape[1], lora.b.shape[0]) != base_widths:
            raise ShapeMismatch(
                f"{name[:120]} maps {base_widths[0]} to {base_widths[1]} dimensions in the base, "
                f"{lora.a.shape[1]} to {lora.b.shape[0]} in the adapter. {TRY_OTHER_BASE}"
            )
        fitted[headless_name] = lora
    return fitted


def names_in_causal_lm(modules: Mapping[str, LoraModule], model: PreTrainedModel) -> dict[str, LoraModule]:
    """An adapter's modules by their names in the causal LM around the headless base.

    Raises `ShapeMismatch` if the base has no such module, `UnsupportedAdapter` for a LoRA of a convolution, and
    `InvalidAdapterConfig` as `fit` does.
    """
    names, renamed = ModuleNames(model), {}
    names.find_all(modules)  # raises for two names of one module
    for name, lora in modules.items():
        if lora.a.ndim != 2:
            raise UnsupportedAdapter(f"{name[:120]} is a convolution, whose LoRA is not merged.")
        renamed[without_prefixes(name) if head_part(name) == "" else names.in_causal_lm(name)] = lora
    return renamed


def fit_head(modules: Mapping[str, LoraModule], base: ResidentBase) -> LoraModule | None:
    """An adapter's module for the output head, which does not affect hidden states. Raises `ShapeMismatch`."""
    lora = next((lora for name, lora in modules.items() if head_part(name) == ""), None)
    if lora is not None and (lora.a.shape[1], lora.b.shape[0]) != (base.hidden_size, base.vocabulary):
        raise ShapeMismatch(
            f"The output head maps {base.hidden_size} to {base.vocabulary} dimensions in the base, "
            f"{lora.a.shape[1]} to {lora.b.shape[0]} in the adapter. {TRY_OTHER_BASE}"
        )
    return lora


@contextmanager
def applied(model: nn.Module, adapters: Sequence[Mapping[str, LoraModule]]) -> Iterator[None]:
    """Within the context, the model's rows are split evenly between K adapters, each of which adds its delta."""
    with ExitStack() as hooks:
        for name in sorted({name for adapter in adapters for name in adapter}):
            adapter_modules = [adapter.get(name) for adapter in adapters]
            handle = model.get_submodule(name).register_forward_hook(_Delta(adapter_modules))
            hooks.callback(handle.remove)
        yield


@dataclass(frozen=True, eq=False)
class _Delta:
    """Forward hook of one module: `y += scale * B A x`, for K adapters at once."""

    adapter_modules: Sequence[LoraModule | None]  # K; None: the adapter does not change the module

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        a, b, scale = self._stack(output)
        models = len(self.adapter_modules)
        if isinstance(module, nn.Embedding):
            ids = args[0].reshape(models, -1)  # (K, T)
            inner = a.transpose(1, 2)[torch.arange(models, device=ids.device)[:, None], ids]  # (K, T, r)
            inner = inner * getattr(module, "embed_scale", 1.0)  # Gemma scales the rows of its embedding
        else:
            inner = torch.bmm(args[0].reshape(models, -1, a.shape[2]).to(a.dtype), a.transpose(1, 2))
        flat = output.view(models, -1, b.shape[1])
        if flat.dtype == b.dtype:
            flat.baddbmm_(inner * scale, b.transpose(1, 2))
        else:  # a reduced dtype on the plain path
            flat.add_(torch.bmm(inner * scale, b.transpose(1, 2)))
        return output

    def _stack(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A (K, r, in), B (K, out, r) and scale (K, 1, 1) in float32, with ranks padded by zeros.

        Computed when the module runs, because a whole adapter in float32 can be larger than its base's layers.
        """
        loras = [lora for lora in self.adapter_modules if lora is not None]
        rank = max(lora.a.shape[0] for lora in loras)
        a = torch.zeros(len(self.adapter_modules), rank, loras[0].a.shape[1], device=output.device)
        b = torch.zeros(len(self.adapter_modules), loras[0].b.shape[0], rank, device=output.device)
        for index, lora in enumerate(self.adapter_modules):
            if lora is not None:
                a[index, : lora.a.shape[0]] = lora.a
                b[index, :, : lora.b.shape[1]] = lora.b
        scales = [0.0 if lora is None else lora.scale for lora in self.adapter_modules]
        return a, b, torch.tensor(scales, device=output.device).view(-1, 1, 1)


def _widths(name: str, module: nn.Module) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, nn.Embedding):
        return module.weight.shape[0], module.weight.shape[1]  # the vocabulary may have been enlarged
    raise UnsupportedAdapter(f"{name[:120]} is a {type(module).__name__}, which LoRA does not support.")
