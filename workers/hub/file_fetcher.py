"""Downloads of listed files into the download cache."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import build_hf_headers
from pydantic import SecretStr

from catalog.errors import FileTooLarge, HubUnavailable
from workers.finetunes.repo_files import DESCRIPTION_FILES, MAX_DESCRIPTION_BYTES, RepoFile
from workers.hub.download_cache import PARTIAL_SUFFIX, DownloadCache
from workers.hub.rate_limits import HubLimits, Stop, raise_if_stopped
from workers.hub.session import hub_errors
from workers.hub.transfer import RemoteFile, TransferOptions, resume, verify
from workers.process.file_locks import acquire_lock

Progress = Callable[[int, int], None]  # bytes done, total bytes; may raise to stop the download


class FileFetcher:
    """Fetches files of repos, at most `at_once` files at a time in this process. The caller has locked the repo."""

    def __init__(
        self,
        endpoint: str,
        token: str | bool,
        downloads: DownloadCache,
        limits: HubLimits,
        *,
        at_once: int,
        max_file_bytes: int,
    ) -> None:
        self._endpoint = endpoint
        self._token = token
        self._downloads = downloads
        self._limits = limits
        self._slots = threading.BoundedSemaphore(at_once)
        self._max_file_bytes = max_file_bytes

    def with_token(self, token: SecretStr) -> FileFetcher:
        """The same fetcher with another token."""
        clone = copy.copy(self)
        clone._token = token.get_secret_value()
        return clone

    def check_access(self, repo_id: str, sha: str, path: str) -> None:
        """Raise the Hub's error if this token may not read a file; nothing is downloaded."""
        with hub_errors(repo_id, sha):
            get_hf_file_metadata(
                hf_hub_url(repo_id, path, revision=sha, endpoint=self._endpoint),
                token=self._token,
                endpoint=self._endpoint,
            )

    def fetch(
        self, repo_id: str, sha: str, files: Sequence[RepoFile], on_progress: Progress | None, stop: Stop | None
    ) -> None:
        """Download the files that are missing from the commit's folder.

        Sizes are checked before any byte is downloaded. Raises what `Hub.fetch` raises.
        """
        missing = [file for file in files if not self._downloads.find(repo_id, sha, file.path)]
        self.check_sizes(repo_id, missing)
        remotes = [self._remote(repo_id, sha, file) for file in missing]
        total = sum(remote.size for remote in remotes)
        self._downloads.evict_for(total - sum(self._cached_bytes(repo_id, remote) for remote in remotes))
        report = _progress_reporter(on_progress, total)
        before = 0
        for remote in remotes:
            self._fetch_one(repo_id, sha, remote, partial(report, before), stop)
            before += remote.size
            report(before, 0)

    def check_sizes(self, repo_id: str, files: Sequence[RepoFile]) -> None:
        """Raises `FileTooLarge` for a file whose listed size exceeds the limit."""
        for file in files:
            self._check_size(repo_id, file.path, file.size)

    def first_bytes(self, repo_id: str, sha: str, file: RepoFile, count: int, stop: Stop | None) -> tuple[bytes, int]:
        """See `Hub.first_bytes`."""
        if link := self._downloads.find(repo_id, sha, file.path):
            return _first_bytes(link, count), link.stat().st_size
        self._check_size(repo_id, file.path, file.size)
        remote = self._remote(repo_id, sha, file)
        length = min(count, remote.size)
        blob = self._downloads.blob(repo_id, remote.etag)
        if blob.is_file():
            return _first_bytes(blob, count), blob.stat().st_size
        with self._partial(blob, stop) as partial_file:
            if partial_file is None:
                return _first_bytes(blob, count), remote.size
            with hub_errors(repo_id, sha):
                resume(partial_file, remote, self._transfer_options(lambda _: raise_if_stopped(stop)), length)
            partial_file.seek(0)
            return partial_file.read(length), remote.size

    def _fetch_one(
        self, repo_id: str, sha: str, remote: RemoteFile, report: Callable[[int], None], stop: Stop | None
    ) -> None:
        blob = self._downloads.blob(repo_id, remote.etag)
        if not blob.is_file():
            with self._partial(blob, stop) as partial_file:
                if partial_file is not None:
                    with hub_errors(repo_id, sha):
                        self._transfer(partial_file, remote, report, stop)
                        partial_file.flush()
                    os.replace(_partial_path(blob), blob)
        else:
            os.utime(blob)
        self._downloads.link(repo_id, sha, remote.path, blob)

    def _transfer(
        self, partial_file: BinaryIO, remote: RemoteFile, report: Callable[[int], None], stop: Stop | None
    ) -> None:
        done = partial_file.seek(0, os.SEEK_END)
        with self._slot(stop), self._limits.download(stop) as renew:

            def on_bytes(count: int) -> None:
                nonlocal done
                done += count
                renew()
                raise_if_stopped(stop)
                report(done)

            raise_if_stopped(stop)
            resume(partial_file, remote, self._transfer_options(on_bytes))
        verify(partial_file, remote)

    @contextmanager
    def _slot(self, stop: Stop | None) -> Iterator[None]:
        while not self._slots.acquire(timeout=0.5):
            raise_if_stopped(stop)
        try:
            yield
        finally:
            self._slots.release()

    @contextmanager
    def _partial(self, blob: Path, stop: Stop | None) -> Iterator[BinaryIO | None]:
        """The partial file, locked for this caller; None if another process has completed the file."""
        descriptor = acquire_lock(_partial_path(blob), exclusive=True, on_wait=lambda: raise_if_stopped(stop))
        with os.fdopen(descriptor, "r+b") as partial_file:
            if blob.is_file():
                _partial_path(blob).unlink(missing_ok=True)
                yield None
                return
            yield partial_file

    def _remote(self, repo_id: str, sha: str, file: RepoFile) -> RemoteFile:
        """The file's size and ETag, from the listing if it has both, otherwise from a HEAD request."""
        url = hf_hub_url(repo_id, file.path, revision=sha, endpoint=self._endpoint)
        if file.etag and file.size is not None:
            return RemoteFile(file.path, url, file.etag, file.size)
        with hub_errors(repo_id, sha):
            metadata = get_hf_file_metadata(url, token=self._token, endpoint=self._endpoint)
        if not metadata.etag or not metadata.commit_hash:
            raise HubUnavailable(f"The answer for {file.path} of {repo_id} has no ETag: the endpoint is not a Hub.")
        if metadata.size is None:
            raise HubUnavailable(f"The Hub does not announce the size of {file.path} of {repo_id}.")
        self._check_size(repo_id, file.path, metadata.size)
        self._downloads.blob(repo_id, metadata.etag)
        return RemoteFile(file.path, url, metadata.etag, metadata.size)

    def _transfer_options(self, on_bytes: Callable[[int], None]) -> TransferOptions:
        return TransferOptions(build_hf_headers(token=self._token), on_bytes)

    def _check_size(self, repo_id: str, path: str, size: int | None) -> None:
        is_description = path.rpartition("/")[2] in DESCRIPTION_FILES
        limit = min(MAX_DESCRIPTION_BYTES, self._max_file_bytes) if is_description else self._max_file_bytes
        if size is not None and size > limit:
            raise FileTooLarge(f"{path} of {repo_id} has {size:,} bytes; the limit is {limit:,}.")

    def _cached_bytes(self, repo_id: str, remote: RemoteFile) -> int:
        """Bytes of a file that are already in the cache, complete or partial."""
        blob = self._downloads.blob(repo_id, remote.etag)
        for path in (blob, _partial_path(blob)):
            try:
                return min(path.stat().st_size, remote.size)
            except FileNotFoundError:
                continue
        return 0


def _progress_reporter(on_progress: Progress | None, total: int) -> Callable[[int, int], None]:
    """A callback for the bytes of completed files and of the current one. It never reports fewer bytes than before,
    which a restarted download would cause.
    """
    reported = 0

    def report(before: int, done: int) -> None:
        nonlocal reported
        if on_progress and before + done > reported:
            reported = before + done
            on_progress(reported, total)

    return report


def _partial_path(blob: Path) -> Path:
    return blob.with_name(blob.name + PARTIAL_SUFFIX)


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)
