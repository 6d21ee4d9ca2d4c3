"""Conversion of pickled adapters, and the archives that are refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from catalog.errors import CatalogError, CorruptWeights, FileTooLarge, PickledWeights
from workers.finetunes import pickled
from workers.finetunes.safetensors_file import load_tensors

LIMIT = 10**8
NUMBERS = torch.arange(10.0)


class Command:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def convert(folder: Path, content: Any, **settings: Any) -> Path:
    source, target = folder / "adapter_model.bin", folder / "adapter_model.safetensors"
    torch.save(content, source, **settings)
    pickled.convert(source, target, max_file_bytes=LIMIT)
    return target


def as_bytes(tensor: torch.Tensor) -> list[int]:
    return tensor.flatten().view(torch.uint8).tolist()


def rewrite(folder: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive of `NUMBERS` whose entries are changed."""
    torch.save({"a": NUMBERS, "b": NUMBERS + 1}, folder / "saved.bin")
    with zipfile.ZipFile(folder / "saved.bin") as saved, zipfile.ZipFile(folder / "new.bin", "w", compression) as new:
        for entry in saved.infolist():
            new.writestr(entry.filename, change(entry.filename, saved.read(entry)))
    return folder / "new.bin"


def refusal(source: Path, *, max_file_bytes: int = LIMIT) -> CatalogError:
    target = source.with_name("converted.safetensors")
    with pytest.raises(CatalogError) as raised:
        pickled.convert(source, target, max_file_bytes=max_file_bytes)
    assert not target.exists()
    return raised.value


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_tensors_of_every_dtype_are_those_of_the_safetensors_file(tmp_path: Path, kind: type):
    tensors = {f"base.{dtype}".replace("torch.", ""): torch.ones(3, 2).to(dtype) for dtype in pickled.DTYPES.values()}
    tensors |= {"layer.empty": torch.zeros(0, 4), "layer.scalar": torch.tensor(2.5), "layer.odd": torch.ones(5).half()}

    converted = load_file(convert(tmp_path, kind(tensors)))

    assert converted.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (converted[name].dtype, converted[name].shape) == (tensor.dtype, tensor.shape)
        assert as_bytes(converted[name]) == as_bytes(tensor)
    assert load_tensors(tmp_path / "adapter_model.safetensors").keys() == tensors.keys()


def test_pickle_that_runs_a_command_is_refused_and_nothing_ran(tmp_path: Path):
    ran = tmp_path / "ran"
    with pytest.raises(PickledWeights, match="could run code"):
        convert(tmp_path, {"a": NUMBERS, "b": Command(f"touch {ran}")})
    assert not ran.exists()


def test_plain_pickle_is_refused_unread(tmp_path: Path):
    ran, source = tmp_path / "ran", tmp_path / "adapter_model.bin"
    source.write_bytes(pickle.dumps(Command(f"touch {ran}")))
    assert isinstance(refusal(source), PickledWeights)
    assert not ran.exists()
    with pytest.raises(PickledWeights, match="wrote plain pickles"):
        convert(tmp_path, {"a": NUMBERS}, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([NUMBERS], "no dictionary"),
        ({"a": {"b": NUMBERS}}, "no tensor"),
        ({"a": 3}, "no tensor"),
        ({3: NUMBERS}, "not a valid tensor name"),
        ({"a b": NUMBERS}, "not a valid tensor name"),
        ({"a": NUMBERS, "b": NUMBERS}, "share their numbers"),
        ({"a": NUMBERS[:5], "b": NUMBERS[5:]}, "share their numbers"),
        ({"a": NUMBERS[:5]}, "differs from that of its storage"),
        ({"a": NUMBERS.view(2, 5).T}, "not in order"),
        ({"a": torch.ones(1).expand(10**6)}, "not in order"),
        ({"a": torch.eye(3).to_sparse()}, "no tensor"),
        ({"a": torch.ones(3, device="meta")}, "no tensor"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, "no tensor"),
    ],
)
def test_other_content_than_plain_tensors_is_refused(tmp_path: Path, content: Any, problem: str):
    with pytest.raises(CorruptWeights, match=problem):
        convert(tmp_path, content)


def test_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path):
    bomb = rewrite(tmp_path, lambda name, body: bytes(2**26) if "/data/" in name else body, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**20
    assert "compressed" in str(refusal(bomb))


def test_storage_of_another_size_than_its_entry_is_refused(tmp_path: Path):
    longer = rewrite(tmp_path, lambda name, body: body + bytes(64) if name.endswith("data/0") else body)
    assert isinstance(refusal(longer), CorruptWeights)
    shorter = rewrite(tmp_path, lambda name, body: body[:-4] if name.endswith("data/1") else body)
    assert isinstance(refusal(shorter), CorruptWeights)


def test_storages_that_no_tensor_names_are_refused(tmp_path: Path):
    torch.save({"a": NUMBERS}, tmp_path / "adapter_model.bin")
    with zipfile.ZipFile(tmp_path / "adapter_model.bin", "a") as archive:
        archive.writestr("adapter_model/data/9", bytes(40))
    assert "2 storages for 1 tensors" in str(refusal(tmp_path / "adapter_model.bin"))


def test_another_byte_order_is_refused(tmp_path: Path):
    other = rewrite(tmp_path, lambda name, body: b"big" if name.endswith("byteorder") else body)
    assert "byte order" in str(refusal(other))


def test_sizes_are_checked_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "load", None)  # it must not be called
    source = rewrite(tmp_path, lambda _, body: body)
    assert isinstance(refusal(source, max_file_bytes=100), FileTooLarge)
    vast = rewrite(tmp_path, lambda name, body: bytes(2**25 + 1) if name.endswith("data.pkl") else body)
    assert "32 MiB" in str(refusal(vast))
    monkeypatch.setattr(pickled, "MAX_TENSORS", 1)
    monkeypatch.setattr(pickled, "MAX_OTHER_ENTRIES", 2)
    assert "the limit is 1 tensors" in str(refusal(source))


@pytest.mark.parametrize("cut", [3, 100, 1000])
def test_truncated_archive_is_refused(tmp_path: Path, cut: int):
    source = rewrite(tmp_path, lambda _, body: body)
    source.write_bytes(source.read_bytes()[:-cut])
    assert isinstance(refusal(source), CorruptWeights)
