"""Reading a full fine-tune: its config and its files' headers. The weights stay on disk until they are encoded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from catalog.errors import CorruptWeights, FileTooLarge, FolderUnreadable, InvalidModelConfig, QuantisedWeights
from workers.encoding.finetune import FineTune, read_config
from workers.encoding.safetensors_file import TensorEntry

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 16 * 2**20
Headers = Callable[[str], dict[str, TensorEntry]]  # from a file's name to the tensors that its header tells of
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def read_model(folder: Path, names: Sequence[str], card_base: str | None, headers: Headers) -> FineTune:
    """`names` are the files of the model that count. Raises what `read_finetune` says of full models."""
    config = read_config(folder / CONFIG, InvalidModelConfig)
    refuse_quantised(config, folder.name)
    if not isinstance(config.get("model_type"), str):
        raise InvalidModelConfig(f"{CONFIG} of {folder.name} names no model_type.")
    entries = read_shards(folder, names, headers)
    return FineTune(
        name=folder.name,
        kind="full",
        path="full",
        folder=folder,
        config=config,
        shapes={name: entry.shape for name, entry in entries.items()},
        card_base=card_base,
    )


def refuse_quantised(config: dict[str, Any], name: str) -> None:
    """Raises `QuantisedWeights`."""
    quantisation = config.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method", "unknown") if isinstance(quantisation, dict) else "unknown"
        raise QuantisedWeights(
            f"{name} is quantised ({str(method)[:40]}), so its activations are not those of what was trained: "
            "submit the unquantised model."
        )


def read_shards(folder: Path, names: Sequence[str], headers: Headers) -> dict[str, TensorEntry]:
    """The tensors of `model.safetensors`, or of the shards that the index names, checked against their headers.

    Raises `CorruptWeights`, `QuantisedWeights`, `FileTooLarge`, `FolderUnreadable`.
    """
    entries = headers(WEIGHTS) if WEIGHTS in names else _read_indexed(folder, names, headers)
    packed = [name for name, entry in entries.items() if entry.dtype not in FLOATS and name.endswith(".weight")]
    if packed:
        raise QuantisedWeights(f"{packed[0][:120]} of {folder.name} is no matrix of floats: the weights are quantised.")
    return entries


def _read_indexed(folder: Path, names: Sequence[str], headers: Headers) -> dict[str, TensorEntry]:
    if INDEX not in names:
        raise CorruptWeights(f"{folder.name} has shards and no {INDEX} that says what is in them.")
    claimed = _weight_map(folder / INDEX)
    # a name in the index is only ever compared with the listing, never opened
    missing = sorted(set(claimed.values()) - set(names))
    if missing:
        raise CorruptWeights(f"{INDEX} names the shard {missing[0][:120]!r}, which {folder.name} does not hold.")
    entries: dict[str, TensorEntry] = {}
    for shard in sorted(set(claimed.values())):
        found = headers(shard)
        if set(found) != {name for name, file in claimed.items() if file == shard}:
            raise CorruptWeights(f"{INDEX} says otherwise than {shard} what tensors it holds.")
        entries |= found
    return entries


def _weight_map(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise FileTooLarge(f"{path.name} is larger than {MAX_INDEX_BYTES:,} bytes.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise CorruptWeights(f"{path.name} is not JSON.") from error
    claimed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(claimed, dict) or not claimed or not all(isinstance(file, str) for file in claimed.values()):
        raise CorruptWeights(f"{path.name} maps no tensors to shards.")
    return claimed
