"""Proof that a base is still what was loaded: put back what an adapter exchanged, then compare a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from catalog.errors import BaseDisturbed

T = TypeVar("T")


class BaseGuard:
    """Compares a base with the state in which it was first seen. `disturbed` says that it must be loaded again."""

    def __init__(self, model: nn.Module) -> None:
        self.disturbed = False
        self._model = model
        self._expected: str | None = None

    def arm(self) -> None:
        """Takes the checksum to compare with, once. Raises `BaseDisturbed` where an earlier check failed."""
        if self.disturbed:
            raise BaseDisturbed("The base model in memory has been changed; it is loaded again for the next try.")
        if self._expected is None:
            self._expected = checksum(self._model)

    def check(self) -> None:
        """Raises `BaseDisturbed`, and never trusts the base again, where it differs from what `arm` saw."""
        self.disturbed = self.disturbed or checksum(self._model) != self._expected
        if self.disturbed:
            raise BaseDisturbed("An adapter left its traces in the base model; its result was thrown away.")


def checksum(model: nn.Module) -> str:
    """A digest of the module tree (names, classes, hooks) and of every parameter's and buffer's shape and bits.

    A tensor's bits enter as one sum of 64-bit integers a row, which costs a single pass at memory speed.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        hooks = (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
        digest.update(f"{name} {type(module).__qualname__} {hooks}\n".encode())
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                digest.update(f"{own} {tensor.dtype} {list(tensor.shape)}\n".encode())
                digest.update(_row_sums(tensor.detach()))
    return digest.hexdigest()


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """At the end every module has the very children, parameters and buffers that it had at the beginning.

    Holds references and copies nothing: whoever exchanges a tensor must put a new object in its place.
    """
    before = [
        (module, dict(module._modules), dict(module._parameters), dict(module._buffers)) for module in model.modules()
    ]
    attributes = set(vars(model))
    try:
        yield
    finally:
        for module, children, parameters, buffers in before:
            _refill(module._modules, children)
            _refill(module._parameters, parameters)
            _refill(module._buffers, buffers)
            for parameter in module._parameters.values():
                if parameter is not None:
                    parameter.requires_grad_(False)
        for name in set(vars(model)) - attributes:
            delattr(model, name)


def _refill(now: dict[str, T], then: dict[str, T]) -> None:
    now.clear()
    now.update(then)


def _row_sums(tensor: Tensor) -> bytes:
    rows = tensor.contiguous().reshape(tensor.shape[0] if tensor.ndim > 1 else 1, -1)
    whole = rows.shape[1] * rows.element_size() % 8 == 0
    bits = rows.view(torch.int64 if whole and rows.numel() else torch.uint8)
    return bits.sum(dim=1, dtype=torch.int64).cpu().numpy().tobytes()
