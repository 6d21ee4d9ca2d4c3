"""Moving the bytes of one file: by blocks, from where an earlier try stopped, and checked by their hash at the end.

The Hub client keeps nothing of a download that was cut, so this part is done here.
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

BREAKS = 5  # times that one call goes on after the connection broke
BLOCK = 2**20

_GIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BROKEN = (httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.TimeoutException)


@dataclass(frozen=True)
class Remote:
    """A file as the Hub has it; `size` in bytes."""

    path: str
    url: str
    etag: str
    size: int


@dataclass(frozen=True)
class Order:
    """How to fetch: `on_bytes` is called with the length of each block (below zero: what was thrown away); what it
    raises ends the download, and what has arrived is kept.
    """

    headers: Mapping[str, str] = field(repr=False)  # a token is among them
    on_bytes: Callable[[int], None]


def extend(partial: BinaryIO, remote: Remote, order: Order, wanted: int | None = None) -> None:
    """Fetch until `partial` holds the first `wanted` bytes of the file, or all of it (None).

    Asks for no more than is missing; of a server that sends the whole all the same, no more is read. Raises
    `HubUnavailable`, and what the session raises.
    """
    upto = remote.size if wanted is None else wanted
    for tries_left in range(BREAKS, -1, -1):
        reached, cause = _length(partial), None
        if reached >= upto:
            return
        try:
            _request(partial, remote, order, wanted, may_restart=tries_left == BREAKS)
        except _BROKEN as error:
            cause = error
        arrived = _length(partial)
        if cause is None and arrived >= upto:
            return
        if arrived <= reached or not tries_left:
            raise HubUnavailable(f"The download of {remote.path} broke off after {arrived:,} bytes.") from cause


def _length(partial: BinaryIO) -> int:
    return partial.seek(0, os.SEEK_END)


def _request(partial: BinaryIO, remote: Remote, order: Order, wanted: int | None, *, may_restart: bool) -> None:
    start = _length(partial)
    headers = {**order.headers, "Accept-Encoding": "identity"}
    if start or wanted is not None:
        headers["Range"] = f"bytes={start}-{'' if wanted is None else wanted - 1}"
    with get_session().stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416:
            partial.truncate(0)
            raise HubUnavailable(f"The Hub has less of {remote.path} than was downloaded before.")
        hf_raise_for_status(response)
        if response.status_code != 206 and start:
            if not may_restart:  # it would start over after each break, for ever if each try breaks
                raise HubUnavailable(f"The download of {remote.path} broke off, and the Hub cannot resume it.")
            order.on_bytes(-start)
            start = 0
            partial.seek(0)
            partial.truncate()
        elif response.status_code == 206 and _begin(response) != start:
            raise HubUnavailable(f"The Hub sent another part of {remote.path} than was asked for.")
        _copy(partial, remote, order, response, start, wanted)


def _begin(response: httpx2.Response) -> int | None:
    """The place in the file of the first byte of a partial answer."""
    found = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(found[1]) if found else None


def _copy(
    partial: BinaryIO, remote: Remote, order: Order, response: httpx2.Response, reached: int, wanted: int | None
) -> None:
    for block in response.iter_bytes():
        reached += len(block)
        # the size was checked against limits, but is the sender's claim; what arrives is counted
        if reached > remote.size:
            partial.truncate(0)
            raise HubUnavailable(f"The Hub sends more of {remote.path} than the {remote.size:,} bytes that it told.")
        partial.write(block)
        order.on_bytes(len(block))
        if wanted is not None and reached >= wanted:
            return


def verify(partial: BinaryIO, remote: Remote) -> None:
    """Check a whole file against what the Hub says of it, and empty one that differs. Raises `HubUnavailable`.

    An ETag is the file's sha256, or git's sha1 of it; one of another form tells nothing.
    """
    size = _length(partial)
    if size != remote.size:
        fault = f"it has {size:,} bytes of {remote.size:,}"
    elif _hash(partial, remote.etag, size) not in (None, remote.etag):
        fault = "its content is not what its hash says"
    else:
        return
    partial.truncate(0)
    raise HubUnavailable(f"{remote.path} arrived damaged: {fault}.")


def _hash(partial: BinaryIO, etag: str, size: int) -> str | None:
    if _SHA256.fullmatch(etag):
        digest = hashlib.sha256()
    elif _GIT.fullmatch(etag):
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    else:
        return None
    partial.seek(0)
    while block := partial.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()
