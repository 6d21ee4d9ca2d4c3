"""Weights that several GPUs held in parts, and that were saved without being gathered."""

from __future__ import annotations

from collections.abc import Iterable

from catalog.errors import Refused

# what most often leaves parts of tensors in a file
GATHER = (
    "what FSDP or DeepSpeed ZeRO-3 held on one GPU. Gather the weights when saving (with accelerate: "
    "`accelerator.get_state_dict(model)`) and submit the result."
)
GATHER_ZERO = (
    "Gather the weights when saving (`stage3_gather_16bit_weights_on_model_save`, or zero_to_fp32.py) and submit the "
    "result."
)


def refuse_flattened(names: Iterable[str], error: type[Refused]) -> None:
    """Raise `error` for a tensor that FSDP made of the weights of several modules."""
    if name := next((name for name in names if "_flat_param" in name), None):
        raise error(f"{name[:120]} holds the weights of several modules, flattened: it is {GATHER}")


def empty_tensor(name: str, shape: tuple[int, ...]) -> str:
    """The message for a tensor without elements."""
    return (
        f"{name[:120]} is empty (shape {list(shape)}), as DeepSpeed ZeRO-3 saves tensors whose parts are not gathered. "
        f"{GATHER_ZERO}"
    )
