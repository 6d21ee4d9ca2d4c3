"""The memory that a model may need, checked against the shapes in its headers before its weights are downloaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from catalog.errors import ModelTooLarge
from workers.finetunes.shape_fit import Shape
from workers.process.memory import total_memory

DEFAULT_SHARE = 0.6  # of the machine's memory; the rest is for fine-tunes, activations and other processes
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class MemoryLimit:
    """The bytes that the bases in memory may have together, and so the largest model that can be loaded.

    `dtype` is the one that models are loaded in, whatever their files have.
    """

    budget: int
    dtype: str = "float32"

    @classmethod
    def of_worker(cls, base_memory: int | None, dtype: str, device: str) -> MemoryLimit:
        """The limit of a worker: `base_memory`, but not more than the machine and the device have; None is a share of
        that. Weights reach a GPU through main memory, so the smaller of the two counts.
        """
        available = total_memory(device)
        return cls(int(DEFAULT_SHARE * available) if base_memory is None else min(base_memory, available), dtype)

    def required(self, shapes: Mapping[str, Shape]) -> int:
        """Bytes that loading a model with these tensors needs: all of them in the `dtype`, and a copy of the largest
        one in float32, which conversions and exact matrix products make of one tensor at a time.
        """
        counts = [math.prod(shape) for shape in shapes.values()]
        return sum(counts) * getattr(torch, self.dtype).itemsize + max(counts, default=0) * FLOAT32_BYTES

    def check(self, shapes: Mapping[str, Shape], name: str) -> None:
        """Raises `ModelTooLarge`."""
        required = self.required(shapes)
        if required > self.budget:
            raise ModelTooLarge(
                f"{name} needs {required:,} bytes of memory in {self.dtype}, and this worker has {self.budget:,} for "
                "models: raise DELTADEX_BASE_MEMORY if the machine has more, or use a larger machine or a reduced "
                "DELTADEX_DTYPE."
            )


NO_LIMIT = MemoryLimit(2**63)
