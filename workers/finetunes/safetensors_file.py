"""Reading safetensors files whose header is only the sender's claim.

Format: https://huggingface.co/docs/safetensors/index#format: eight bytes with the header's length, the header as
JSON, then the tensors' bytes, in order, without holes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from catalog.errors import CorruptWeights, FileTooLarge, FolderUnreadable, NonFiniteWeights

BLOCK = 2**20
MAX_HEADER_BYTES = 16 * 2**20  # a thousand times an adapter's; Python needs some ten times that to parse it
MAX_TENSORS = 2**17
MAX_DIMENSIONS = 64
MAX_NUMBERS = 2**48  # of a tensor
MAX_NAME = 512  # characters; a module of a model in parts of parts has some 100
# what module trees can be called: PEFT and transformers compile tensors' names as regular expressions
NAME = re.compile(r"[\w./:@-]+")
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of one tensor; `start` and `end` count from the first byte of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header_length(name: str, start: bytes, size: int) -> int:
    """Bytes of the header after the first eight, which are `start`, in a file of `size` bytes; raises
    `CorruptWeights`.
    """
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > size - 8:
        raise CorruptWeights(f"{name} ends before its header does: the file is truncated.")
    if length > MAX_HEADER_BYTES:
        raise CorruptWeights(f"{name} claims a header of {length:,} bytes; no more than 16 MiB is read.")
    return length


def parse_header(name: str, header: bytes, size: int) -> dict[str, TensorEntry]:
    """The tensors that a header of a file of `size` bytes tells of; raises `CorruptWeights` where both disagree."""
    offset = 8 + len(header)
    content = _parse(name, header)
    if len(content) > MAX_TENSORS:
        raise CorruptWeights(f"{name} claims {len(content):,} tensors; no more than {MAX_TENSORS:,} are read.")
    entries = {tensor: _entry(name, tensor, item, offset, size) for tensor, item in content.items()}
    _check_layout(name, entries, offset, size)
    return entries


def read_header(path: Path, *, max_file_bytes: int | None = None) -> dict[str, TensorEntry]:
    """The tensors that a file holds, checked against its length; reads the header's bytes and no others.

    Raises `CorruptWeights`, `FileTooLarge`, `FolderUnreadable`.
    """
    try:
        size = path.stat().st_size
        if max_file_bytes is not None and size > max_file_bytes:
            raise FileTooLarge(f"{path.name} has {size:,} bytes; the limit is {max_file_bytes:,}.")
        with path.open("rb") as stream:
            header = stream.read(header_length(path.name, stream.read(8), size))
    except OSError as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return parse_header(path.name, header, size)


def without_values(entries: Mapping[str, TensorEntry]) -> dict[str, torch.Tensor]:
    """Tensors of the shapes and dtypes that a header tells, on the device "meta"."""
    return {name: torch.empty(each.shape, dtype=DTYPES[each.dtype], device="meta") for name, each in entries.items()}


def load_tensors(path: Path, *, max_file_bytes: int | None = None) -> dict[str, torch.Tensor]:
    """Every tensor of a file, in the file's dtypes, on the CPU.

    Raises what `read_header` raises, and `NonFiniteWeights`.
    """
    entries = read_header(path, max_file_bytes=max_file_bytes)
    try:
        # mapped, so that of a large file only what is looked at takes memory; safetensors' own loader maps too, but
        # loses some bytes for every file that it has read, and a worker reads many
        data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    except (OSError, RuntimeError) as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error}.") from error
    _check_values(path, entries)
    return {name: _tensor(data, entry) for name, entry in entries.items()}


def _check_values(path: Path, entries: Mapping[str, TensorEntry]) -> None:
    """By blocks, read and not mapped: what is looked at through a map counts as the process's memory."""
    buffer = bytearray(BLOCK)
    try:
        with path.open("rb", buffering=0) as stream:
            for name, entry in entries.items():
                if DTYPES[entry.dtype].is_floating_point and not _finite(stream, entry, buffer):
                    raise NonFiniteWeights(f"{path.name}: {name} holds NaN or infinity.")
    except OSError as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error


def _finite(stream: FileIO, entry: TensorEntry, buffer: bytearray) -> bool:
    stream.seek(entry.start)
    left, view = entry.end - entry.start, memoryview(buffer)
    while left:
        filled = stream.readinto(view[: min(left, BLOCK)])
        if not filled or filled % DTYPES[entry.dtype].itemsize:
            raise CorruptWeights(f"{stream.name} changed while it was read.")
        block = torch.frombuffer(buffer, dtype=torch.uint8, count=filled).view(DTYPES[entry.dtype])
        if not torch.isfinite(block.sum(dtype=torch.float64)):
            return False
        left -= filled
    return True


def _tensor(data: torch.Tensor, entry: TensorEntry) -> torch.Tensor:
    dtype, part = DTYPES[entry.dtype], data[entry.start : entry.end]
    if entry.start % dtype.itemsize:  # allowed, and no tensor can begin there
        part = part.clone()
    return part.view(dtype).view(entry.shape)


def _parse(file: str, header: bytes) -> dict[str, Any]:
    # three lists and objects a tensor; millions of them keep the parser, and with it every thread, for seconds
    if header.count(b"[") + header.count(b"{") > 4 * MAX_TENSORS:
        raise CorruptWeights(f"{file} claims more than the {MAX_TENSORS:,} tensors that are read.")
    try:
        content = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise CorruptWeights(f"{file} has a header that is not JSON.") from error
    if not isinstance(content, dict):
        raise CorruptWeights(f"{file} has a header that is not a JSON object.")
    content.pop("__metadata__", None)
    return content


def _entry(file: str, name: str, item: Any, offset: int, size: int) -> TensorEntry:
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        raise CorruptWeights(
            f"{file}: {name[:80]!r} is no tensor's name: it may have {MAX_NAME} letters, digits and . _ - / : @ only."
        )
    try:
        dtype, shape, (start, end) = item["dtype"], tuple(item["shape"]), item["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
        width = DTYPES[dtype].itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptWeights(f"{file}: the header's entry for {name} is malformed.") from error
    if len(shape) > MAX_DIMENSIONS:
        raise CorruptWeights(f"{file}: {name} has {len(shape):,} dimensions; no more than {MAX_DIMENSIONS} are read.")
    if whole and end > size - offset:
        raise CorruptWeights(f"{file} is truncated: it has {size:,} bytes, and its header claims more for {name}.")
    if not whole or end - start != _numbers(shape) * width:
        raise CorruptWeights(f"{file}: {name} has not the number of bytes that its shape and dtype ask for.")
    return TensorEntry(dtype, shape, offset + start, offset + end)


def _numbers(shape: Sequence[int]) -> int:
    """How many numbers a tensor has; any that no file holds where there are too many, without working them out."""
    product = 1
    for length in shape:
        product *= min(length or 1, MAX_NUMBERS)
        if product >= MAX_NUMBERS:
            return MAX_NUMBERS
    return 0 if 0 in shape else product


def _check_layout(file: str, entries: dict[str, TensorEntry], offset: int, size: int) -> None:
    reached = offset
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != reached:
            raise CorruptWeights(f"{file}: the header's offsets overlap or leave holes.")
        reached = entry.end
    if reached < size:
        raise CorruptWeights(f"{file} has {size - reached:,} bytes after its last tensor.")
