"""From a line of a repo's listing to a file in the folder of downloads."""

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
from workers.finetunes.repo_files import DESCRIBING, MAX_DESCRIBING, RepoFile
from workers.hub.download_cache import PARTIAL, Downloads
from workers.hub.rate_limits import HubLimits, Stop, check_stop
from workers.hub.session import hub_errors
from workers.hub.transfer import Order, Remote, extend, verify
from workers.process.file_locks import wait_for

Progress = Callable[[int, int], None]  # bytes done, bytes in all; may raise to stop the download


class FileFetcher:
    """Fetches files of repos, `at_once` of them in this process; who calls has a hold on the repo."""

    def __init__(
        self,
        endpoint: str,
        token: str | bool,
        downloads: Downloads,
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

    def seen_with(self, token: SecretStr) -> FileFetcher:
        """The same with another token."""
        other = copy.copy(self)
        other._token = token.get_secret_value()
        return other

    def check_access(self, repo_id: str, sha: str, path: str) -> None:
        """Raises what the Hub answers to who may not have a file, without taking it."""
        with hub_errors(repo_id, sha):
            get_hf_file_metadata(
                hf_hub_url(repo_id, path, revision=sha, endpoint=self._endpoint),
                token=self._token,
                endpoint=self._endpoint,
            )

    def fetch(
        self, repo_id: str, sha: str, files: Sequence[RepoFile], on_progress: Progress | None, stop: Stop | None
    ) -> None:
        """Every file becomes a name in the commit's folder; what is there already is not asked for.

        Sizes are checked before the first byte of a file is. Raises what `Hub.fetch` says.
        """
        missing = [file for file in files if not self._downloads.find(repo_id, sha, file.path)]
        self.check_sizes(repo_id, missing)
        remotes = [self._remote(repo_id, sha, file) for file in missing]
        total = sum(remote.size for remote in remotes)
        self._downloads.make_room(total - sum(self._here(repo_id, remote) for remote in remotes))
        tell = _telling(on_progress, total)
        before = 0
        for remote in remotes:
            self._fetch_one(repo_id, sha, remote, partial(tell, before), stop)
            before += remote.size
            tell(before, 0)

    def check_sizes(self, repo_id: str, files: Sequence[RepoFile]) -> None:
        """Raises `FileTooLarge` where the listing says so."""
        for file in files:
            self._check_size(repo_id, file.path, file.size)

    def first_bytes(self, repo_id: str, sha: str, file: RepoFile, count: int, stop: Stop | None) -> tuple[bytes, int]:
        """See `Hub.first_bytes`."""
        if link := self._downloads.find(repo_id, sha, file.path):
            return _start(link, count), link.stat().st_size
        self._check_size(repo_id, file.path, file.size)
        remote = self._remote(repo_id, sha, file)
        wanted = min(count, remote.size)
        blob = self._downloads.blob(repo_id, remote.etag)
        if blob.is_file():
            return _start(blob, count), blob.stat().st_size
        with self._partial(blob, stop) as held:
            if held is None:
                return _start(blob, count), remote.size
            with hub_errors(repo_id, sha):
                extend(held, remote, self._order(lambda _: check_stop(stop)), wanted)
            held.seek(0)
            return held.read(wanted), remote.size

    def _fetch_one(
        self, repo_id: str, sha: str, remote: Remote, tell: Callable[[int], None], stop: Stop | None
    ) -> None:
        blob = self._downloads.blob(repo_id, remote.etag)
        if not blob.is_file():
            with self._partial(blob, stop) as held:
                if held is not None:
                    with hub_errors(repo_id, sha):
                        self._transfer(held, remote, tell, stop)
                        held.flush()
                    os.replace(_partial_of(blob), blob)
        else:
            os.utime(blob)
        self._downloads.link(repo_id, sha, remote.path, blob)

    def _transfer(self, held: BinaryIO, remote: Remote, tell: Callable[[int], None], stop: Stop | None) -> None:
        done = held.seek(0, os.SEEK_END)
        with self._slot(stop), self._limits.download(stop) as renew:

            def on_bytes(count: int) -> None:
                nonlocal done
                done += count
                renew()
                check_stop(stop)
                tell(done)

            check_stop(stop)
            extend(held, remote, self._order(on_bytes))
        verify(held, remote)

    @contextmanager
    def _slot(self, stop: Stop | None) -> Iterator[None]:
        while not self._slots.acquire(timeout=0.5):
            check_stop(stop)
        try:
            yield
        finally:
            self._slots.release()

    @contextmanager
    def _partial(self, blob: Path, stop: Stop | None) -> Iterator[BinaryIO | None]:
        """What has arrived of a file, for this caller alone; None where another one completed it meanwhile."""
        descriptor = wait_for(_partial_of(blob), exclusive=True, glance=lambda: check_stop(stop))
        with os.fdopen(descriptor, "r+b") as held:
            if blob.is_file():
                _partial_of(blob).unlink(missing_ok=True)
                yield None
                return
            yield held

    def _remote(self, repo_id: str, sha: str, file: RepoFile) -> Remote:
        """What the Hub has, from the listing where that tells enough, else asked for."""
        url = hf_hub_url(repo_id, file.path, revision=sha, endpoint=self._endpoint)
        if file.etag and file.size is not None:
            return Remote(file.path, url, file.etag, file.size)
        with hub_errors(repo_id, sha):
            told = get_hf_file_metadata(url, token=self._token, endpoint=self._endpoint)
        if not told.etag or not told.commit_hash:
            raise HubUnavailable(f"What answers for {file.path} of {repo_id} is not a Hub: it names no ETag.")
        if told.size is None:
            raise HubUnavailable(f"The Hub does not tell the size of {file.path} of {repo_id}.")
        self._check_size(repo_id, file.path, told.size)
        self._downloads.blob(repo_id, told.etag)
        return Remote(file.path, url, told.etag, told.size)

    def _order(self, on_bytes: Callable[[int], None]) -> Order:
        return Order(build_hf_headers(token=self._token), on_bytes)

    def _check_size(self, repo_id: str, path: str, size: int | None) -> None:
        describes = path.rpartition("/")[2] in DESCRIBING
        limit = min(MAX_DESCRIBING, self._max_file_bytes) if describes else self._max_file_bytes
        if size is not None and size > limit:
            raise FileTooLarge(f"{path} of {repo_id} has {size:,} bytes; the limit is {limit:,}.")

    def _here(self, repo_id: str, remote: Remote) -> int:
        """Bytes of a file that lie here already, whole or partial."""
        blob = self._downloads.blob(repo_id, remote.etag)
        for path in (blob, _partial_of(blob)):
            try:
                return min(path.stat().st_size, remote.size)
            except FileNotFoundError:
                continue
        return 0


def _telling(on_progress: Progress | None, total: int) -> Callable[[int, int], None]:
    """Tells of the bytes of files before and of the one under way, and never of going back, which a download does that
    starts over.
    """
    shown = 0

    def tell(before: int, done: int) -> None:
        nonlocal shown
        if on_progress and before + done > shown:
            shown = before + done
            on_progress(shown, total)

    return tell


def _partial_of(blob: Path) -> Path:
    return blob.with_name(blob.name + PARTIAL)


def _start(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)
