"""Reading untrusted safetensors files.

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
from workers.finetunes.file_content import START_BYTES, other_weights

SUBMIT_FINITE = (
    "The training diverged, or float16 overflowed: submit an earlier checkpoint, or save it in bfloat16 or float32."
)
READ_BLOCK_BYTES = 2**20
MAX_HEADER_BYTES = 16 * 2**20  # a thousand times an adapter's; parsing takes about ten times that in memory
MAX_TENSORS = 2**17
MAX_DIMENSIONS = 64
MAX_ELEMENTS = 2**48  # of a tensor
MAX_NAME_CHARACTERS = 512  # names of deeply nested modules have about 100
# valid module names: PEFT and transformers compile tensor names as regular expressions
TENSOR_NAME = re.compile(r"[\w./:@-]+")
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
    """A header's entry for one tensor; `start` and `end` are offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header_length(name: str, start: bytes, size: int) -> int:
    """The length of the header, from the first bytes `start` of a file of `size` bytes.

    Raises `CorruptWeights`.
    """
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > size - 8:
        content = other_weights(start) or "ends within its header: the file is truncated. Upload it again."
        raise CorruptWeights(f"{name} {content}")
    if length > MAX_HEADER_BYTES:
        raise CorruptWeights(f"{name} has a header of {length:,} bytes; the limit is 16 MiB.")
    return length


def parse_header(name: str, header: bytes, size: int) -> dict[str, TensorEntry]:
    """The tensors in the header of a file of `size` bytes. Raises `CorruptWeights` if it does not match the size."""
    offset = 8 + len(header)
    content = _parse(name, header)
    if len(content) > MAX_TENSORS:
        raise CorruptWeights(f"{name} lists {len(content):,} tensors; the limit is {MAX_TENSORS:,} tensors.")
    entries = {tensor: _entry(name, tensor, item, offset, size) for tensor, item in content.items()}
    _check_layout(name, entries, offset, size)
    return entries


def read_header(path: Path, *, max_file_bytes: int | None = None) -> dict[str, TensorEntry]:
    """The tensors in a file, checked against its length; only the header is read.

    Raises `CorruptWeights`, `FileTooLarge`, `FolderUnreadable`.
    """
    try:
        size = path.stat().st_size
        if max_file_bytes is not None and size > max_file_bytes:
            raise FileTooLarge(f"{path.name} has {size:,} bytes; the limit is {max_file_bytes:,}.")
        with path.open("rb") as stream:
            length = header_length(path.name, stream.read(START_BYTES), size)
            stream.seek(8)
            header = stream.read(length)
    except OSError as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return parse_header(path.name, header, size)


def without_values(entries: Mapping[str, TensorEntry]) -> dict[str, torch.Tensor]:
    """Tensors with the shapes and dtypes of a header, on the device "meta"."""
    return {name: torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="meta") for name, entry in entries.items()}


def load_tensors(
    path: Path, entries: Mapping[str, TensorEntry] | None = None, *, max_file_bytes: int | None = None
) -> dict[str, torch.Tensor]:
    """Every tensor of a file, in the file's dtypes, on the CPU. Its header is read if `entries`, the parsed one, is
    None.

    Raises what `read_header` raises, and `NonFiniteWeights`.
    """
    if entries is None:
        entries = read_header(path, max_file_bytes=max_file_bytes)
    try:
        # memory-mapped, so that only the used part of a large file takes memory; the loader of safetensors maps files
        # too, but leaks some bytes for every file, and a worker reads many
        data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        if any(entry.end > len(data) for entry in entries.values()):
            raise CorruptWeights(f"{path.name} became shorter while it was read.")
    except (OSError, RuntimeError) as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error}.") from error
    _check_values(path, entries)
    return {name: _tensor(data, entry) for name, entry in entries.items()}


