"""Safetensors files with false headers, made by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from catalog.errors import CatalogError, CorruptWeights, FileTooLarge, FolderUnreadable, NonFiniteWeights
from workers.finetunes.safetensors_file import MAX_HEADER_BYTES, MAX_TENSORS, load_tensors, read_header

ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write(path: Path, header: Any, data: bytes = bytes(16), *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def test_valid_file_is_read(tmp_path: Path):
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(2).bfloat16(), "empty": torch.zeros(0, 7)}
    save_file(tensors, tmp_path / "good.safetensors", metadata={"format": "pt"})
    loaded = load_tensors(tmp_path / "good.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_unaligned_tensors_are_read(tmp_path: Path):
    header = {
        "odd": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "number": {"dtype": "F32", "shape": [], "data_offsets": [3, 7]},
    }
    data = bytes([1, 2, 3]) + struct.pack("<f", 0.5)
    loaded = load_tensors(write(tmp_path / "odd.safetensors", header, data))
    assert loaded["odd"].tolist() == [1, 2, 3]
    assert loaded["number"].item() == 0.5


def test_changing_a_tensor_does_not_change_the_file(tmp_path: Path):
    save_file({"a": torch.zeros(4)}, tmp_path / "good.safetensors")
    load_tensors(tmp_path / "good.safetensors")["a"].fill_(1)
    assert load_tensors(tmp_path / "good.safetensors")["a"].sum() == 0


def test_header_has_shapes_and_dtypes(tmp_path: Path):
    save_file({"a": torch.zeros(3, 4).half()}, tmp_path / "good.safetensors")
    entry = read_header(tmp_path / "good.safetensors")["a"]
    assert (entry.dtype, entry.shape) == ("F16", (3, 4))


@pytest.mark.parametrize(
    ("header", "data"),
    [
        pytest.param({"a": ENTRY}, bytes(15), id="truncated data"),
        pytest.param({"a": ENTRY}, bytes(17), id="more data than tensors"),
        pytest.param({"a": ENTRY, "b": ENTRY}, bytes(16), id="overlapping offsets"),
        pytest.param({"a": {**ENTRY, "data_offsets": [8, 24]}}, bytes(24), id="a gap"),
        pytest.param({"a": {**ENTRY, "data_offsets": [16, 0]}}, bytes(16), id="an end before its start"),
        pytest.param({"a": {**ENTRY, "shape": [2, 3]}}, bytes(16), id="a shape of more bytes"),
        pytest.param({"a": {**ENTRY, "shape": [-2, -2]}}, bytes(16), id="a negative shape"),
        pytest.param({"a": {**ENTRY, "shape": [2, 2.0]}}, bytes(16), id="a fraction in a shape"),
        pytest.param({"a": {**ENTRY, "shape": [True, 4]}}, bytes(16), id="a boolean in a shape"),
        pytest.param({"a": {**ENTRY, "shape": "22"}}, bytes(16), id="a shape that is a string"),
        pytest.param({"a": {**ENTRY, "shape": [2**40, 2**40]}}, bytes(16), id="a shape larger than any memory"),
        pytest.param({"a": {**ENTRY, "dtype": "F31"}}, bytes(16), id="an unknown dtype"),
        pytest.param({"a": {**ENTRY, "dtype": ["F32"]}}, bytes(16), id="a dtype that is a list"),
        pytest.param({"a": {"dtype": "F32"}}, bytes(16), id="an entry without a shape"),
        pytest.param({"a": "F32"}, bytes(16), id="an entry that is a string"),
        pytest.param({"a": {**ENTRY, "shape": [10**4000] * 100}}, bytes(16), id="a shape of huge numbers"),
        pytest.param({"a": {**ENTRY, "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}, b"", id="huge and empty"),
        pytest.param({"a": {**ENTRY, "shape": [1] * 63 + [2, 2]}}, bytes(16), id="a shape of 65 dimensions"),
        pytest.param({"a": {**ENTRY, "data_offsets": [0, 10**4299]}}, bytes(16), id="an offset of 4,300 digits"),
        pytest.param({"a": {**ENTRY, "data_offsets": [10**4299, 10**4299 + 16]}}, bytes(16), id="two such offsets"),
        pytest.param(b'{"a": [' + b"[]," * 5_000_000 + b"[]]}", b"", id="millions of lists"),
        pytest.param([ENTRY], bytes(16), id="a list"),
        pytest.param(b"{", bytes(16), id="not JSON"),
        pytest.param(b"\xff\xfe{}", bytes(16), id="not UTF-8"),
        pytest.param(b"[" * 100_000, bytes(16), id="deeply nested"),
    ],
)
def test_false_headers_are_corrupt(tmp_path: Path, header: Any, data: bytes):
    with pytest.raises(CorruptWeights):
        load_tensors(write(tmp_path / "bad.safetensors", header, data))


@pytest.mark.parametrize(
    "name",
    ["a" * 513, "", "(a+)+", r"a\\1", "a b", "a\0", "a\n", "\ud800", "a*", "a$", "[a]", "{a}"],
    ids=ascii,
)
def test_invalid_tensor_names_are_corrupt(tmp_path: Path, name: str):
    with pytest.raises(CorruptWeights, match="not a valid tensor name"):
        read_header(write(tmp_path / "bad.safetensors", {name: ENTRY}))


@pytest.mark.parametrize(
    "name", ["a" * 512, "base_model.model.h.0.attn.c_attn.lora_A.weight", "tower-large/block:0.weight", "größe.0"]
)
def test_long_and_unusual_tensor_names_are_valid(tmp_path: Path, name: str):
    assert list(read_header(write(tmp_path / "good.safetensors", {name: ENTRY}))) == [name]


def test_too_many_tensors_are_corrupt(tmp_path: Path):
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = {f"{number}": empty for number in range(MAX_TENSORS + 1)}
    with pytest.raises(CorruptWeights, match="131,073 tensors"):
        read_header(write(tmp_path / "many.safetensors", header, b""))


@pytest.mark.parametrize("content", [b"", b"1234567", bytes(7)])
def test_files_without_a_header_are_corrupt(tmp_path: Path, content: bytes):
    (tmp_path / "short.safetensors").write_bytes(content)
    with pytest.raises(CorruptWeights):
        read_header(tmp_path / "short.safetensors")


def test_header_longer_than_its_file_is_corrupt(tmp_path: Path):
    with pytest.raises(CorruptWeights, match="truncated"):
        read_header(write(tmp_path / "bad.safetensors", {}, length=2**62))


def test_oversized_header_is_not_read(tmp_path: Path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as stream:
        stream.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        stream.truncate(2**40)  # sparse
    with pytest.raises(CorruptWeights, match="16 MiB"):
        read_header(path)


def test_file_over_the_size_limit_is_too_large(tmp_path: Path):
    path = write(tmp_path / "large.safetensors", {"a": ENTRY})
    with pytest.raises(FileTooLarge):
        load_tensors(path, max_file_bytes=path.stat().st_size - 1)
    assert load_tensors(path, max_file_bytes=path.stat().st_size)["a"].shape == (2, 2)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_non_finite_value_is_found(tmp_path: Path, dtype: torch.dtype, number: float):
    tensor = torch.zeros(50, 50, dtype=dtype)
    tensor[49, 49] = number
    save_file({"a": tensor}, tmp_path / "bad.safetensors")
    with pytest.raises(NonFiniteWeights, match="a holds"):
        load_tensors(tmp_path / "bad.safetensors")


def test_large_values_are_finite(tmp_path: Path):
    save_file({"a": torch.full((100, 100), 3e38)}, tmp_path / "large.safetensors")
    assert load_tensors(tmp_path / "large.safetensors")["a"].max() == 3e38


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_missing_file_is_unreadable(tmp_path: Path, name: str):
    with pytest.raises(FolderUnreadable):
        read_header(tmp_path / name)


def test_error_names_its_file(tmp_path: Path):
    with pytest.raises(CatalogError, match=r"bad\.safetensors"):
        load_tensors(write(tmp_path / "bad.safetensors", {"a": ENTRY}, b""))
