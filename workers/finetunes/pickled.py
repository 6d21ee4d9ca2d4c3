"""Conversion of adapters that `torch.save` wrote (PEFT's `adapter_model.bin`) to safetensors.

Since PyTorch 1.6 such a file is a zip archive without compression: a pickle with the names, shapes and storages of the
tensors, and an entry `data/N` with the bytes of each storage. The pickle is read by torch's own unpickler for weights,
which calls nothing but the constructors of tensors. Every size is checked against the archive's entries before any
byte of a tensor is copied.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from catalog.errors import CorruptWeights, FileTooLarge, FolderUnreadable, PickledWeights
from catalog.errors.root import first_line
from workers.finetunes.safetensors_file import DTYPES, MAX_NAME_CHARACTERS, MAX_TENSORS, READ_BLOCK_BYTES, TENSOR_NAME

MAX_PICKLE_BYTES = 32 * 2**20  # names and shapes of `MAX_TENSORS` tensors
MAX_OTHER_ENTRIES = 16  # beside the storages: the pickle, versions and the byte order
ZIP_START = b"PK\x03\x04"
LOCAL_HEADER_BYTES = 30  # before the name of an entry
BYTE_ORDER = b"little"
STORAGE = re.compile(r"[^/]+/data/\d+")
SAVE = "Load it where you trust it, and submit what `save_pretrained` (or `safetensors.torch.save_file`) writes."

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Storage:
    """The bytes of one storage: from `start` to `start + size` in the file."""

    start: int
    size: int


def convert(source: Path, target: Path, *, max_file_bytes: int) -> None:
    """Write the tensors of a file of `torch.save` to the safetensors file `target`.

    Raises `PickledWeights` for a file that is not such an archive, or whose pickle needs code to be loaded,
    `CorruptWeights` for one that contradicts itself, `FileTooLarge` and `FolderUnreadable`.
    """
    try:
        size = source.stat().st_size
        if size > max_file_bytes:
            raise FileTooLarge(f"{source.name} has {size:,} bytes; the limit is {max_file_bytes:,}.")
        with source.open("rb") as stream:
            storages = _storages(source.name, stream, size)
            tensors = _load(source)
            placed = _place(source.name, tensors, storages)
            _write(stream, placed, tensors, target)
    except OSError as error:
        raise FolderUnreadable(f"{source.name} cannot be read: {error.strerror or error}.") from error


def _storages(name: str, stream: BinaryIO, size: int) -> list[Storage]:
    """The storages in an archive, by their position. Raises `PickledWeights` and `CorruptWeights`."""
    if stream.read(len(ZIP_START)) != ZIP_START:
        raise PickledWeights(
            f"{name} is no archive of torch.save: PyTorch before 1.6 wrote plain pickles, which are not read. {SAVE}"
        )
    try:
        entries = zipfile.ZipFile(stream).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CorruptWeights(f"{name} is a damaged archive ({first_line(error)}). Upload it again.") from error
    if len(entries) > MAX_TENSORS + MAX_OTHER_ENTRIES:
        raise CorruptWeights(f"{name} has {len(entries):,} entries; the limit is {MAX_TENSORS:,} tensors.")
    storages, end = [], 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise CorruptWeights(f"{name} is compressed or encrypted, which torch.save never does. {SAVE}")
        if entry.filename.endswith("/data.pkl") and entry.file_size > MAX_PICKLE_BYTES:
            raise CorruptWeights(
                f"{name} has a pickle of {entry.file_size:,} bytes, apart from its tensors; the limit is 32 MiB."
            )
        start = _start(name, stream, entry)
        if entry.header_offset < end or start + entry.file_size > size:
            raise CorruptWeights(f"{name} has entries that overlap or lie outside of the file. Upload it again.")
        end = start + entry.file_size
        if entry.filename.endswith("/byteorder") and _content(stream, start, len(BYTE_ORDER)) != BYTE_ORDER:
            raise CorruptWeights(f"{name} was written on a machine of another byte order. {SAVE}")
        if STORAGE.fullmatch(entry.filename) and entry.file_size:
            storages.append(Storage(start, entry.file_size))
    return storages


def _content(stream: BinaryIO, start: int, size: int) -> bytes:
    stream.seek(start)
    return stream.read(size)


def _start(name: str, stream: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where the content of an entry begins. Its local header may be longer than the archive's directory says."""
    header = _content(stream, entry.header_offset, LOCAL_HEADER_BYTES)
    if len(header) < LOCAL_HEADER_BYTES or not header.startswith(ZIP_START):
        raise CorruptWeights(f"{name} is a damaged archive. Upload it again.")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + LOCAL_HEADER_BYTES + lengths


