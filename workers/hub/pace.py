"""Limits on how slowly a server may answer: a byte now and then keeps a timeout between two bytes from ever ending."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

from catalog.errors import HubUnavailable
from workers.process.cancellation import raise_if_cancelled


@dataclass(frozen=True)
class Pace:
    """The slowest answers that are waited for: `headers` seconds for the headers of a response, and `rate` bytes per
    second of its body, measured over `window` seconds of waiting.
    """

    headers: float = 60.0
    rate: float = 4_096.0
    window: float = 60.0


class PacedStream(httpx2.SyncByteStream):
    """A response body that raises `HubUnavailable` once it arrives too slowly, and `Cancelled` at its next bytes once
    the job is cancelled. The library reads ten megabytes at a time, which may take minutes.

    Only time spent waiting for bytes counts: the reader may be slow.
    """

    def __init__(self, stream: Any, pace: Pace) -> None:
        self._stream = stream
        self._pace = pace

    def __iter__(self) -> Iterator[bytes]:
        pieces, waited, received = iter(self._stream), 0.0, 0
        while True:
            started = time.monotonic()
            piece = next(pieces, None)
            if piece is None:
                return
            raise_if_cancelled()
            waited, received = waited + time.monotonic() - started, received + len(piece)
            if waited > self._pace.window:
                if received < self._pace.rate * waited:
                    raise HubUnavailable(
                        f"The server sends {received / waited:,.0f} bytes per second; less than {self._pace.rate:,.0f} "
                        "is not waited for."
                    )
                waited, received = 0.0, 0
            yield piece

    def close(self) -> None:
        self._stream.close()


_headers_due: ContextVar[float | None] = ContextVar("headers_due", default=None)


def expect_headers(within: float | None) -> None:
    """Limit the time in which this thread reads until the next call, in seconds (None: no limit)."""
    _headers_due.set(None if within is None else time.monotonic() + within)


def limit_headers(client: httpx2.Client) -> None:
    """Make the reads of a client's connections end by the time that was set with `expect_headers`."""
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.HTTPTransport):
            pool: Any = transport._pool
            pool._network_backend = _LimitedBackend(pool._network_backend)


class _LimitedBackend(httpcore2.NetworkBackend):
    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return _LimitedStream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        return _LimitedStream(self._backend.connect_unix_socket(path, timeout, socket_options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _LimitedStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if (due := _headers_due.get()) is not None:
            left = due - time.monotonic()
            if left <= 0:
                raise httpcore2.ReadTimeout("The headers of the response take too long")
            timeout = left if timeout is None else min(timeout, left)
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _LimitedStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
