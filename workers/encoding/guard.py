"""Protection of the resident base: restore what an adapter replaced, then compare a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from catalog.errors import BaseModelCorrupted

T = TypeVar("T")


class BaseGuard:
    """Compares a base with its initial state. Once `corrupted` is true, the base must be loaded again."""

    def __init__(self, model: nn.Module, path: Callable[[], str] = lambda: "") -> None:
        """`path` returns the current path of the model's forward pass, with which classes of modules change."""
        self.corrupted = False
        self._model = model
        self._path = path
        self._expected: dict[str, str] = {}

    def arm(self) -> None:
        """Compute the expected checksum, once for each path of the forward pass.

        Raises `BaseModelCorrupted` if an earlier check failed.
        """
        if self.corrupted:
            raise BaseModelCorrupted(
                "The base model in memory was modified; it will be loaded again for the next attempt."
            )
        if self._path() not in self._expected:
            self._expected[self._path()] = checksum(self._model)

    def check(self) -> None:
        """Raises `BaseModelCorrupted` if the base differs from its state at `arm`; every later check then fails too."""
        self.corrupted = self.corrupted or checksum(self._model) != self._expected[self._path()]
        if self.corrupted:
            raise BaseModelCorrupted(
                "The base model was modified by an adapter; the result was discarded and the base will be reloaded."
            )


def checksum(model: nn.Module) -> str:
    """A digest of the module tree (names, classes, hooks) and of the shape and bits of every parameter and buffer.

    A tensor's bits enter as one sum of 64-bit integers per row, which takes a single pass at memory speed.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        hooks = (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
        digest.update(f"{name} {type(module).__qualname__} {hooks}\n".encode())
        for name_in_module, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                digest.update(f"{name_in_module} {tensor.dtype} {list(tensor.shape)}\n".encode())
                digest.update(_row_sums(tensor.detach()))
    return digest.hexdigest()


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """At the end of the context, restore the children, parameters and buffers that every module had at its start.

    References are kept and nothing is copied, so code in the context must replace tensors and not modify them.
    """
    saved_modules = [
        (module, dict(module._modules), dict(module._parameters), dict(module._buffers)) for module in model.modules()
    ]
    attributes = set(vars(model))
    try:
        yield
    finally:
        for module, children, parameters, buffers in saved_modules:
            _refill(module._modules, children)
            _refill(module._parameters, parameters)
            _refill(module._buffers, buffers)
            for parameter in module._parameters.values():
                if parameter is not None:
                    parameter.requires_grad_(False)
        for name in set(vars(model)) - attributes:
            delattr(model, name)


def _refill(current: dict[str, T], saved: dict[str, T]) -> None:
    current.clear()
    current.update(saved)


def _row_sums(tensor: Tensor) -> bytes:
    rows = tensor.contiguous().reshape(tensor.shape[0] if tensor.ndim > 1 else 1, -1)
    aligned = rows.shape[1] * rows.element_size() % 8 == 0
    bits = rows.view(torch.int64 if aligned and rows.numel() else torch.uint8)
    return bits.sum(dim=1, dtype=torch.int64).cpu().numpy().tobytes()
