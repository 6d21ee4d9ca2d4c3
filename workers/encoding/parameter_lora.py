"""Low-rank changes of parameters that are not the weight of a linear layer: stacked experts, and routers.

An adapter names them in one of three ways. PEFT's `target_parameters` (developer_guides/lora, "targeting nn.Parameter
directly") names the module that owns the parameters; the pairs of further parameters are nested in `base_layer`.
transformers 4 had a linear layer for each expert and for the router. Other versions had other names. transformers' own
table of conversions from files to models says where the weight of such a layer is now, so its change is there, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)
from transformers.pytorch_utils import Conv1D

from catalog.errors import InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from workers.encoding.module_names import TRY_OTHER_BASE, no_module
from workers.finetunes.finetune import FineTune
from workers.finetunes.lora_config import LoraModule, check_alpha, check_pair, check_rank, scaling
from workers.finetunes.module_patterns import ModulePatterns

NESTED = ".base_layer"  # PEFT wraps a module once for each of its parameters
_EXPERT = re.compile(r"(?P<stack>.+\.experts)\.(?P<number>\d+)\.(?P<layer>.+)")
_CODE_OF_TRANSFORMERS = "transformers.models."


@dataclass(frozen=True)
class Place:
    """Where the weight of an adapter's module is in the base: a parameter, one expert's matrix in a stack of them, or
    one of the `parts` of that matrix, which are joined along its outputs.
    """

    parameter: str
    expert: int | None = None
    part: int = 0
    parts: int = 1

    @property
    def whole(self) -> bool:
        return self.expert is None and self.parts == 1


@dataclass(frozen=True)
class ParameterLora:
    """A low-rank change of the matrices at a place. Without an expert's number, a stack of E has the factors of all its
    experts: `a` (E r, in) by expert, and `b` (out, r E) by rank. `magnitude` is that of DoRA.
    """

    place: Place
    lora: LoraModule
    magnitude: Tensor | None = None  # (out,)

    def factors(self, experts: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The number, A (r, in) and B (out, r) of each expert that is changed."""
        a, b = self.lora.a, self.lora.b
        if self.place.expert is not None:
            yield self.place.expert, a, b
            return
        for expert in range(experts):
            yield expert, a.view(experts, -1, a.shape[1])[expert], b.view(len(b), -1, experts)[:, :, expert]


@dataclass(frozen=True)
class LowRankPairs:
    """An adapter's low-rank pairs by what they change: plain layers and parameters, by their names in the base."""

    layers: dict[str, LoraModule] = field(default_factory=dict)
    parameters: dict[str, list[ParameterLora]] = field(default_factory=dict)
    layer_names: dict[str, str] = field(default_factory=dict)  # of the former, by the adapter's names of its modules
    of_parameters: set[str] = field(default_factory=set)  # the adapter's names of the modules of the latter


class ParameterNames:
    """The parameters of a headless base by the names of modules in an adapter."""

    def __init__(self, model: PreTrainedModel, targets: Iterable[str]) -> None:
        """`targets` are PEFT's target_parameters: untrusted, and any number of names, which may match nothing."""
        self.model = model
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._targets = frozenset(targets)
        self._renamed = cache(self._rename)

    def layer(self, name: str) -> nn.Module | None:
        """The plain layer of a name, whose output is a linear function of its input or of looked up rows."""
        module = self._module(name)
        # a router that derives from nn.Linear has a forward of its own, which returns more than the product
        own_forward = isinstance(module, nn.Linear) and type(module).__module__.startswith(_CODE_OF_TRANSFORMERS)
        return module if isinstance(module, nn.Linear | nn.Embedding | Conv1D) and not own_forward else None

    def place(self, name: str, depth: int = 0, pairs: int = 1) -> Place:
        """The place of a module's pair. `depth` counts its nested wrappers; the module has `pairs` pairs in the file.

        Raises `InvalidAdapterConfig`, `ShapeMismatch`.
        """
        if self.layer(name) is not None:
            return Place(f"{name}.weight")
        if own := self._own_parameters(name):
            # PEFT wraps a module's parameters in the order in which the module lists them, the last outermost
            parameters = [parameter for parameter in own if self._targeted(parameter)] or own
            if len(parameters) != pairs or depth >= pairs:
                raise InvalidAdapterConfig(
                    f"The file has {pairs} low-rank pairs of {name[:120]}: target_parameters in adapter_config.json "
                    f"must name as many of its parameters, which are {', '.join(own)[:200]}."
                )
            return Place(parameters[pairs - 1 - depth])
        if name in self._parameters:
            return Place(name)
        if expert := _EXPERT.fullmatch(name):
            place = self._renamed(f"{expert['stack']}.0.{expert['layer']}.weight")
            if place is not None and int(expert["number"]) < len(self._parameters[place.parameter]):
                return replace(place, expert=int(expert["number"]))
        elif (place := self._renamed(f"{name}.weight")) is not None:
            return place
        raise no_module(self.model, name)

    def target(self, owner: str, place: Place) -> str | None:
        """The name in its module of a parameter that target_parameters name; None if the adapter targets a module."""
        if self._targeted(f"{owner}.weight"):  # also the name that a parameter had in another version
            return "weight"
        return place.parameter.rpartition(".")[2] if self._targeted(place.parameter) else None

    def weight(self, name: str) -> str | None:
        """The parameter that has the weight of this name, also by the name in another version of transformers."""
        if name in self._parameters:
            return name
        place = None if _EXPERT.match(name) else self._renamed(name)
        return place.parameter if place is not None and place.whole else None

    def _targeted(self, parameter: str) -> bool:
        """PEFT's rule: by its full name in the causal LM, or the end of it."""
        name = f"{self.model.base_model_prefix}.{parameter}"
        while name:
            if name in self._targets:
                return True
            name = name.partition(".")[2]
        return False

    def _module(self, name: str) -> nn.Module | None:
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            return None

    def _own_parameters(self, name: str) -> list[str]:
        module = self._module(name)
        own = () if module is None else module.named_parameters(recurse=False)
        return [f"{name}.{parameter_name}" for parameter_name, parameter in own if parameter.ndim in (2, 3)]

    def _rename(self, name: str) -> Place | None:
        """The place of the weight that has this name in a file, by transformers' table."""
        renamings, converters = self._transforms
        parameter, pattern = rename_source_key(name, renamings, converters)
        if parameter not in self._parameters:
            return None
        if pattern is None:
            return Place(parameter)
        converter = next(converter for converter in converters if pattern in converter.source_patterns)
        if not all(isinstance(operation, MergeModulelist | Concatenate) for operation in converter.operations):
            return None
        return Place(parameter, part=converter.source_patterns.index(pattern), parts=len(converter.source_patterns))

    @cached_property
    def _transforms(self) -> tuple[list[WeightRenaming], list[WeightConverter]]:
        transforms = get_model_conversion_mapping(self.model)
        return (
            [transform for transform in transforms if isinstance(transform, WeightRenaming)],
            [transform for transform in transforms if isinstance(transform, WeightConverter)],
        )