def _load(source: Path) -> dict[str, torch.Tensor]:
    """The tensors by name, mapped from the file. Raises `PickledWeights` and `CorruptWeights`."""
    try:
        content = torch.load(source, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise PickledWeights(
            f"{source.name} holds more than tensors, and loading it could run code, which Deltadex never does. {SAVE}"
        ) from error
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError) as error:
        raise CorruptWeights(f"{source.name} cannot be loaded ({first_line(error)}). {SAVE}") from error
    if type(content) not in (dict, OrderedDict):
        raise CorruptWeights(f"{source.name} holds no dictionary of tensors. {SAVE}")
    for key, value in content.items():
        _check_tensor(source.name, key, value)
    return content


def _check_tensor(file: str, key: Any, value: Any) -> None:
    """Raises `CorruptWeights` unless this is the name of a tensor, and the tensor one that safetensors can hold."""
    if type(key) is not str or len(key) > MAX_NAME_CHARACTERS or not TENSOR_NAME.fullmatch(key):
        raise CorruptWeights(f"{file}: {str(key)[:80]!r} is not a valid tensor name. {SAVE}")
    is_plain = (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.dtype in _NAMES
    )
    if not is_plain:
        raise CorruptWeights(f"{file}: {key} is no tensor, or one of a kind that adapters do not have. {SAVE}")
    if not value.is_contiguous() or value.is_conj() or value.is_neg():
        raise CorruptWeights(f"{file}: {key} is a view whose numbers are not in order. {SAVE}")


def _place(file: str, tensors: Mapping[str, torch.Tensor], storages: list[Storage]) -> dict[str, Storage]:
    """The storage of each tensor, which is exactly as large as the tensor and belongs to no other one; by position.

    The file is mapped as a whole, so the storages of the tensors lie in memory as their entries lie in the file. Raises
    `CorruptWeights` if they do not.
    """
    filled = [(tensor.untyped_storage().data_ptr(), name) for name, tensor in tensors.items() if tensor.numel()]
    filled.sort()
    if len(filled) != len(storages):
        raise CorruptWeights(
            f"{file} has {len(storages):,} storages for {len(filled):,} tensors: some share their numbers, or there "
            f"are others than those of the tensors. {SAVE}"
        )
    placed = {}
    for (address, name), storage in zip(filled, storages, strict=True):
        tensor = tensors[name]
        sizes = {tensor.untyped_storage().nbytes(), tensor.numel() * tensor.itemsize}
        if address - filled[0][0] != storage.start - storages[0].start or sizes != {storage.size}:
            raise CorruptWeights(f"{file}: the size of {name} differs from that of its storage. {SAVE}")
        placed[name] = storage
    return placed


def _write(source: BinaryIO, placed: Mapping[str, Storage], tensors: Mapping[str, torch.Tensor], target: Path) -> None:
    """Write a safetensors file, block by block: mapped pages that were read count as memory of the process."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in (*placed, *(tensors.keys() - placed.keys())):
        size = placed[name].size if name in placed else 0  # a tensor without elements
        tensor = tensors[name]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # aligns the tensors
    with target.open("xb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for storage in placed.values():
            _copy(source, storage, stream)


def _copy(source: BinaryIO, storage: Storage, target: BinaryIO) -> None:
    source.seek(storage.start)
    remaining = storage.size
    while remaining:
        block = source.read(min(remaining, READ_BLOCK_BYTES))
        if not block:
            raise CorruptWeights("The file changed while it was read.")
        target.write(block)
        remaining -= len(block)
