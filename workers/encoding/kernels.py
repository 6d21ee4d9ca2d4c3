"""Faster forward passes of linear layers and gated MLPs, in float32 and in reduced dtypes.

float32 on a CPU: oneDNN's kernels replace the BLAS that torch calls. They are equally precise and twice as fast where
that BLAS does not use AVX-512 (MKL on AMD).

A reduced dtype: matrix products run in it, on reduced weights; the residual stream, norms, attention and adapter
products stay in float32. So do the query and key projections: they are an eighth of the work, and rounding them moves
a vector more than rounding everything else. The base is measured once, and without any rounding (`exact`). Together
these keep the cosine to float32 above 0.9995 (with everything in bfloat16 it is 0.9985).

A module gets a faster forward only if its class is `nn.Linear` or `Conv1D`, or if its own forward gives the values of
the faster one (`computes_gated_mlp`).
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.pytorch_utils import Conv1D

# query and key projections of an attention layer, separate or fused
QUERY_KEY_PROJECTION = re.compile(r"(^|\.)\w*(attn|attention)\w*\.(?!v_proj$|o_proj$|out_proj$|dense$|c_proj$)")
GATED_MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
MAX_RELATIVE_ERROR = 1e-5  # of one row's output; float32 rounding stays below 1e-6, a different formula is far above
PROBE_SCALES = (0.1, 1.0, 10.0, 100.0)  # one input row each, so that clamps and thresholds show
PROBE_HIDDEN, PROBE_INNER = 8, 16  # widths of the small layers that the formulas are compared on
PROBE_SEED = 0
ORIGINAL_CLASS = "class_in_transformers"  # the attribute in which a module keeps it

log = logging.getLogger(__name__)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; on a CPU and in float32 with the operator that torch's own compiler emits for it."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not has_onednn_linear():
        return F.linear(x, weight, bias)
    return _onednn_linear(x, weight, bias)


@cache
def has_onednn_linear() -> bool:
    """Whether this torch has the oneDNN operator, which is private, and the operator gives the values of `F.linear`."""
    if not torch.backends.mkldnn.is_available():
        return False
    layer, x = _probe_layer(PROBE_HIDDEN, PROBE_INNER), _probe_input()
    try:
        with torch.inference_mode():
            error = _relative_error(_onednn_linear(x, layer.weight, layer.bias), layer(x))
    except (AttributeError, RuntimeError, TypeError):  # absent, or called in another way
        error = float("inf")
    if not error <= MAX_RELATIVE_ERROR:
        log.warning("torch's oneDNN operator for linear layers cannot be used (relative error %.1e)", error)
        return False
    return True


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class FastLinear(nn.Linear):
    """A float32 linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class MixedLinear(nn.Linear):
    """A linear layer with reduced weights and float32 around it."""

    def forward(self, input: Tensor) -> Tensor:
        output = F.linear(input.to(self.weight.dtype), self.weight).float()
        return output if self.bias is None else output.add_(self.bias)


class ExactLinear(MixedLinear):
    """The same weights without rounding the products: slower, for the base, which is measured once."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight.float(), self.bias)


class MixedConv1D(Conv1D):
    """GPT-2's transposed linear layer with reduced weights and float32 around it."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.weight.dtype) @ self.weight).float().add_(self.bias)


class ExactConv1D(MixedConv1D):
    """The same weights without rounding the products."""

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight.float()).add_(self.bias)


class GatedMLP(LlamaMLP):
    """down(act(gate(x)) * up(x)), as in Llama and many other models, computed in place.

    These intermediate results are the largest of a forward pass, and allocating memory for each of them takes longer
    than the arithmetic.
    """

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        gate = F.silu(gate, inplace=True) if isinstance(self.act_fn, SiLUActivation) else self.act_fn(gate)
        return self.down_proj(gate.mul_(self._up(x)))

    def _up(self, x: Tensor) -> Tensor:
        up = self.up_proj
        if type(up) is MixedLinear and up.bias is None and not up._forward_hooks and not up._forward_pre_hooks:
            return F.linear(x.to(up.weight.dtype), up.weight)  # `mul_` reads the reduced dtype: no float32 copy
        return up(x)


def install(model: nn.Module, dtype: torch.dtype) -> None:
    """Give the modules of a model that was loaded in `dtype` their faster forwards, in place.

    A module that looks like a gated MLP and computes something else keeps its own forward, which is logged once per
    class.
    """
    if dtype != torch.float32:
        _mix(model)
    unchanged_classes: set[type] = set()
    for module in model.modules():
        kind = type(module)
        if kind is nn.Linear:
            _replace_class(module, FastLinear)
        elif _has_gated_projections(module):
            if computes_gated_mlp(module):
                _replace_class(module, GatedMLP)
            elif kind not in unchanged_classes:
                unchanged_classes.add(kind)
                log.info("%s is not the gated MLP that its layers suggest: it keeps its own forward", kind.__name__)


