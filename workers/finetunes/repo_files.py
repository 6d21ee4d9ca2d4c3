"""Which files of a repo are fetched: a pure choice over its listing, so that nothing else is ever asked for.

Decided, in this order:

1. An adapter at the top (`adapter_config.json` and `adapter_model.safetensors`) wins over full weights beside it:
   the repo says by its config that it is an adapter, and its full weights are the same change at a hundred times
   the size. Only the adapter's own files are fetched.
2. Full weights at the top (`config.json` and `model.safetensors` or its shards) come next. An adapter's config that
   lies there without safetensors is left behind, since a loader would follow it to weights that are not there.
3. Adapters in `checkpoint-N/` folders alone: the highest N is the last state of the training, and is taken.
4. Nothing of that, but pickled weights: `PickledWeights`. Neither: `NothingToEmbed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from catalog.errors import NothingToEmbed, PickledWeights, UnsafePath

ALLOWED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

DESCRIBING = frozenset({ADAPTER_CONFIG, "config.json", "model.safetensors.index.json", "README.md"})
MAX_DESCRIBING = 16 * 2**20  # bytes; such a file is fetched before anything is known of the repo
_MODEL_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")  # what AutoModel loads; not a second copy beside it
_PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt)")
_TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state\w*)\.(bin|pt|pth)")
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class RepoFile:
    """One line of a repo's listing; `size` in bytes and `etag` (the content's hash) where the Hub tells them."""

    path: str
    size: int | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Choice:
    """The paths to fetch, and the folder among them that holds the model ("" is the top)."""

    folder: str
    paths: tuple[str, ...]

    @property
    def described_by(self) -> Choice:
        """The files that say what the model is, without its weights and its tokenizer."""
        return Choice(self.folder, tuple(path for path in self.paths if path.rpartition("/")[2] in DESCRIBING))

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(path for path in self.paths if path.endswith(".safetensors"))


def choose_finetune(repo_id: str, paths: Iterable[str]) -> Choice:
    """The files that make up the fine-tune in `repo_id`; the order of decision stands at the top of this file.

    Raises `PickledWeights` and `NothingToEmbed`.
    """
    listed = set(paths)
    if {ADAPTER_CONFIG, ADAPTER_WEIGHTS} <= listed:
        return Choice("", tuple(sorted({ADAPTER_CONFIG, ADAPTER_WEIGHTS, "README.md"} & listed)))
    if full := _full_model(listed):
        return Choice("", full)
    if folder := _last_checkpoint(listed):
        own = {f"{folder}/{name}" for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
        return Choice(folder, tuple(sorted(own | ({"README.md"} & listed))))
    raise _nothing_usable(repo_id, listed)


def choose_base(repo_id: str, paths: Iterable[str]) -> Choice:
    """The config, the tokenizer's files and the safetensors of the base model in `repo_id`.

    Raises `PickledWeights` and `NothingToEmbed`.
    """
    listed = set(paths)
    if full := _full_model(listed):
        return Choice("", full)
    raise _nothing_usable(repo_id, listed)


def check_path(path: str) -> None:
    """Raise `UnsafePath` where a repo's path, joined to a folder, could leave it."""
    tricks = "\\" in path or "\0" in path or _DRIVE.match(path)
    if tricks or any(part in ("", ".", "..") for part in path.split("/")):
        raise UnsafePath(f"The repo lists the path {path!r}, which could be written outside its folder.")


def _full_model(listed: set[str]) -> tuple[str, ...] | None:
    weights = {path for path in listed if _MODEL_WEIGHTS.fullmatch(path)}
    if not weights or "config.json" not in listed:
        return None
    beside = {path for path in listed if "/" not in path and not path.endswith(".safetensors") and _allowed(path)}
    return tuple(sorted(weights | beside - {ADAPTER_CONFIG}))


def _last_checkpoint(listed: set[str]) -> str | None:
    numbers: list[tuple[int, str]] = []
    for path in listed:
        folder, _, name = path.rpartition("/")
        match = _CHECKPOINT.fullmatch(folder)
        if match and name == ADAPTER_CONFIG and f"{folder}/{ADAPTER_WEIGHTS}" in listed:
            numbers.append((int(match[1]), folder))
    return max(numbers)[1] if numbers else None


def _allowed(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in ALLOWED)


def _nothing_usable(repo_id: str, listed: set[str]) -> NothingToEmbed | PickledWeights:
    names = {path.rpartition("/")[2] for path in listed}
    pickled = sorted(name for name in names if _PICKLED.fullmatch(name) and not _TRAINING_STATE.fullmatch(name))
    if pickled:
        return PickledWeights(
            f"{repo_id} has its weights only as {pickled[0]}, a pickle, which could run code when it is opened. "
            "Save them as safetensors and submit the new commit."
        )
    return NothingToEmbed(
        f"{repo_id} holds neither an adapter ({ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}) "
        "nor a model (config.json and model*.safetensors)."
    )


def guarded_file(paths: Sequence[str]) -> str | None:
    """A file that the Hub shows to nobody who may not read the repo; of a gated one it shows the card to everybody."""
    guarded = [path for path in paths if path.endswith((".safetensors", ".json"))]
    return min(guarded, default=None)
