"""The files of a repo to download, chosen from its listing alone.

The rules, in order:

1. An adapter at the top level (`adapter_config.json` and `adapter_model.safetensors` or its shards, or the
   `adapters.safetensors` of MLX) takes precedence over full weights: the full weights are the same change at a hundred
   times the size. Only the adapter's files are downloaded.
2. Next come full weights at the top level (`config.json` and `model.safetensors` or its shards, which may have any
   names if there is an index). An adapter config
   without safetensors is not downloaded, because a loader would look for the missing weights.
3. Last comes the adapter in the `checkpoint-N/` folder with the highest N, which is the end of the training.
4. Where pickled adapters are read, an adapter with `adapter_model.bin` in the same places follows.
5. A repo with none of these raises `PickledWeights` if it has pickled weights, and otherwise `NoSupportedWeights`. Both
   say what the repo holds instead (`workers/finetunes/unusable.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from catalog.errors import NoSupportedWeights, UnsafePath
from workers.finetunes.unusable import ADAPTER_CONFIG, ADAPTER_SHARD, MODEL_WEIGHTS, PICKLED_ADAPTER, unusable

ALLOWED_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md")
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MLX_WEIGHTS = "adapters.safetensors"

INDEX_FILE = "model.safetensors.index.json"
DESCRIPTION_FILES = frozenset({ADAPTER_CONFIG, "config.json", INDEX_FILE, "README.md"})
MAX_DESCRIPTION_BYTES = 16 * 2**20  # such a file is downloaded before anything is known about the repo
_CHECKPOINT = re.compile(r"checkpoint-\d{1,18}")
WHOLE_MODEL = "model.safetensors"
_OTHER_SHARD = re.compile(r"(?!adapter|consolidated)[^/]+\.safetensors")  # only an index can name it
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class RepoFile:
    """An entry of a repo's listing. `size` (bytes) and `etag` (hash of the content) are None if not listed."""

    path: str
    size: int | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Choice:
    """The paths to download, and the folder of the model within the repo ("" for the top level)."""

    folder: str
    paths: tuple[str, ...]

    @property
    def description_files(self) -> Choice:
        """The same choice without weights and tokenizer: only the files that describe the model."""
        return Choice(self.folder, tuple(path for path in self.paths if path.rpartition("/")[2] in DESCRIPTION_FILES))

    @property
    def is_pickled(self) -> bool:
        """Whether it is an adapter whose weights are a pickle, and have no header to read before a download."""
        return any(path.rpartition("/")[2] == PICKLED_ADAPTER for path in self.paths)

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(path for path in self.paths if path.endswith(".safetensors"))


def choose_finetune(repo_id: str, paths: Iterable[str], *, pickled: bool = False) -> Choice:
    """The files of the fine-tune in `repo_id`, by the rules in the docstring of this module. `pickled`: whether pickled
    adapters are read.

    Raises `PickledWeights` and `NoSupportedWeights`.
    """
    listed = set(paths)
    if adapter := _adapter(listed, ""):
        return Choice("", adapter)
    if full := _full_model(listed):
        return Choice("", full)
    checkpoints = {folder for path in listed if _CHECKPOINT.fullmatch(folder := path.rpartition("/")[0])}
    newest_first = sorted(checkpoints, key=_step, reverse=True)
    for folder in newest_first:
        if adapter := _adapter(listed, f"{folder}/"):
            return Choice(folder, adapter)
    for folder in ("", *newest_first) if pickled else ():
        if adapter := _pickled_adapter(listed, f"{folder}/".lstrip("/")):
            return Choice(folder, adapter)
    raise unusable(repo_id, listed)


def choose_base(repo_id: str, paths: Iterable[str]) -> Choice:
    """The config, tokenizer and safetensors files of the base model in `repo_id`.

    Raises `PickledWeights` and `NoSupportedWeights`.
    """
    listed = set(paths)
    if full := _full_model(listed):
        return Choice("", full)
    if _adapter(listed, ""):
        raise NoSupportedWeights(f"{repo_id} is an adapter and no base model: name the model that it was trained on.")
    raise unusable(repo_id, listed)


def model_weights(paths: Iterable[str]) -> set[str]:
    """The files of a model's weights at the top level, of which the index may name fewer. Shards have other names than
    the usual ones only if there is an index.
    """
    listed = set(paths)
    if WHOLE_MODEL in listed:  # transformers loads no shards then
        return {WHOLE_MODEL}
    shards = {path for path in listed if MODEL_WEIGHTS.fullmatch(path)}
    if shards or INDEX_FILE not in listed:
        return shards
    return {path for path in listed if _OTHER_SHARD.fullmatch(path)}


def check_path(path: str) -> None:
    """Raises `UnsafePath` for a path that could lead out of the folder that it is joined to."""
    has_special_part = "\\" in path or "\0" in path or _DRIVE.match(path)
    if has_special_part or any(part in ("", ".", "..") for part in path.split("/")):
        raise UnsafePath(f"The repo lists the path {path!r}, which leads out of its folder.")


def _full_model(listed: set[str]) -> tuple[str, ...] | None:
    weights = model_weights(listed)
    if not weights or "config.json" not in listed:
        return None
    other_files = {path for path in listed if "/" not in path and not path.endswith(".safetensors") and _allowed(path)}
    return tuple(sorted(weights | other_files - {ADAPTER_CONFIG}))


def _adapter(listed: set[str], prefix: str) -> tuple[str, ...] | None:
    """The files of the adapter in the folder `prefix`; None if there is no complete one."""
    config = f"{prefix}{ADAPTER_CONFIG}"
    if config not in listed:
        return None
    single = next((f"{prefix}{name}" for name in (ADAPTER_WEIGHTS, MLX_WEIGHTS) if f"{prefix}{name}" in listed), None)
    weights = {single} if single else _shards(listed, prefix)
    return tuple(sorted(weights | {config} | ({"README.md"} & listed))) if weights else None


def _pickled_adapter(listed: set[str], prefix: str) -> tuple[str, ...] | None:
    """The files of the pickled adapter in the folder `prefix`."""
    files = {f"{prefix}{ADAPTER_CONFIG}", f"{prefix}{PICKLED_ADAPTER}"}
    return tuple(sorted(files | ({"README.md"} & listed))) if files <= listed else None


def _shards(listed: set[str], prefix: str) -> set[str]:
    """The shards of the adapter in the folder `prefix`; empty if one is missing."""
    shards = {
        path: match
        for path in listed
        if path.startswith(prefix) and (match := ADAPTER_SHARD.fullmatch(path, len(prefix)))
    }
    counts = {int(match[2]) for match in shards.values()}
    return set(shards) if counts == {len(shards)} else set()


def _step(folder: str) -> int:
    return int(folder.removeprefix("checkpoint-"))


def _allowed(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in ALLOWED_PATTERNS)


def guarded_file(paths: Sequence[str]) -> str | None:
    """A file that can only be downloaded with access to the repo; the card of a gated repo is public. None if there is
    no such file.
    """
    guarded = [path for path in paths if path.endswith((".safetensors", ".json"))]
    return min(guarded, default=None)