@contextmanager
def original_classes(model: nn.Module) -> Iterator[None]:
    """Within the context, the modules of a float32 model have the classes that transformers gave them. In a model of a
    reduced dtype, linear layers stay as they are, because their weights and inputs have different dtypes.
    """
    replaced = [(module, type(module)) for module in model.modules() if hasattr(module, ORIGINAL_CLASS)]
    for module, _ in replaced:
        _set_class(module, getattr(module, ORIGINAL_CLASS))
    try:
        yield
    finally:
        for module, kind in replaced:
            _set_class(module, kind)


def computes_gated_mlp(module: nn.Module) -> bool:
    """Whether a module's own forward gives the values of `GatedMLP` with small layers in place of its projections.

    Everything else is the module's own: activation, factors, settings. They may differ from layer to layer (such as the
    activation sparsity of Gemma 3n), so every module is compared and not only every class.
    """
    probe: Any = copy.copy(module)
    probe._modules = module._modules | _probe_projections()
    x = _probe_input()[None]  # (1, rows, hidden)
    try:
        with torch.inference_mode():
            expected = type(module).forward(probe, x)  # not `module.forward`, which hooks may have replaced
            probe.__class__ = GatedMLP
            return _relative_error(GatedMLP.forward(probe, x), expected) <= MAX_RELATIVE_ERROR
    except Exception:  # a forward that does not run on these layers is another formula
        return False


def _has_gated_projections(module: nn.Module) -> bool:
    projections = (module._modules.get(name) for name in GATED_MLP_PROJECTIONS)
    return all(isinstance(layer, nn.Linear) for layer in projections) and hasattr(module, "act_fn")


@cache
def _probe_projections() -> dict[str, nn.Module]:
    gate, up = (_probe_layer(PROBE_HIDDEN, PROBE_INNER, PROBE_SEED + number) for number in (1, 2))
    down = _probe_layer(PROBE_INNER, PROBE_HIDDEN, PROBE_SEED + 3)
    return dict(zip(GATED_MLP_PROJECTIONS, (gate, up, down), strict=True))


def _probe_layer(inputs: int, outputs: int, seed: int = PROBE_SEED) -> nn.Linear:
    """A small linear layer with seeded weights; the global random state is not affected."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.requires_grad_(False).parameters():
        parameter.normal_(generator=generator)
    return layer


def _probe_input() -> Tensor:
    """(rows, hidden), float32."""
    rows = torch.randn(len(PROBE_SCALES), PROBE_HIDDEN, generator=torch.Generator().manual_seed(PROBE_SEED))
    return rows * torch.tensor(PROBE_SCALES)[:, None]


def _relative_error(values: Tensor, expected: Tensor) -> float:
    """The largest of the rows' relative errors, (..., d) each; NaN if it is undefined."""
    return float(((values - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


@contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Within the context, a model of a reduced dtype computes in float32 on its reduced weights.

    A float32 model is not affected.
    """
    swapped = [(module, type(module)) for module in model.modules() if type(module) in EXACT_CLASSES]
    experts = [module for module in model.modules() if _reduce_input in module._forward_pre_hooks.values()]
    for module, kind in swapped:
        _set_class(module, EXACT_CLASSES[kind])
    handles = [handle for module in experts for handle in _computed_in_float32(module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, kind in swapped:
            _set_class(module, kind)


def _replace_class(module: nn.Module, kind: type[nn.Module]) -> None:
    """Change a module's class, and keep its own for `original_classes`."""
    setattr(module, ORIGINAL_CLASS, type(module))
    _set_class(module, kind)


def _set_class(module: Any, kind: type[nn.Module]) -> None:
    module.__class__ = kind
    if hasattr(module, "_old_forward"):  # of a module with hooks of accelerate, which call it
        module._old_forward = MethodType(kind.forward, module)


def _has_experts(module: nn.Module) -> bool:
    """Whether a module has stacked weights of experts."""
    return any(parameter.ndim == 3 for parameter in module.parameters(recurse=False))


def _computed_in_float32(module: nn.Module) -> list[RemovableHandle]:
    """Replace a module's parameters by copies in float32 for the time of its forward pass."""
    reduced = dict(module._parameters)

    def convert(module: nn.Module, args: object) -> None:
        for name, parameter in reduced.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.float(), requires_grad=False)

    def restore(module: nn.Module, args: object, output: object) -> None:
        module._parameters.update(reduced)

    before = module.register_forward_pre_hook(convert, prepend=True)
    return [before, module.register_forward_hook(restore, always_call=True)]


def _mix(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(_float_output)
        elif _has_experts(module):
            module.register_forward_pre_hook(_reduce_input)
            module.register_forward_hook(_float_output)
        elif type(module) in MIXED_CLASSES and not QUERY_KEY_PROJECTION.search(name):
            _set_class(module, MIXED_CLASSES[type(module)])
            if module.bias is not None:
                module.bias.data = module.bias.data.float()
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


def _float_output(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output.float()


def _reduce_input(module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
    dtype = next(parameter.dtype for parameter in module.parameters(recurse=False))
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)


MIXED_CLASSES = {nn.Linear: MixedLinear, Conv1D: MixedConv1D}
EXACT_CLASSES = {MixedLinear: ExactLinear, MixedConv1D: ExactConv1D}
