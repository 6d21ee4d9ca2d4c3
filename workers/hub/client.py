"""The Hub client: resolve a repo, choose files from its listing, and download them. It never reads weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id
from pydantic import SecretStr

from catalog.errors import (
    CatalogError,
    HubUnavailable,
    NoSupportedWeights,
    PickledWeights,
    Refused,
    RevisionNotFound,
    TooManyFiles,
    UnsupportedBase,
)
from catalog.models.repository.models import Metadata
from workers.finetunes.json_file import ReadObject, ReadRepoObject, read_repo_object
from workers.finetunes.repo_files import (
    ADAPTER_CONFIG,
    MAX_DESCRIPTION_BYTES,
    Choice,
    RepoFile,
    check_path,
    choose_base,
    choose_finetune,
    guarded_file,
)
from workers.hub.download_cache import DownloadCache
from workers.hub.file_fetcher import FileFetcher, Progress
from workers.hub.metadata import base_relation, card_bases, metadata, read_info
from workers.hub.rate_limits import HubLimits, Stop
from workers.hub.service_token import sendable
from workers.hub.session import hub_errors, install_client
from workers.process.file_locks import FileLocks

__all__ = ["MAIN_BRANCH", "FetchOptions", "Hub", "Progress", "RepoFile", "RepoSnapshot"]

NO_METADATA = Metadata()
MAIN_BRANCH = "main"

MAX_LISTED_BRANCHES = 4  # a request for each
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RepoSnapshot:
    """A repo at one commit.

    `repo_id` is the Hub's current name of the repo, which differs from the requested one after a rename. `card_bases`
    are the bases that the model card names, of which merges have several, and `base_relation` says how the repo relates
    to them ("quantized", "finetune", "adapter", "merge"; None: unknown). `public` says whether the repo is neither
    private nor gated.
    """

    repo_id: str
    sha: str
    files: tuple[RepoFile, ...]
    card_bases: tuple[str, ...] = ()
    base_relation: str | None = None
    metadata: Metadata = NO_METADATA
    public: bool = False


@dataclass(frozen=True)
class FetchOptions:
    """Options of a download.

    `progress` is called with the bytes done and the total. `stop` is called between blocks; once it returns True, the
    download ends with `DownloadStopped`. Downloaded files are not evicted until `locks` are released (None: until the
    call ends).
    """

    progress: Progress | None = None
    stop: Stop | None = None
    locks: FileLocks | None = field(default=None, compare=False)


DEFAULT_OPTIONS = FetchOptions()


class Hub:
    """The Hub at `endpoint`, accessed with `token` (None: anonymously, even if a token is stored on this machine).

    Downloads are stored in `downloads_dir` in the layout of `huggingface_hub`: a file is stored once under its ETag,
    and the folder of a commit links to it, so a commit that changes only the card fetches only the card. `budget` is
    the maximum size of all downloads in bytes (None: the free disk space), `downloads` the number of files that one
    process fetches at once; `limits` apply to all workers together. `read_object` parses configs. With
    `pickled_adapters`, these are chosen, too. Methods are thread-safe. A process has one session, with one `timeout`
    (seconds without a byte) and one `limits`: those of the Hub that was created last.
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
        read_object: ReadRepoObject = read_repo_object,
        pickled_adapters: bool = False,
    ) -> None:
        self.read_object = read_object
        self._endpoint = endpoint.rstrip("/")
        self._pickled_adapters = pickled_adapters
        self._max_repo_files = max_repo_files
        token = sendable(token) if token else None
        token_or_false: str | bool = token or False  # None would make the library look for a stored token
        self._token = token_or_false
        limits = limits or HubLimits()
        self._downloads = DownloadCache(downloads_dir, budget)
        self._files = FileFetcher(
            self._endpoint, token_or_false, self._downloads, limits, at_once=downloads, max_file_bytes=max_file_bytes
        )
        install_client(timeout, limits, token)
        # Xet has its own network code (without our limits) and a cache outside downloads_dir; HTTP serves every file
        constants.HF_HUB_DISABLE_XET = True
        # the library would first ask the Hub by which names coding agents are known, to report the one that runs it
        constants.HF_HUB_DISABLE_TELEMETRY = True

    def with_token(self, token: SecretStr) -> Hub:
        """The same Hub, downloads and limits with another token, which is stored only in the returned object."""
        clone = copy.copy(self)
        clone._token = token.get_secret_value()
        clone._files = self._files.with_token(token)
        return clone

    def resolve(self, repo_id: str, revision: str | None = None) -> RepoSnapshot:
        """The current commit of `revision` (a branch, tag or commit; None: `main`) and its listing.

        A gated repo can be listed without access, and another job may already have downloaded its files. So for a repo
        that is not public, access to one file is checked with this Hub's token first. Raises `RepoNotFound`,
        `RevisionNotFound`, `GatedRepo`, `HubRateLimited`, `HubUnavailable`.
        """
        with hub_errors(repo_id, revision):
            validate_repo_id(repo_id)
            url = self._revision_url(repo_id, revision or MAIN_BRANCH)
            response = get_session().get(url, headers=build_hf_headers(token=self._token), params={"blobs": True})
            hf_raise_for_status(response)
            info = read_info(response.json())
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise HubUnavailable(f"The Hub's answer for {repo_id} has no commit.")
        files = tuple(RepoFile(file.rfilename, file.size, _etag(file)) for file in info.siblings or ())
        public = info.private is False and info.gated is False
        snapshot = RepoSnapshot(
            info.id or repo_id, info.sha, files, card_bases(info), base_relation(info), metadata(info), public
        )
        if not public and (guarded := guarded_file([file.path for file in files])) is not None:
            self._files.check_access(snapshot.repo_id, snapshot.sha, guarded)
        return snapshot

    def find_head(self, repo_id: str) -> str | None:
        """The newest commit of the main branch, in one request; None if the repo has no such branch.

        Raises `RepoNotFound`, `GatedRepo`, `HubRateLimited`, `HubUnavailable`.
        """
        try:
            with hub_errors(repo_id, MAIN_BRANCH):
                response = get_session().get(
                    self._revision_url(repo_id, MAIN_BRANCH),
                    headers=build_hf_headers(token=self._token),
                    params={"expand": "sha"},
                )
                hf_raise_for_status(response)
                return read_info(response.json()).sha
        except RevisionNotFound:
            return None

    def _revision_url(self, repo_id: str, revision: str) -> str:
        return f"{self._endpoint}/api/models/{repo_id}/revision/{quote(revision, safe='')}"

    def choose(self, snapshot: RepoSnapshot) -> Choice:
        """The files of the fine-tune in `snapshot`, by the rules of `workers/finetunes/repo_files.py`.

        Raises `TooManyFiles`, `UnsafePath`, `PickledWeights`, `NoSupportedWeights`, `FileTooLarge`.
        """
        paths = self._checked_paths(snapshot)
        try:
            choice = choose_finetune(snapshot.repo_id, paths, pickled=self._pickled_adapters)
        except NoSupportedWeights as error:
            if (branch := self._branch_with_model(snapshot)) is None:
                raise
            raise NoSupportedWeights(
                f"{snapshot.repo_id} has no model on this branch, but one on its branch {branch[:120]}: submit it with "
                f"{branch[:120]} as its revision."
            ) from error
        self._files.check_sizes(snapshot.repo_id, self._chosen(snapshot, choice.paths))
        return choice

    def _branch_with_model(self, snapshot: RepoSnapshot) -> str | None:
        """The first other branch that holds a fine-tune, to name it in an error; None if the Hub lists none."""
        url = f"{self._endpoint}/api/models/{snapshot.repo_id}/refs"
        try:
            with hub_errors(snapshot.repo_id, None):
                response = get_session().get(url, headers=build_hf_headers(token=self._token))
                hf_raise_for_status(response)
                names = branches_except(response.json(), snapshot.sha)
            for name in names[:MAX_LISTED_BRANCHES]:
                branch = self.resolve(snapshot.repo_id, name)
                with suppress(NoSupportedWeights, PickledWeights):
                    choose_finetune(branch.repo_id, self._checked_paths(branch), pickled=self._pickled_adapters)
                    return name
        except CatalogError:  # the repo is refused for what it is, whatever the Hub says of its branches
            return None
        return None

    def choose_base(self, snapshot: RepoSnapshot) -> Choice:
        """The config, tokenizer and safetensors files of a base model. Raises what `choose` raises."""
        return choose_base(snapshot.repo_id, self._checked_paths(snapshot))

    def fetch(self, snapshot: RepoSnapshot, choice: Choice, options: FetchOptions = DEFAULT_OPTIONS) -> Path:
        """Download the chosen files and return the folder that holds the model.

        Raises `FileTooLarge`, `DiskFull`, `UnsafePath`, `DownloadStopped`, `Unavailable` and what `resolve` raises.
        """
        with self._locked(snapshot, options):
            self._files.fetch(
                snapshot.repo_id, snapshot.sha, self._chosen(snapshot, choice.paths), options.progress, options.stop
            )
        return self._downloads.link_of(snapshot.repo_id, snapshot.sha, choice.folder)

    def fetch_finetune(self, snapshot: RepoSnapshot, options: FetchOptions = DEFAULT_OPTIONS) -> Path:
        """Download the fine-tune of `snapshot` and return its folder.

        Raises what `choose` and `fetch` raise.
        """
        return self.fetch(snapshot, self.choose(snapshot), options)

    def fetch_base(self, snapshot: RepoSnapshot, options: FetchOptions = DEFAULT_OPTIONS) -> Path:
        """Download a base model. Raises what `choose_base` and `fetch` raise."""
        return self.fetch(snapshot, self.choose_base(snapshot), options)

    def base_config(self, snapshot: RepoSnapshot, options: FetchOptions = DEFAULT_OPTIONS) -> dict[str, object]:
        """The `config.json` of a base model, to check before its weights are downloaded.

        Raises `UnsupportedBase` if there is none, and what `fetch` raises.
        """
        paths = self._checked_paths(snapshot)
        if "config.json" not in paths and ADAPTER_CONFIG in paths:
            raise UnsupportedBase(
                f"{snapshot.repo_id} holds an adapter and no base model. "
                "Merge it into its base, and name the merged model."
            )
        if "config.json" not in paths:
            raise UnsupportedBase(f"{snapshot.repo_id} has no config.json, so it is not a base model.")
        folder = self.fetch(snapshot, Choice("", ("config.json",)), options)
        return read_base_config(folder, snapshot.repo_id, partial(self.read_object, snapshot.repo_id))

    def first_bytes(
        self, snapshot: RepoSnapshot, path: str, count: int, options: FetchOptions = DEFAULT_OPTIONS
    ) -> tuple[bytes, int]:
        """The first `count` bytes of a file (fewer if it is shorter), and the file's size according to the Hub.

        The bytes are requested as a range and kept: a later download of the file resumes after them. Raises what
        `fetch` raises.
        """
        with self._locked(snapshot, options):
            (file,) = self._chosen(snapshot, (path,))
            return self._files.first_bytes(snapshot.repo_id, snapshot.sha, file, count, options.stop)

    @contextmanager
    def _locked(self, snapshot: RepoSnapshot, options: FetchOptions) -> Iterator[None]:
        with FileLocks() as locks_of_call:
            self._downloads.lock(snapshot.repo_id, options.locks or locks_of_call)
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


def branches_except(refs: object, sha: str) -> list[str]:
    """The names of the branches in the Hub's answer that point to another commit."""
    branches = refs.get("branches") if isinstance(refs, dict) else None
    return [
        branch["name"]
        for branch in (branches if isinstance(branches, list) else [])
        if isinstance(branch, dict) and isinstance(branch.get("name"), str) and branch.get("targetCommit") != sha
    ]


def read_base_config(folder: Path, name: str, read: ReadObject) -> dict[str, object]:
    """The `config.json` of the base model `name` in `folder`. Raises `UnsupportedBase` if it is not a JSON object."""
    try:
        return read(folder / "config.json", UnsupportedBase, max_bytes=MAX_DESCRIPTION_BYTES)
    except Refused as error:
        raise UnsupportedBase(f"The config of the base {name} cannot be read: {error}") from error


def _etag(file: RepoSibling) -> str | None:
    """The ETag of a file on the Hub: the sha256 of a Git LFS file, git's blob hash of any other."""
    etag = file.lfs.sha256 if file.lfs else file.blob_id
    return etag if isinstance(etag, str) and _HASH.fullmatch(etag) else None
