"""The weights files of a model that transformers loads, and the tensors in their headers.

transformers loads `model.safetensors` if there is one, and otherwise every shard that the index names. It reads all
tensors of these files, whatever the index says about single tensors. No other file counts: shards of an earlier upload
and `consolidated.safetensors` often lie beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from catalog.errors import CorruptWeights
from workers.finetunes.json_file import ReadObject, read_object
from workers.finetunes.repo_files import INDEX_FILE, WHOLE_MODEL
from workers.finetunes.safetensors_file import TensorEntry, read_header

MAX_INDEX_BYTES = 16 * 2**20
Header = dict[str, TensorEntry]
ReadHeader = Callable[[str], Header]  # from a file name to the tensors in its header


def read_headers(
    folder: Path, names: Collection[str], read: ReadHeader, read_json: ReadObject = read_object
) -> dict[str, Header]:
    """The headers of the files that transformers loads out of the files `names`, in the order in which it reads them.

    The index is read from `folder` with `read_json`. Raises `CorruptWeights` and what `read` raises.
    """
    if WHOLE_MODEL in names:
        return {WHOLE_MODEL: read(WHOLE_MODEL)}
    headers = {}
    for shard, tensors in sorted(_indexed_tensors(folder, names, read_json).items()):
        headers[shard] = read(shard)
        if tensors.isdisjoint(headers[shard]):
            raise CorruptWeights(
                f"{shard[:120]} holds none of the tensors that {INDEX_FILE} names in it: upload the shards and the "
                "index that were saved together."
            )
    return headers


def local_headers(folder: Path) -> dict[str, Header]:
    """The headers of the files that transformers loads from a folder. Raises what `read_header` raises."""
    return read_headers(folder, [path.name for path in folder.iterdir()], lambda name: read_header(folder / name))


def tensor_entries(headers: Mapping[str, Header]) -> Header:
    """All tensors by name; of a tensor in two files, transformers keeps the later one."""
    return {name: entry for header in headers.values() for name, entry in header.items()}


def _indexed_tensors(folder: Path, names: Collection[str], read_json: ReadObject) -> dict[str, set[str]]:
    """The tensors that the index names, by shard."""
    if INDEX_FILE not in names:
        raise CorruptWeights(
            f"{folder.name} has shards but no {INDEX_FILE}, which says what they hold: upload it, too."
        )
    shards: dict[str, set[str]] = {}
    for tensor, shard in _weight_map(folder / INDEX_FILE, read_json).items():
        shards.setdefault(shard, set()).add(tensor)
    # names in the index are compared with the listing and never opened
    missing = sorted(shards.keys() - set(names))
    if missing:
        raise CorruptWeights(
            f"{INDEX_FILE} names the shard {missing[0][:120]!r}, which {folder.name} does not hold: upload all shards "
            "and the index that belongs to them."
        )
    return shards


def _weight_map(path: Path, read_json: ReadObject) -> dict[str, str]:
    content = read_json(path, CorruptWeights, max_bytes=MAX_INDEX_BYTES)
    weight_map = content.get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) for file in weight_map.values())
    ):
        raise CorruptWeights(f"{path.name} has no weight_map from tensors to shards.")
    return weight_map
