"""Reading a fine-tune's folder: everything checked that can be checked without its base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from catalog.errors import FolderUnreadable, TooManyFiles, UnsafePath
from workers.finetunes.adapter_folder import Load, read_adapter
from workers.finetunes.card import base_in_card
from workers.finetunes.finetune import MAX_FILE_BYTES, FineTune
from workers.finetunes.model_folder import Headers, read_model
from workers.finetunes.repo_files import ADAPTER_CONFIG, Choice, choose_finetune
from workers.finetunes.safetensors_file import load_tensors, read_header, without_values

__all__ = ["FineTune", "find_finetune", "read_finetune", "screen_finetune"]

MAX_FILES = 10_000


def read_finetune(folder: Path, *, max_file_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES) -> FineTune:
    """Reads and verifies an adapter's config and weights, or a full model's config and headers.

    Nothing in the folder is executed or unpickled. Which of its files count is decided in
    `workers/finetunes/repo_files.py`. Raises `NothingToEmbed`, `PickledWeights`, `RemoteCode`, `InvalidAdapterConfig`,
    `InvalidModelConfig`, `UnsupportedAdapter`, `QuantisedWeights`, `CorruptWeights`, `NonFiniteWeights`,
    `FileTooLarge`, `TooManyFiles`, `UnsafePath`, `FolderUnreadable`.
    """
    top = Path(folder)
    choice = _choose(top, max_files)
    for path in choice.paths:
        _check_link(top, top / path)
    return _read(
        top,
        choice,
        headers=lambda path: read_header(top / path, max_file_bytes=max_file_bytes),
        load=lambda path: load_tensors(top / path, max_file_bytes=max_file_bytes),
    )


def screen_finetune(top: Path, choice: Choice, headers: Headers) -> FineTune:
    """A fine-tune of which only the files that describe it are in the folder `top`: everything is checked but the
    values of its tensors. `headers` gives those of a file of weights by its path in the repo.

    Raises what `read_finetune` raises, but `NonFiniteWeights`, and what `headers` raises.
    """
    return _read(top, choice, headers=headers, load=lambda path: without_values(headers(path)))


def _read(top: Path, choice: Choice, *, headers: Headers, load: Load) -> FineTune:
    card_base = base_in_card(top / "README.md")
    held, prefix = top / choice.folder, f"{choice.folder}/".lstrip("/")
    if f"{prefix}{ADAPTER_CONFIG}" in choice.paths:
        return read_adapter(held, top.name, card_base, lambda name: load(f"{prefix}{name}"))
    return read_model(held, [Path(path).name for path in choice.paths], card_base, headers)


def find_finetune(folder: Path, *, max_files: int = MAX_FILES) -> Path:
    """The folder in a plain folder that holds its fine-tune: itself, or the `checkpoint-*` that counts.

    Raises `NothingToEmbed`, `PickledWeights`, `TooManyFiles`, `FolderUnreadable`.
    """
    top = Path(folder)
    return top / _choose(top, max_files).folder


def _choose(top: Path, max_files: int) -> Choice:
    if not top.is_dir():
        raise FolderUnreadable(f"{top} is not a folder.")
    listed: list[str] = []
    try:
        for path in _files(top):
            listed.append(path)
            if len(listed) > max_files:
                raise TooManyFiles(f"{top.name} holds more than {max_files:,} files.")
    except OSError as error:
        raise FolderUnreadable(f"{top.name} cannot be read: {error.strerror or error}.") from error
    return choose_finetune(top.name, listed)


def _files(top: Path) -> Iterator[str]:
    """Files of the folder and of the checkpoints right in it; pipes, devices and links to nowhere are none."""
    with os.scandir(top) as entries:
        for entry in entries:
            if os.path.isfile(entry):
                yield entry.name
            elif entry.name.startswith("checkpoint-") and os.path.isdir(entry):
                with os.scandir(entry) as inner:
                    yield from (f"{entry.name}/{each.name}" for each in inner if os.path.isfile(each))


def _check_link(top: Path, path: Path) -> None:
    """Raises `UnsafePath` where a link leads out of the folder; the Hub client's own, to `blobs`, may."""
    real, home = path.resolve(), top.resolve()
    if real.is_relative_to(home):
        return
    snapshots = next((folder for folder in home.parents if folder.name == "snapshots"), None)
    if snapshots is None or not real.is_relative_to(snapshots.parent / "blobs"):
        raise UnsafePath(f"{path.relative_to(top)} of {top.name} is a link that leads out of its folder.")
