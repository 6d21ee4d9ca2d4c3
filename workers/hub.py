"""The Hub: resolve a repo, look at its listing, download what may be downloaded. Nothing here reads a weight."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

from catalog.errors import DiskFull, FileTooLarge, HubUnavailable, TooManyFiles, UnsafePath, UnsupportedBase
from catalog.repository.models import Metadata
from workers.hub_files import Choice, RepoFile, check_path, choose_base, choose_finetune
from workers.hub_metadata import metadata, the_only
from workers.hub_session import Meter, hub_errors, one_try

__all__ = ["Hub", "Progress", "RepoFile", "RepoSnapshot"]

Progress = Callable[[int, int], None]  # bytes done, bytes in all; may raise to stop the download

NO_METADATA = Metadata()

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RepoSnapshot:
    """A repo at one commit. `repo_id` is the Hub's own name for it, which differs from the asked one after a rename;
    `card_base` is the model card's `base_model` where it names exactly one.
    """

    repo_id: str
    sha: str
    files: tuple[RepoFile, ...]
    card_base: str | None = None
    metadata: Metadata = NO_METADATA


class Hub:
    """A Hub at `endpoint`, seen with `token` (None: anonymously, whatever a login left on this machine).

    Downloads lie in `downloads_dir` in the client's own layout: a file is stored once by its ETag, and a commit's
    folder links to it, so a commit that changes only the card fetches only the card. Methods may be called from
    several threads. The client's session is one per process, and so is `timeout` (seconds without a byte): the Hub
    made last sets it.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        downloads_dir: Path,
        *,
        timeout: float,
        max_file_bytes: int,
        max_repo_files: int,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token: str | bool = token or False  # False, not None: None would look for a token on this machine
        self._downloads = downloads_dir
        self._max_file_bytes = max_file_bytes
        self._max_repo_files = max_repo_files
        self._api = HfApi(endpoint=self._endpoint, token=self._token)
        one_try(timeout)
        # Xet has its own network code (no limits of ours) and a cache outside downloads_dir; plain HTTP serves all
        constants.HF_HUB_DISABLE_XET = True

    def resolve(self, repo_id: str, revision: str | None = None) -> RepoSnapshot:
        """The commit that `revision` (a branch, a tag, a commit; None: `main`) stands for now, and its listing.

        Raises `RepoNotFound`, `RevisionNotFound`, `RepoGated`, `HubRateLimited`, `HubUnavailable`.
        """
        with hub_errors(repo_id, revision):
            info = self._api.model_info(repo_id, revision=revision or "main", files_metadata=True)
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise HubUnavailable(f"The Hub names no commit for {repo_id}.")
        files = tuple(RepoFile(file.rfilename, file.size) for file in info.siblings or ())
        card_base = info.card_data.get("base_model") if info.card_data else None
        return RepoSnapshot(info.id or repo_id, info.sha, files, the_only(card_base), metadata(info))

    def fetch_finetune(self, snapshot: RepoSnapshot, on_progress: Progress | None = None) -> Path:
        """Download the fine-tune of `snapshot` and return the folder that holds it.

        Which files these are is decided in `workers/hub_files.py`. Raises `TooManyFiles`, `UnsafePath`,
        `PickledWeights`, `NothingToEmbed`, `FileTooLarge`, `DiskFull` and what `resolve` raises.
        """
        paths = self._checked_paths(snapshot)
        return self._fetch(snapshot, choose_finetune(snapshot.repo_id, paths), on_progress)

    def base_config(self, snapshot: RepoSnapshot) -> dict[str, object]:
        """The `config.json` of a base model, to look at before gigabytes follow.

        Raises `UnsupportedBase` where it has none, and what `fetch_finetune` raises.
        """
        if "config.json" not in self._checked_paths(snapshot):
            raise UnsupportedBase(f"{snapshot.repo_id} has no config.json, so it is not a base model.")
        folder = self._fetch(snapshot, Choice("", ("config.json",)), None)
        return read_config(folder, snapshot.repo_id)

    def fetch_base(self, snapshot: RepoSnapshot, on_progress: Progress | None = None) -> Path:
        """Download a base model: config, tokenizer and safetensors. Raises what `fetch_finetune` raises."""
        paths = self._checked_paths(snapshot)
        return self._fetch(snapshot, choose_base(snapshot.repo_id, paths), on_progress)

    def _checked_paths(self, snapshot: RepoSnapshot) -> list[str]:
        if len(snapshot.files) > self._max_repo_files:
            raise TooManyFiles(
                f"{snapshot.repo_id} holds {len(snapshot.files):,} files; the limit is {self._max_repo_files:,}."
            )
        for file in snapshot.files:
            check_path(file.path)
        return [file.path for file in snapshot.files]

    def _fetch(self, snapshot: RepoSnapshot, choice: Choice, on_progress: Progress | None) -> Path:
        sizes = self._sizes(snapshot, [path for path in choice.paths if not self._cached(snapshot, path)])
        for path, size in sizes.items():
            if size > self._max_file_bytes:
                raise FileTooLarge(
                    f"{path} of {snapshot.repo_id} has {size:,} bytes; the limit is {self._max_file_bytes:,}."
                )
        done, fetched, total = 0, 0, sum(sizes.values())
        self._check_disk(snapshot, total)

        def tell(count: int) -> None:
            nonlocal done
            done += count
            if count and on_progress:
                on_progress(done, total)

        top = self._downloads
        for path in choice.paths:
            local = self._download(snapshot, path, partial(Meter, path, self._max_file_bytes, tell))
            fetched += sizes.get(path, 0)
            tell(fetched - done)  # nothing, unless the client had the file already under another commit
            top = local.parents[path.count("/")]
        return top / choice.folder

    def _download(self, snapshot: RepoSnapshot, path: str, meter: Callable[..., Meter]) -> Path:
        with hub_errors(snapshot.repo_id, snapshot.sha):
            local = Path(
                hf_hub_download(
                    snapshot.repo_id,
                    path,
                    revision=snapshot.sha,
                    cache_dir=self._downloads,
                    endpoint=self._endpoint,
                    token=self._token,
                    tqdm_class=cast(Any, meter),
                )
            )
        # the client names what it stores after the ETag it was sent, and would link to what lies there already
        if not local.resolve().is_relative_to(self._downloads.resolve()):
            local.unlink()
            raise UnsafePath(f"{path} of {snapshot.repo_id} leads out of the downloads folder.")
        return local

    def _cached(self, snapshot: RepoSnapshot, path: str) -> bool:
        found = try_to_load_from_cache(snapshot.repo_id, path, cache_dir=self._downloads, revision=snapshot.sha)
        return isinstance(found, str)

    def _sizes(self, snapshot: RepoSnapshot, paths: list[str]) -> dict[str, int]:
        """Bytes of each file to fetch; those that the listing does not tell (a mirror's may not) are asked for."""
        sizes = {file.path: file.size for file in snapshot.files if file.path in paths}
        unknown = [path for path, size in sizes.items() if size is None]
        if unknown:
            with hub_errors(snapshot.repo_id, snapshot.sha):
                for info in self._api.get_paths_info(snapshot.repo_id, unknown, revision=snapshot.sha):
                    sizes[info.path] = getattr(info, "size", None)
        return {path: size or 0 for path, size in sizes.items()}

    def _check_disk(self, snapshot: RepoSnapshot, size: int) -> None:
        self._downloads.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._downloads).free
        if size > free:
            raise DiskFull(f"{snapshot.repo_id} has {size:,} bytes; {free:,} are free for downloads.")


def read_config(folder: Path, name: str) -> dict[str, object]:
    """`config.json` of the base model `name` in `folder`; raises `UnsupportedBase` where that is not an object."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedBase(f"The config.json of {name} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise UnsupportedBase(f"The config.json of {name} is not an object.")
    return config
