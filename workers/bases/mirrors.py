"""Mirrors of base models: conversions, which say so, and copies, which have the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from catalog.errors import Refused
from workers.bases.aliases import MIRROR_OWNERS, without_endings
from workers.finetunes.model_config import quantization
from workers.finetunes.repo_files import model_weights
from workers.hub.client import FetchOptions, Hub, RepoSnapshot

_TOKENIZER_FILES = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"})
# settings that differ between copies of a model and do not change its hidden states
_HARMLESS_SETTINGS = frozenset(
    {
        "_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "torch_dtype",
        "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
    }
)  # fmt: skip


def is_conversion(hub: Hub, snapshot: RepoSnapshot, original: str, options: FetchOptions) -> bool:
    """Whether a repo is `original`, the base in its card, in another format: it is quantized, or published by an
    account that mirrors models, and the card or the name says so. Raises what `Hub.fetch` raises.

    A fine-tune can be quantized as well, and its card may name the base of the fine-tuning.
    """
    if snapshot.base_relation == "quantized":
        return True
    shorter = without_endings(snapshot.repo_id)
    names = {_name(repo) for repo in (snapshot.repo_id, *shorter)}
    is_mirror_owner = snapshot.repo_id.partition("/")[0].lower() in MIRROR_OWNERS
    if _name(original) in names and (shorter or is_mirror_owner):
        return True
    is_candidate = _name(original) in names or (is_mirror_owner and snapshot.base_relation is None)
    return is_candidate and (bool(shorter) or quantization(_config(hub, snapshot, options)) is not None)


def is_copy(mirror: tuple[Hub, RepoSnapshot], original: tuple[Hub, RepoSnapshot], options: FetchOptions) -> bool:
    """Whether two repos have the same weights, by their hashes on the Hub, and settings that compute the same.

    Raises what `Hub.fetch` raises.
    """
    weights = weights_hash(mirror[1])
    if weights is None or weights != weights_hash(original[1]):
        return False
    settings, others = (_settings(_config(hub, snapshot, options)) for hub, snapshot in (mirror, original))
    return settings == others


def weights_hash(snapshot: RepoSnapshot) -> str | None:
    """A sha256 over the sha256 of each weights file, in hex, independent of the names; None if the Hub does not give
    them all.
    """
    weights = model_weights(file.path for file in snapshot.files)
    etags = [file.etag or "" for file in snapshot.files if file.path in weights]
    if not etags or any(len(etag) != 64 for etag in etags):  # not in Git LFS
        return None
    return hashlib.sha256("\n".join(sorted(etags)).encode()).hexdigest()


def same_files(one: RepoSnapshot, other: RepoSnapshot) -> bool:
    """Whether weights, config and vocabulary of two commits are the same files."""
    files, others = _measured_files(one), _measured_files(other)
    return one.sha == other.sha or (files == others and None not in files.values())


def _measured_files(snapshot: RepoSnapshot) -> dict[str, str | None]:
    measured = _TOKENIZER_FILES | {"config.json"} | model_weights(file.path for file in snapshot.files)
    return {file.path: file.etag for file in snapshot.files if file.path in measured}


def _name(repo: str) -> str:
    return repo.rpartition("/")[2].lower()


def _config(hub: Hub, snapshot: RepoSnapshot, options: FetchOptions) -> Mapping[str, object]:
    """The config of a repo; empty if it has none that can be read."""
    try:
        return hub.base_config(snapshot, options)
    except Refused:
        return {}


def _settings(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in _HARMLESS_SETTINGS and value not in (None, False)}
