"""Reading a full fine-tune: its config and its files' headers. The weights stay on disk until they are encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from catalog.errors import CorruptWeights, InvalidModelConfig, QuantizedWeights
from workers.finetunes.finetune import FineTune, read_config, refuse_quantized
from workers.finetunes.json_file import read_object
from workers.finetunes.safetensors_file import TensorEntry

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_INDEX_BYTES = 16 * 2**20
ReadHeader = Callable[[str], dict[str, TensorEntry]]  # from a file name to the tensors in its header
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})


def read_model(folder: Path, names: Sequence[str], card_bases: tuple[str, ...], read_header: ReadHeader) -> FineTune:
    """Read a full model from the files `names`. Raises what `read_finetune` raises for full models."""
    config = read_config(folder / CONFIG_FILE, InvalidModelConfig)
    refuse_quantized(config, folder.name, QuantizedWeights, "what was trained: submit the unquantized model.")
    if not isinstance(config.get("model_type"), str):
        raise InvalidModelConfig(f"{CONFIG_FILE} of {folder.name} has no model_type.")
    entries = read_shards(folder, names, read_header)
    config_base = config.get("_name_or_path")  # where transformers before 4.50 loaded the weights from
    return FineTune(
        name=folder.name,
        kind="full",
        path="full",
        folder=folder,
        config=config,
        shapes={name: entry.shape for name, entry in entries.items()},
        card_bases=card_bases,
        config_base=config_base if isinstance(config_base, str) and config_base else None,
    )


def read_shards(folder: Path, names: Sequence[str], read_header: ReadHeader) -> dict[str, TensorEntry]:
    """The tensors of `model.safetensors`, or of the shards in the index, which must match their headers.

    Raises `CorruptWeights`, `QuantizedWeights`, `FileTooLarge`, `FolderUnreadable`.
    """
    entries = read_header(WEIGHTS_FILE) if WEIGHTS_FILE in names else _read_indexed(folder, names, read_header)
    packed = [name for name, entry in entries.items() if entry.dtype not in FLOAT_DTYPES and name.endswith(".weight")]
    if packed:
        raise QuantizedWeights(
            f"{packed[0][:120]} of {folder.name} is not a matrix of floats: the weights are quantized."
        )
    return entries


def _read_indexed(folder: Path, names: Sequence[str], read_header: ReadHeader) -> dict[str, TensorEntry]:
    if INDEX_FILE not in names:
        raise CorruptWeights(f"{folder.name} has shards but no {INDEX_FILE}.")
    shard_tensors: dict[str, set[str]] = {}
    for tensor, shard in _weight_map(folder / INDEX_FILE).items():
        shard_tensors.setdefault(shard, set()).add(tensor)
    # names in the index are compared with the listing and never opened
    missing = sorted(set(shard_tensors) - set(names))
    if missing:
        raise CorruptWeights(f"{INDEX_FILE} names the shard {missing[0][:120]!r}, which {folder.name} does not hold.")
    entries: dict[str, TensorEntry] = {}
    for shard, tensors in sorted(shard_tensors.items()):
        header = read_header(shard)
        if set(header) != tensors:
            raise CorruptWeights(f"{INDEX_FILE} and the header of {shard} disagree about its tensors.")
        entries |= header
    return entries


def _weight_map(path: Path) -> dict[str, str]:
    content = read_object(path, CorruptWeights, max_bytes=MAX_INDEX_BYTES)
    weight_map = content.get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) for file in weight_map.values())
    ):
        raise CorruptWeights(f"{path.name} has no weight_map from tensors to shards.")
    return weight_map