def sort_pairs(
    pairs: Mapping[str, Mapping[str, Tensor]],
    finetune: FineTune,
    names: ParameterNames,
    base_name: Callable[[str], str],
) -> LowRankPairs:
    """Sort an adapter's low-rank pairs by what they change.

    `pairs` have the factors "A" and "B", and DoRA's "magnitude_vector", by the adapter's names of its modules.
    `base_name` is such a name in the headless base.

    Raises `InvalidAdapterConfig`, `ShapeMismatch`, `UnsupportedAdapter`.
    """
    result = LowRankPairs()
    if not pairs:
        return result
    base_names = {name: base_name(name) for name in pairs}
    nested = Counter(_owner(in_base) for in_base in base_names.values())
    scales = _Scales(finetune.config)
    for name, in_base in base_names.items():
        owner = _owner(in_base)
        place = names.place(owner, in_base.count(NESTED), nested[owner])
        parameter = names.model.get_parameter(place.parameter)
        layer = names.layer(place.parameter.removesuffix(".weight")) if place.whole else None
        target = names.target(owner, place)
        if target is None and name in finetune.modules:
            lora = finetune.modules[name]
        else:
            experts = len(parameter) if parameter.ndim == 3 and place.expert is None else 1
            lora = scales.lora(name if target is None else f"{_owner(name)}.{target}", pairs[name], experts)
        if layer is not None and (target is None or isinstance(layer, nn.Linear)):
            layer_name = place.parameter.removesuffix(".weight")
            result.layers[layer_name] = lora
            result.layer_names[name] = layer_name
        else:
            change = ParameterLora(place, lora, pairs[name].get("magnitude_vector"))
            _check_shapes(change, parameter, names.model)
            result.parameters.setdefault(place.parameter, []).append(change)
            result.of_parameters.add(name)
    return result