def _check_values(path: Path, entries: Mapping[str, TensorEntry]) -> None:
    """Check values in blocks that are read, because mapped pages count as memory of the process."""
    buffer = bytearray(READ_BLOCK_BYTES)
    try:
        with path.open("rb", buffering=0) as stream:
            for name, entry in entries.items():
                if DTYPES[entry.dtype].is_floating_point and not _finite(stream, entry, buffer):
                    raise NonFiniteWeights(f"{path.name}: {name} holds NaN or infinity. {SUBMIT_FINITE}")
    except OSError as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error


def _finite(stream: FileIO, entry: TensorEntry, buffer: bytearray) -> bool:
    stream.seek(entry.start)
    remaining, view = entry.end - entry.start, memoryview(buffer)
    while remaining:
        filled = stream.readinto(view[: min(remaining, READ_BLOCK_BYTES)])
        if not filled or filled % DTYPES[entry.dtype].itemsize:
            raise CorruptWeights(f"{stream.name} changed while it was read.")
        block = torch.frombuffer(buffer, dtype=torch.uint8, count=filled).view(DTYPES[entry.dtype])
        if not torch.isfinite(block.sum(dtype=torch.float64)):
            return False
        remaining -= filled
    return True


def _tensor(data: torch.Tensor, entry: TensorEntry) -> torch.Tensor:
    dtype, part = DTYPES[entry.dtype], data[entry.start : entry.end]
    if entry.start % dtype.itemsize:  # valid in the format, but torch needs aligned data
        part = part.clone()
    return part.view(dtype).view(entry.shape)


def _parse(file: str, header: bytes) -> dict[str, Any]:
    # a tensor has three containers; the parser holds the GIL for seconds if there are millions
    if header.count(b"[") + header.count(b"{") > 4 * MAX_TENSORS:
        raise CorruptWeights(f"{file} lists more than {MAX_TENSORS:,} tensors.")
    try:
        content = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise CorruptWeights(f"{file} has a header that is not JSON: the file is damaged. Upload it again.") from error
    if not isinstance(content, dict):
        raise CorruptWeights(f"{file} has a header that is not a JSON object.")
    content.pop("__metadata__", None)
    return content


def _entry(file: str, name: str, item: Any, offset: int, size: int) -> TensorEntry:
    if len(name) > MAX_NAME_CHARACTERS or not TENSOR_NAME.fullmatch(name):
        raise CorruptWeights(
            f"{file}: {name[:80]!r} is not a valid tensor name, which has up to {MAX_NAME_CHARACTERS} letters, digits "
            "and . _ - / : @."
        )
    try:
        dtype, shape, (start, end) = item["dtype"], tuple(item["shape"]), item["data_offsets"]
        valid = all(type(number) is int and number >= 0 for number in (*shape, start, end))
        itemsize = DTYPES[dtype].itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptWeights(f"{file}: the header's entry for {name} is malformed.") from error
    if len(shape) > MAX_DIMENSIONS:
        raise CorruptWeights(f"{file}: {name} has {len(shape):,} dimensions; the limit is {MAX_DIMENSIONS}.")
    if valid and end > size - offset:
        raise CorruptWeights(
            f"{file} is truncated: it has {size:,} bytes, and {name} ends beyond them. Upload it again."
        )
    if not valid or end - start != _elements(shape) * itemsize:
        raise CorruptWeights(f"{file}: the size of {name} does not match its shape and dtype.")
    return TensorEntry(dtype, shape, offset + start, offset + end)


def _elements(shape: Sequence[int]) -> int:
    """The number of elements of a tensor, at most `MAX_ELEMENTS`, so that huge shapes cost nothing."""
    product = 1
    for length in shape:
        product *= min(length or 1, MAX_ELEMENTS)
        if product >= MAX_ELEMENTS:
            return MAX_ELEMENTS
    return 0 if 0 in shape else product


def _check_layout(file: str, entries: dict[str, TensorEntry], offset: int, size: int) -> None:
    expected_start = offset
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != expected_start:
            raise CorruptWeights(f"{file}: the header's offsets overlap or leave gaps.")
        expected_start = entry.end
    if expected_start < size:
        raise CorruptWeights(f"{file} has {size - expected_start:,} bytes after its last tensor.")
