"""The transfer of one file: in blocks, resuming an earlier attempt, and verified by its hash at the end.

`huggingface_hub` deletes the bytes of a download that failed and verifies no hash
(`tests/workers/hub/test_pinned_client.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import httpx2
from huggingface_hub.utils import get_session, hf_raise_for_status

from catalog.errors import HubUnavailable

MAX_RESUMPTIONS = 5  # of one call, after broken connections
HASH_BLOCK_BYTES = 2**20

_GIT_HASH = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BROKEN_CONNECTION = (httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.TimeoutException)


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub; `size` in bytes."""

    path: str
    url: str
    etag: str
    size: int


@dataclass(frozen=True)
class TransferOptions:
    """Headers and progress callback of a transfer.

    `on_bytes` is called with the length of each block, or with a negative number when bytes are discarded. If it
    raises, the transfer ends and the bytes that have arrived are kept.
    """

    headers: Mapping[str, str] = field(repr=False)  # they contain a token
    on_bytes: Callable[[int], None]


def resume(partial: BinaryIO, remote: RemoteFile, options: TransferOptions, limit: int | None = None) -> None:
    """Fetch until `partial` has the first `limit` bytes of the file, or all of them (None).

    Only missing bytes are requested, and no others are read if the server sends the whole file. Raises
    `HubUnavailable`, and what the session raises.
    """
    target = remote.size if limit is None else limit
    for tries_left in range(MAX_RESUMPTIONS, -1, -1):
        received, cause = _length(partial), None
        if received >= target:
            return
        try:
            _request(partial, remote, options, limit, may_restart=tries_left == MAX_RESUMPTIONS)
        except _BROKEN_CONNECTION as error:
            cause = error
        arrived = _length(partial)
        if cause is None and arrived >= target:
            return
        if arrived <= received or not tries_left:
            raise HubUnavailable(f"The download of {remote.path} broke off after {arrived:,} bytes.") from cause


def _length(partial: BinaryIO) -> int:
    return partial.seek(0, os.SEEK_END)


def _request(
    partial: BinaryIO, remote: RemoteFile, options: TransferOptions, limit: int | None, *, may_restart: bool
) -> None:
    start = _length(partial)
    headers = {**options.headers, "Accept-Encoding": "identity"}
    if start or limit is not None:
        headers["Range"] = f"bytes={start}-{'' if limit is None else limit - 1}"
    with get_session().stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416:
            partial.truncate(0)
            raise HubUnavailable(f"{remote.path} on the Hub is shorter than the part downloaded before.")
        hf_raise_for_status(response)
        if response.status_code != 206 and start:
            if not may_restart:  # otherwise it could restart forever
                raise HubUnavailable(
                    f"The download of {remote.path} broke off, and the server does not support ranges."
                )
            options.on_bytes(-start)
            start = 0
            partial.seek(0)
            partial.truncate()
        elif response.status_code == 206 and _range_start(response) != start:
            raise HubUnavailable(f"The Hub sent another range of {remote.path} than was requested.")
        _copy(partial, remote, options, response, start, limit)


def _range_start(response: httpx2.Response) -> int | None:
    """The offset in the file of a partial response's first byte."""
    match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(match[1]) if match else None


def _copy(
    partial: BinaryIO,
    remote: RemoteFile,
    options: TransferOptions,
    response: httpx2.Response,
    received: int,
    limit: int | None,
) -> None:
    for block in response.iter_bytes():
        received += len(block)
        # the size was checked against the limits, but it is only the server's claim
        if received > remote.size:
            partial.truncate(0)
            raise HubUnavailable(f"The Hub sends more of {remote.path} than the {remote.size:,} bytes it announced.")
        partial.write(block)
        options.on_bytes(len(block))
        if limit is not None and received >= limit:
            return


def verify(partial: BinaryIO, remote: RemoteFile) -> None:
    """Verify a complete file's size and hash. Truncates it and raises `HubUnavailable` if they differ.

    An ETag is the file's sha256 or its git blob hash; an ETag of another form is not compared.
    """
    size = _length(partial)
    if size != remote.size:
        fault = f"it has {size:,} of {remote.size:,} bytes"
    elif _hash(partial, remote.etag, size) not in (None, remote.etag):
        fault = "its hash differs from its ETag"
    else:
        return
    partial.truncate(0)
    raise HubUnavailable(f"{remote.path} arrived damaged: {fault}.")


def _hash(partial: BinaryIO, etag: str, size: int) -> str | None:
    if _SHA256.fullmatch(etag):
        digest = hashlib.sha256()
    elif _GIT_HASH.fullmatch(etag):
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    else:
        return None
    partial.seek(0)
    while block := partial.read(HASH_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
