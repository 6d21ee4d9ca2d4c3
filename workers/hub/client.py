"""The Hub: resolve a repo, look at its listing, download what may be downloaded. Nothing here reads a weight."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id
from pydantic import SecretStr

from catalog.errors import HubUnavailable, Refused, TooManyFiles, UnsupportedBase
from catalog.models.repository.models import Metadata
from workers.finetunes.json_file import read_object
from workers.finetunes.repo_files import (
    MAX_DESCRIBING,
    Choice,
    RepoFile,
    check_path,
    choose_base,
    choose_finetune,
    guarded_file,
)
from workers.hub.download_cache import Downloads
from workers.hub.file_fetcher import FileFetcher, Progress
from workers.hub.metadata import metadata, read_info, the_only
from workers.hub.rate_limits import HubLimits, Stop
from workers.hub.session import hub_errors, one_try
from workers.process.file_locks import Hold

__all__ = ["Hub", "Progress", "RepoFile", "RepoSnapshot", "Taking"]

NO_METADATA = Metadata()

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RepoSnapshot:
    """A repo at one commit. `repo_id` is the Hub's own name for it, which differs from the asked one after a rename;
    `card_base` is the model card's `base_model` where it names exactly one; `public` is whether the Hub says that
    everybody may read it.
    """

    repo_id: str
    sha: str
    files: tuple[RepoFile, ...]
    card_base: str | None = None
    metadata: Metadata = NO_METADATA
    public: bool = False


@dataclass(frozen=True)
class Taking:
    """How to take files: `progress` is told of the bytes; `stop` is asked between blocks, and a true answer ends it
    with `DownloadStopped`; until `hold` is released, nothing that was taken is evicted (None: until the call ends).
    """

    progress: Progress | None = None
    stop: Stop | None = None
    hold: Hold | None = field(default=None, compare=False)


PLAIN = Taking()


class Hub:
    """A Hub at `endpoint`, seen with `token` (None: anonymously, whatever a login left on this machine).

    Downloads lie in `downloads_dir` in the client's own layout: a file is stored once by its ETag, and a commit's
    folder links to it, so a commit that changes only the card fetches only the card. `budget` is how many bytes they
    may take (None: what the disk has), `downloads` how many files one process fetches at once; what all workers may
    ask together is in `limits`. Methods may be called from several threads. The client's session is one per process,
    and so are `timeout` (seconds without a byte) and `limits`: the Hub made last sets them.
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
        budget: int | None = None,
        downloads: int = 4,
        limits: HubLimits | None = None,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._max_repo_files = max_repo_files
        known: str | bool = token or False  # False, not None: None would look for a token on this machine
        self._token = known
        limits = limits or HubLimits()
        self._downloads = Downloads(downloads_dir, budget)
        self._files = FileFetcher(
            self._endpoint, known, self._downloads, limits, at_once=downloads, max_file_bytes=max_file_bytes
        )
        one_try(timeout, limits)
        # Xet has its own network code (no limits of ours) and a cache outside downloads_dir; plain HTTP serves all
        constants.HF_HUB_DISABLE_XET = True

    def seen_with(self, token: SecretStr) -> Hub:
        """The same Hub, folder and limits, seen with another token, which nothing but the result knows."""
        other = copy.copy(self)
        other._token = token.get_secret_value()
        other._files = self._files.seen_with(token)
        return other

    def resolve(self, repo_id: str, revision: str | None = None) -> RepoSnapshot:
        """The commit that `revision` (a branch, a tag, a commit; None: `main`) stands for now, and its listing.

        Everybody may list a gated repo, and another job may have left its files here: of a repo that is not public one
        file is asked for with this Hub's own token before any is used. Raises `RepoNotFound`, `RevisionNotFound`,
        `RepoGated`, `HubRateLimited`, `HubUnavailable`.
        """
        with hub_errors(repo_id, revision):
            validate_repo_id(repo_id)
            url = f"{self._endpoint}/api/models/{repo_id}/revision/{quote(revision or 'main', safe='')}"
            response = get_session().get(url, headers=build_hf_headers(token=self._token), params={"blobs": True})
            hf_raise_for_status(response)
            info = read_info(response.json())
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise HubUnavailable(f"The Hub names no commit for {repo_id}.")
        files = tuple(RepoFile(file.rfilename, file.size, _etag(file)) for file in info.siblings or ())
        card_base = info.card_data.get("base_model") if info.card_data else None
        public = info.private is False and info.gated is False
        snapshot = RepoSnapshot(info.id or repo_id, info.sha, files, the_only(card_base), metadata(info), public)
        if not public and (guarded := guarded_file([file.path for file in files])) is not None:
            self._files.check_access(snapshot.repo_id, snapshot.sha, guarded)
        return snapshot

    def choose(self, snapshot: RepoSnapshot) -> Choice:
        """The files that make up the fine-tune of `snapshot`, as decided in `workers/finetunes/repo_files.py`.

        Raises `TooManyFiles`, `UnsafePath`, `PickledWeights`, `NothingToEmbed`, `FileTooLarge`.
        """
        choice = choose_finetune(snapshot.repo_id, self._checked_paths(snapshot))
        self._files.check_sizes(snapshot.repo_id, self._chosen(snapshot, choice.paths))
        return choice

    def choose_base(self, snapshot: RepoSnapshot) -> Choice:
        """Config, tokenizer and safetensors of a base model. Raises what `choose` raises."""
        return choose_base(snapshot.repo_id, self._checked_paths(snapshot))

    def fetch(self, snapshot: RepoSnapshot, choice: Choice, taking: Taking = PLAIN) -> Path:
        """Download the chosen files and return the folder that holds the model.

        Raises `FileTooLarge`, `DiskFull`, `UnsafePath`, `DownloadStopped`, `Unavailable` and what `resolve` raises.
        """
        with self._held(snapshot, taking):
            self._files.fetch(
                snapshot.repo_id, snapshot.sha, self._chosen(snapshot, choice.paths), taking.progress, taking.stop
            )
        return self._downloads.link_of(snapshot.repo_id, snapshot.sha, choice.folder)

    def fetch_finetune(self, snapshot: RepoSnapshot, taking: Taking = PLAIN) -> Path:
        """Download the fine-tune of `snapshot` and return the folder that holds it. Raises what `choose` and `fetch`
        raise.
        """
        return self.fetch(snapshot, self.choose(snapshot), taking)

    def fetch_base(self, snapshot: RepoSnapshot, taking: Taking = PLAIN) -> Path:
        """Download a base model. Raises what `choose_base` and `fetch` raise."""
        return self.fetch(snapshot, self.choose_base(snapshot), taking)

    def base_config(self, snapshot: RepoSnapshot, taking: Taking = PLAIN) -> dict[str, object]:
        """The `config.json` of a base model, to look at before gigabytes follow.

        Raises `UnsupportedBase` where it has none, and what `fetch` raises.
        """
        if "config.json" not in self._checked_paths(snapshot):
            raise UnsupportedBase(f"{snapshot.repo_id} has no config.json, so it is not a base model.")
        folder = self.fetch(snapshot, Choice("", ("config.json",)), taking)
        return read_base_config(folder, snapshot.repo_id)

    def first_bytes(self, snapshot: RepoSnapshot, path: str, count: int, taking: Taking = PLAIN) -> tuple[bytes, int]:
        """The first `count` bytes of a file (fewer where it has no more) and the size that the Hub tells of it.

        They are asked for as a range, and kept: a download of the file goes on after them. Raises what `fetch` raises.
        """
        with self._held(snapshot, taking):
            (file,) = self._chosen(snapshot, (path,))
            return self._files.first_bytes(snapshot.repo_id, snapshot.sha, file, count, taking.stop)

    @contextmanager
    def _held(self, snapshot: RepoSnapshot, taking: Taking) -> Iterator[None]:
        with Hold() as until_the_end:
            self._downloads.keep(snapshot.repo_id, taking.hold or until_the_end)
            yield

    def _chosen(self, snapshot: RepoSnapshot, paths: tuple[str, ...]) -> list[RepoFile]:
        listed = {file.path: file for file in snapshot.files}
        return [listed.get(path, RepoFile(path)) for path in paths]

    def _checked_paths(self, snapshot: RepoSnapshot) -> list[str]:
        if len(snapshot.files) > self._max_repo_files:
            raise TooManyFiles(
                f"{snapshot.repo_id} holds {len(snapshot.files):,} files; the limit is {self._max_repo_files:,}."
            )
        for file in snapshot.files:
            check_path(file.path)
        return [file.path for file in snapshot.files]


def read_base_config(folder: Path, name: str) -> dict[str, object]:
    """`config.json` of the base model `name` in `folder`; raises `UnsupportedBase` where that is not an object."""
    try:
        return read_object(folder / "config.json", UnsupportedBase, max_bytes=MAX_DESCRIBING)
    except Refused as error:
        raise UnsupportedBase(f"The config of the base {name} cannot be read: {error}") from error


def _etag(file: RepoSibling) -> str | None:
    """The ETag that the Hub gives a file: the sha256 of one in Git LFS, git's own hash of any other."""
    told = file.lfs.sha256 if file.lfs else file.blob_id
    return told if isinstance(told, str) and _HASH.fullmatch(told) else None