class _Scales:
    """Ranks and scales of target parameters, to which PEFT applies the patterns like to modules."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._ranks, self._alphas = ModulePatterns(config, "rank_pattern"), ModulePatterns(config, "alpha_pattern")

    def lora(self, name: str, pair: Mapping[str, Tensor], experts: int) -> LoraModule:
        """The pair of a parameter, or those of all its experts. Raises `InvalidAdapterConfig`."""
        rank = check_rank(self._ranks.value(name, self._config.get("r")))
        alpha = check_alpha(name, self._alphas.value(name, self._config.get("lora_alpha")))
        a, b = check_pair(name, pair)
        if (a.ndim, b.ndim) != (2, 2) or not a.shape[0] == rank * experts == b.shape[1]:
            of_experts = f" for each of {experts} experts" if experts > 1 else ""
            raise InvalidAdapterConfig(
                f"{name[:120]}: the config says rank {rank}{of_experts}, A is {list(a.shape)} and B {list(b.shape)}."
            )
        return LoraModule(a, b, scaling(alpha, rank, self._config), embedding=False)


@contextmanager
def changed_parameters(model: nn.Module, changes: Mapping[str, Sequence[ParameterLora]]) -> Iterator[None]:
    """Within the context, the parameters of the model have their low-rank changes. `guard.restored` must undo the
    replacement of matrices; stacks are changed while their module runs, because all together can be as large as the
    base.
    """
    stacks: dict[str, dict[str, Sequence[ParameterLora]]] = {}
    for name, loras in changes.items():
        owner, _, attribute = name.rpartition(".")
        if model.get_parameter(name).ndim == 3:
            stacks.setdefault(owner, {})[attribute] = loras
        else:
            _replace(model.get_submodule(owner), {attribute: loras})
    with ExitStack() as hooks:
        for owner, of_module in stacks.items():
            module = model.get_submodule(owner)
            swap = _StackSwap(of_module)
            hooks.callback(module.register_forward_pre_hook(swap.change).remove)
            hooks.callback(module.register_forward_hook(swap.restore, always_call=True).remove)
        yield


class _StackSwap:
    """Hooks around the forward pass of a module of experts, which has its changed parameters in it."""

    def __init__(self, changes: Mapping[str, Sequence[ParameterLora]]) -> None:
        self.changes = changes
        self._originals: dict[str, nn.Parameter | None] = {}

    def change(self, module: nn.Module, args: object) -> None:
        self._originals = {attribute: module._parameters[attribute] for attribute in self.changes}
        _replace(module, self.changes)

    def restore(self, module: nn.Module, args: object, output: object) -> None:
        module._parameters.update(self._originals)


def changed_stack(module: nn.Module, attribute: str) -> Tensor | None:
    """A stack of the module as it is during a forward pass; None if it is not changed."""
    for hook in module._forward_pre_hooks.values():
        swap = getattr(hook, "__self__", None)
        if isinstance(swap, _StackSwap) and attribute in swap.changes:
            return changed(module.get_parameter(attribute), swap.changes[attribute], _stores_inputs_first(module))
    return None


def _replace(module: nn.Module, changes: Mapping[str, Sequence[ParameterLora]]) -> None:
    for attribute, loras in changes.items():
        tensor = changed(module.get_parameter(attribute), loras, _stores_inputs_first(module))
        module._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)


def changed(parameter: Tensor, loras: Sequence[ParameterLora], inputs_first: bool) -> Tensor:
    """A copy of a parameter with its low-rank changes: one matrix (out, in), or a stack of them, (E, out, in) or
    (E, in, out).
    """
    result = parameter.detach().clone()
    for change in loras:
        transposed = _orientation(change, parameter, inputs_first)
        magnitude = change.magnitude
        for expert, a, b in change.factors(len(parameter) if parameter.ndim == 3 else 1):
            matrix = result[expert] if parameter.ndim == 3 else result
            matrix = (matrix.T if transposed else matrix).chunk(change.place.parts)[change.place.part]
            product = b.to(parameter.device, torch.float32) @ a.to(parameter.device, torch.float32)
            tuned = matrix.float() + change.lora.scale * product
            if magnitude is not None:  # DoRA, arXiv 2402.09353 section 4
                tuned *= (magnitude.to(tuned) / tuned.norm(dim=1))[:, None]
            matrix.copy_(tuned)
    return result


def _orientation(change: ParameterLora, parameter: Tensor, inputs_first: bool) -> bool | None:
    """Whether a stack has its inputs before its outputs for this change; None if no orientation fits.

    Its module says so, and then PEFT follows it. Versions of PEFT before 0.19 did not, so the shapes decide.
    """
    widths = (change.lora.b.shape[0] * change.place.parts, change.lora.a.shape[1])  # (out, in)
    fits = {False: widths == tuple(parameter.shape[-2:]), True: widths[::-1] == tuple(parameter.shape[-2:])}
    if parameter.ndim == 2:
        return False if fits[False] else None
    return next((transposed for transposed in (inputs_first, not inputs_first) if fits[transposed]), None)


def _check_shapes(change: ParameterLora, parameter: Tensor, model: nn.Module) -> None:
    module = model.get_submodule(change.place.parameter.rpartition(".")[0])
    if _orientation(change, parameter, _stores_inputs_first(module)) is None:
        raise ShapeMismatch(
            f"{change.place.parameter[:120]} is {list(parameter.shape)} in the base; the adapter's A is "
            f"{list(change.lora.a.shape)} and its B {list(change.lora.b.shape)}. {TRY_OTHER_BASE}"
        )
    if change.magnitude is not None and (
        change.magnitude.numel() != change.lora.b.shape[0] or (parameter.ndim == 3 and change.place.expert is None)
    ):
        raise UnsupportedAdapter(f"DoRA of {change.place.parameter[:120]} is not defined for these shapes.")


def _stores_inputs_first(module: nn.Module) -> bool:
    return bool(getattr(module, "is_transposed", False))


def _owner(name: str) -> str:
    """The module whose pair is nested, without PEFT's wrappers."""
    while name.endswith(NESTED):
        name = name.removesuffix(NESTED)
    return name
