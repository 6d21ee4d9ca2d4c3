"""Reading the folder of a fine-tune, with every check that does not need its base."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from catalog.errors import FolderUnreadable, NoSupportedWeights, TooManyFiles, UnsafePath
from workers.finetunes.adapter_folder import Load, read_adapter
from workers.finetunes.contents import Contents, FetchHeader, Files, FolderFiles, RecordedFiles, parse_fetched
from workers.finetunes.finetune import MAX_FILE_BYTES, FineTune
from workers.finetunes.model_folder import read_model
from workers.finetunes.repo_files import ADAPTER_CONFIG, Choice, choose_finetune
from workers.finetunes.safetensors_file import load_tensors, read_header, without_values
from workers.finetunes.weight_files import Header

__all__ = [
    "FineTune",
    "build_finetune",
    "choose_checked",
    "find_finetune",
    "read_contents",
    "read_finetune",
    "screen_finetune",
]

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
    choice = choose_checked(folder, max_files=max_files)
    top = Path(folder)
    files = FolderFiles(top, partial(_read_local_header, top, max_file_bytes))
    return _read(top, choice, files, load=lambda path: load_tensors(top / path, max_file_bytes=max_file_bytes))


def screen_finetune(top: Path, choice: Choice, fetch_header: FetchHeader) -> FineTune:
    """Read and verify a fine-tune without the values of its tensors, if `top` has only its description files.

    `fetch_header` returns the header of a weights file by its path in the repo.

    Raises what `read_finetune` raises, except `NonFiniteWeights`, and what `fetch_header` raises.
    """
    return _screen(top, choice, FolderFiles(top, parse_fetched(fetch_header)))


def read_contents(
    top: Path, choice: Choice, fetch_header: FetchHeader | None = None, *, max_file_bytes: int = MAX_FILE_BYTES
) -> tuple[Contents, FineTune]:
    """Screen a fine-tune, and return what was parsed as well. Headers are read from `top` without `fetch_header`.

    Raises what `screen_finetune` raises.
    """
    read_local = partial(_read_local_header, top, max_file_bytes)
    files = RecordedFiles(top, FolderFiles(top, parse_fetched(fetch_header) if fetch_header else read_local))
    finetune = _screen(top, choice, files)
    return files.contents, finetune


def build_finetune(choice: Choice, contents: Contents, *, values: bool) -> FineTune:
    """The fine-tune of parsed files, with the values of its tensors from the folder or without them.

    Raises `NonFiniteWeights`, `CorruptWeights`, `FolderUnreadable`, and what was raised when the files were parsed.
    """
    top = contents.top
    if not values:
        return _screen(top, choice, contents)
    return _read(top, choice, contents, load=lambda path: load_tensors(top / path, contents.headers[path]))


def choose_checked(folder: Path, *, max_files: int = MAX_FILES, pickled: bool = False) -> Choice:
    """The files of the fine-tune in a folder. `pickled`: whether pickled adapters are read.

    Raises `UnsafePath` for links out of it, and what `find_finetune` raises.
    """
    top = Path(folder)
    choice = _choose(top, max_files, pickled)
    for path in choice.paths:
        _check_link(top, top / path)
    return choice


def _screen(top: Path, choice: Choice, files: Files) -> FineTune:
    return _read(top, choice, files, load=lambda path: without_values(files.read_header(path)))


def _read(top: Path, choice: Choice, files: Files, *, load: Load) -> FineTune:
    folder, prefix = top / choice.folder, f"{choice.folder}/".lstrip("/")
    if f"{prefix}{ADAPTER_CONFIG}" in choice.paths:
        weights = [path.removeprefix(prefix) for path in choice.weights]
        return read_adapter(folder, top.name, weights, files, lambda name: load(f"{prefix}{name}"))
    return read_model(folder, [Path(path).name for path in choice.paths], files)


def _read_local_header(top: Path, max_file_bytes: int, path: str) -> Header:
    return read_header(top / path, max_file_bytes=max_file_bytes)


def find_finetune(folder: Path, *, max_files: int = MAX_FILES, pickled: bool = False) -> Path:
    """The folder of the fine-tune within a local folder: the folder itself, or one of its `checkpoint-*` folders.

    Raises `NoSupportedWeights`, `PickledWeights`, `TooManyFiles`, `FolderUnreadable`.
    """
    top = Path(folder)
    return top / _choose(top, max_files, pickled).folder


def _choose(top: Path, max_files: int, pickled: bool) -> Choice:
    if not top.is_dir():
        raise FolderUnreadable(f"{top} is not a folder.")
    try:
        return choose_finetune(top.name, _listed(top, _is_checkpoint, max_files), pickled=pickled)
    except NoSupportedWeights as error:
        # other folders are listed only for the error, which names what lies in them
        try:
            return choose_finetune(top.name, _listed(top, _is_named, max_files), pickled=pickled)
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
