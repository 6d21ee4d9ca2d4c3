"""Reading the folder of a fine-tune, with every check that does not need its base."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from catalog.errors import FolderUnreadable, NoSupportedWeights, TooManyFiles, UnsafePath
from workers.finetunes.adapter_folder import Load, read_adapter
from workers.finetunes.card import bases_in_card
from workers.finetunes.finetune import MAX_FILE_BYTES, FineTune
from workers.finetunes.model_folder import read_model
from workers.finetunes.repo_files import ADAPTER_CONFIG, Choice, choose_finetune
from workers.finetunes.safetensors_file import load_tensors, read_header, without_values
from workers.finetunes.weight_files import ReadHeader

__all__ = ["FineTune", "find_finetune", "read_finetune", "screen_finetune"]

MAX_FILES = 10_000
MAX_LEVELS = 4  # of folders that are listed for an error


def read_finetune(folder: Path, *, max_file_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES) -> FineTune:
    """Read and verify an adapter's config and weights, or a full model's config and headers.

    Nothing in the folder is executed or unpickled. The files are chosen by the rules of
    `workers/finetunes/repo_files.py`.

    Raises `NoSupportedWeights`, `PickledWeights`, `RemoteCode`, `InvalidAdapterConfig`, `InvalidModelConfig`,
    `UnsupportedAdapter`, `QuantizedWeights`, `CorruptWeights`, `NonFiniteWeights`, `FileTooLarge`, `TooManyFiles`,
    `UnsafePath`, `FolderUnreadable`.
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


def screen_finetune(top: Path, choice: Choice, headers: ReadHeader) -> FineTune:
    """Read and verify a fine-tune without the values of its tensors, if `top` has only its description files.

    `headers` returns the header of a weights file by its path in the repo.

    Raises what `read_finetune` raises, except `NonFiniteWeights`, and what `headers` raises.
    """
    return _read(top, choice, headers=headers, load=lambda path: without_values(headers(path)))


def _read(top: Path, choice: Choice, *, headers: ReadHeader, load: Load) -> FineTune:
    card_bases = bases_in_card(top / "README.md")
    folder, prefix = top / choice.folder, f"{choice.folder}/".lstrip("/")
    if f"{prefix}{ADAPTER_CONFIG}" in choice.paths:
        files = [path.removeprefix(prefix) for path in choice.weights]
        return read_adapter(folder, top.name, files, card_bases, lambda name: load(f"{prefix}{name}"))
    return read_model(folder, [Path(path).name for path in choice.paths], card_bases, headers)


def find_finetune(folder: Path, *, max_files: int = MAX_FILES) -> Path:
    """The folder of the fine-tune within a local folder: the folder itself, or one of its `checkpoint-*` folders.

    Raises `NoSupportedWeights`, `PickledWeights`, `TooManyFiles`, `FolderUnreadable`.
    """
    top = Path(folder)
    return top / _choose(top, max_files).folder


def _choose(top: Path, max_files: int) -> Choice:
    if not top.is_dir():
        raise FolderUnreadable(f"{top} is not a folder.")
    try:
        return choose_finetune(top.name, _listed(top, _is_checkpoint, max_files))
    except NoSupportedWeights as error:
        # other folders are listed only for the error, which names what lies in them
        try:
            return choose_finetune(top.name, _listed(top, _is_named, max_files))
        except TooManyFiles:
            raise error from None


def _is_checkpoint(folder: str) -> bool:
    return folder.startswith("checkpoint-") and "/" not in folder


def _is_named(folder: str) -> bool:
    """Whether a folder may be named in an error: it is not hidden, such as that of git, and not too deep."""
    return folder.count("/") < MAX_LEVELS and not folder.rpartition("/")[2].startswith(".")


def _listed(top: Path, enters: Callable[[str], bool], max_files: int) -> list[str]:
    """Regular files of the folder and of those in it that are entered, without pipes, devices and dangling links.

    Raises `TooManyFiles`, `FolderUnreadable`.
    """
    listed: list[str] = []
    try:
        for path in _files(top, "", enters):
            listed.append(path)
            if len(listed) > max_files:
                raise TooManyFiles(f"{top.name} has more than {max_files:,} files.")
    except OSError as error:
        raise FolderUnreadable(f"{top.name} cannot be read: {error.strerror or error}.") from error
    return listed


def _files(folder: Path, prefix: str, enters: Callable[[str], bool]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if os.path.isfile(entry):
                yield path
            elif enters(path) and os.path.isdir(entry):
                yield from _files(Path(entry.path), f"{path}/", enters)


def _check_link(top: Path, path: Path) -> None:
    """Raises `UnsafePath` for a link out of the folder, except the links of `huggingface_hub` to `blobs`."""
    real, root = path.resolve(), top.resolve()
    if real.is_relative_to(root):
        return
    snapshots = next((folder for folder in root.parents if folder.name == "snapshots"), None)
    if snapshots is None or not real.is_relative_to(snapshots.parent / "blobs"):
        raise UnsafePath(f"{path.relative_to(top)} of {top.name} is a link that leads out of its folder.")
