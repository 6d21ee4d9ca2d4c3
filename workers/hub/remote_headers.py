"""Screening of a repo before its weights are downloaded, by its configs and its safetensors headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from workers.finetunes.contents import FetchHeader, RawHeader
from workers.finetunes.finetune import FineTune
from workers.finetunes.reading import screen_finetune
from workers.finetunes.repo_files import Choice
from workers.finetunes.safetensors_file import header_length
from workers.finetunes.shape_fit import Shape, fetched_shapes
from workers.hub.client import FetchOptions, Hub, RepoSnapshot

FIRST_REQUEST_BYTES = 32 * 1024  # most adapters' headers are shorter, and the bytes are kept for the download


Screen = Callable[[Path, Choice, FetchHeader], FineTune]  # as `screen_finetune` does
ReadShapes = Callable[[Path, Sequence[str], FetchHeader], dict[str, Shape]]  # as `fetched_shapes` does


def screen(hub: Hub, snapshot: RepoSnapshot, options: FetchOptions, read: Screen = screen_finetune) -> FineTune:
    """The fine-tune of a repo as its configs and headers describe it; its tensors have no values.

    Raises what `screen_finetune` and `Hub.fetch` raise.
    """
    choice = hub.choose(snapshot)
    top = hub.fetch(snapshot, choice.description_files, options)
    for _ in choice.folder.split("/") if choice.folder else ():
        top = top.parent
    return read(top, choice, lambda path: fetch_header(hub, snapshot, path, options))


def fetch_header(hub: Hub, snapshot: RepoSnapshot, path: str, options: FetchOptions) -> RawHeader:
    """The header of a safetensors file on the Hub, and the file's size according to the Hub.

    Raises `CorruptWeights`, and what `Hub.fetch` raises.
    """
    start, size = hub.first_bytes(snapshot, path, FIRST_REQUEST_BYTES, options)
    end = 8 + header_length(path, start, size)
    if end > len(start):
        start, _ = hub.first_bytes(snapshot, path, end, options)
    return start[8:end], size


def remote_shapes(
    hub: Hub, snapshot: RepoSnapshot, options: FetchOptions, read: ReadShapes = fetched_shapes
) -> dict[str, Shape]:
    """Names and shapes of all tensors that transformers loads from a base model on the Hub.

    Raises `CorruptWeights` and what `fetch_header` raises.
    """
    choice = hub.choose_base(snapshot)
    folder = hub.fetch(snapshot, choice.description_files, options)
    return read(folder, choice.paths, lambda path: fetch_header(hub, snapshot, path, options))
