"""Reading a full fine-tune: its config and its files' headers. The weights stay on disk until they are encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from catalog.errors import CorruptWeights, InvalidModelConfig, QuantisedWeights
from workers.finetunes.finetune import FineTune, read_config, refuse_quantised
from workers.finetunes.json_file import read_object
from workers.finetunes.safetensors_file import TensorEntry

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 16 * 2**20
Headers = Callable[[str], dict[str, TensorEntry]]  # from a file's name to the tensors that its header tells of
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def read_model(folder: Path, names: Sequence[str], card_base: str | None, headers: Headers) -> FineTune:
    """`names` are the files of the model that count. Raises what `read_finetune` says of full models."""
    config = read_config(folder / CONFIG, InvalidModelConfig)
    refuse_quantised(config, folder.name, QuantisedWeights, "what was trained: submit the unquantised model.")
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
    claimed: dict[str, set[str]] = {}
    for tensor, shard in _weight_map(folder / INDEX).items():
        claimed.setdefault(shard, set()).add(tensor)
    # a name in the index is only ever compared with the listing, never opened
    missing = sorted(set(claimed) - set(names))
    if missing:
        raise CorruptWeights(f"{INDEX} names the shard {missing[0][:120]!r}, which {folder.name} does not hold.")
    entries: dict[str, TensorEntry] = {}
    for shard, tensors in sorted(claimed.items()):
        found = headers(shard)
        if set(found) != tensors:
            raise CorruptWeights(f"{INDEX} says otherwise than {shard} what tensors it holds.")
        entries |= found
    return entries


def _weight_map(path: Path) -> dict[str, str]:
    content = read_object(path, CorruptWeights, max_bytes=MAX_INDEX_BYTES)
    claimed = content.get("weight_map")
    if not isinstance(claimed, dict) or not claimed or not all(isinstance(file, str) for file in claimed.values()):
        raise CorruptWeights(f"{path.name} maps no tensors to shards.")
    return claimed
