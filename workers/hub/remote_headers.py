"""Screening of a repo before its weights are downloaded, by its configs and its safetensors headers."""

from __future__ import annotations

from workers.finetunes.finetune import FineTune
from workers.finetunes.reading import screen_finetune
from workers.finetunes.safetensors_file import TensorEntry, header_length, parse_header
from workers.finetunes.shape_fit import Shape
from workers.finetunes.tensor_names import clean_name
from workers.finetunes.weight_files import read_headers, tensor_entries
from workers.hub.client import FetchOptions, Hub, RepoSnapshot

FIRST_REQUEST_BYTES = 32 * 1024  # most adapters' headers are shorter, and the bytes are kept for the download


def screen(hub: Hub, snapshot: RepoSnapshot, options: FetchOptions) -> FineTune:
    """The fine-tune of a repo as its configs and headers describe it; its tensors have no values.

    Raises what `screen_finetune` and `Hub.fetch` raise.
    """
    choice = hub.choose(snapshot)
    top = hub.fetch(snapshot, choice.description_files, options)
    for _ in choice.folder.split("/") if choice.folder else ():
        top = top.parent
    return screen_finetune(top, choice, lambda path: remote_header(hub, snapshot, path, options))


def remote_header(hub: Hub, snapshot: RepoSnapshot, path: str, options: FetchOptions) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file on the Hub, checked against the file's size according to the Hub.

    Raises `CorruptWeights`, and what `Hub.fetch` raises.
    """
    start, size = hub.first_bytes(snapshot, path, FIRST_REQUEST_BYTES, options)
    end = 8 + header_length(path, start, size)
    if end > len(start):
        start, _ = hub.first_bytes(snapshot, path, end, options)
    return parse_header(path, start[8:end], size)


def remote_shapes(hub: Hub, snapshot: RepoSnapshot, options: FetchOptions) -> dict[str, Shape]:
    """Names and shapes of all tensors that transformers loads from a base model on the Hub.

    Raises `CorruptWeights` and what `remote_header` raises.
    """
    choice = hub.choose_base(snapshot)
    folder = hub.fetch(snapshot, choice.description_files, options)
    headers = read_headers(folder, choice.paths, lambda path: remote_header(hub, snapshot, path, options))
    return {clean_name(name): entry.shape for name, entry in tensor_entries(headers).items()}
