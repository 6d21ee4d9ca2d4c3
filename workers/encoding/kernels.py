"""How the linear layers of a model compute, in each dtype.

float32 on a CPU: oneDNN's kernels in place of the BLAS that torch calls. They are equal in precision and, where that
BLAS does not use AVX-512 (MKL on AMD), twice as fast.

A reduced dtype: matrix products run in it, on reduced weights; the residual stream, norms, attention and adapter
products stay in float32. So do the projections to queries and keys, an eighth of the work that moves a vector more
than all the rest when it is rounded; and the base, which is measured once, is measured with nothing rounded (`exact`).
Together they keep the cosine to float32 above 0.9995 (all in bfloat16: 0.9985).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.pytorch_utils import Conv1D

# the projections of an attention layer that lead to queries and keys, alone or fused
TO_SCORES = re.compile(r"(^|\.)\w*(attn|attention)\w*\.(?!v_proj$|o_proj$|out_proj$|dense$|c_proj$)")
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; on a CPU and in float32 with the operator that torch's own compiler emits for it."""
    if not HAS_ONEDNN or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class FastLinear(nn.Linear):
    """A linear layer of float32."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class MixedLinear(nn.Linear):
    """A linear layer with reduced weights and float32 around it."""

    def forward(self, input: Tensor) -> Tensor:
        output = F.linear(input.to(self.weight.dtype), self.weight).float()
        return output if self.bias is None else output.add_(self.bias)


class ExactLinear(MixedLinear):
    """The same weights with nothing rounded on the way: slower, for what is measured once."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight.float(), self.bias)


class MixedConv1D(Conv1D):
    """GPT-2's transposed linear layer, likewise."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.weight.dtype) @ self.weight).float().add_(self.bias)


class ExactConv1D(MixedConv1D):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight.float()).add_(self.bias)


class GatedMLP(LlamaMLP):
    """Llama's MLP and its many twins', in the memory of its own intermediate results.

    They are the largest that a forward has, and fresh memory for each costs more time than the arithmetic on it.
    """

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        gate = F.silu(gate, inplace=True) if isinstance(self.act_fn, SiLUActivation) else self.act_fn(gate)
        return self.down_proj(gate.mul_(self._up(x)))

    def _up(self, x: Tensor) -> Tensor:
        up = self.up_proj
        if type(up) is MixedLinear and up.bias is None and not up._forward_hooks and not up._forward_pre_hooks:
            return F.linear(x.to(up.weight.dtype), up.weight)  # the product reads it as it is: no need of a wider copy
        return up(x)


def install(model: nn.Module, dtype: torch.dtype) -> None:
    """Makes a model that was loaded in `dtype` compute as this module says, in place."""
    if dtype != torch.float32:
        _mix(model)
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FastLinear
        elif _has_formula_of(LlamaMLP, module):
            module.__class__ = GatedMLP


@contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """While it lasts, a mixed model computes in float32 on its reduced weights; a float32 one as ever."""
    swapped = [(module, type(module)) for module in model.modules() if type(module) in EXACT]
    for module, kind in swapped:
        module.__class__ = EXACT[kind]
    try:
        yield
    finally:
        for module, kind in swapped:
            module.__class__ = kind


def _mix(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(_float_output)
        elif any(parameter.ndim == 3 for parameter in module.parameters(recurse=False)):  # a layer of experts
            module.register_forward_pre_hook(_reduce_input)
            module.register_forward_hook(_float_output)
        elif type(module) in MIXED and not TO_SCORES.search(name):
            module.__class__ = MIXED[type(module)]
            if module.bias is not None:
                module.bias.data = module.bias.data.float()
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


def _has_formula_of(kind: type[nn.Module], module: nn.Module) -> bool:
    """Whether a module's forward is the very code of a known one's, whatever the class is called."""
    known, code = kind.forward.__code__, type(module).forward.__code__
    return (code.co_code, code.co_names, code.co_consts) == (known.co_code, known.co_names, known.co_consts)


def _float_output(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output.float()


def _reduce_input(module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
    dtype = next(parameter.dtype for parameter in module.parameters(recurse=False))
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)


MIXED = {nn.Linear: MixedLinear, Conv1D: MixedConv1D}
EXACT = {MixedLinear: ExactLinear, MixedConv1D: ExactConv1D}
