"""Servers that send a byte now and then."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from catalog.errors import HubUnavailable
from workers.hub.pace import Pace, _headers_due
from workers.hub.session import SingleAttemptClient

LIMIT = 30  # seconds without a byte: more than the test waits
INTERVAL = 0.01  # seconds between two bytes
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@contextmanager
def trickling_server(at_once: bytes, slowly: bytes) -> Iterator[tuple[str, threading.Event]]:
    """A server that answers with some bytes at once and repeats others one by one; and an event that is set when the
    client hangs up.
    """
    hung_up, over = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=[connection], daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(at_once)
                while not over.wait(INTERVAL):
                    connection.sendall(slowly)
            except OSError:
                hung_up.set()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", hung_up
    finally:
        over.set()
        listener.close()


@pytest.mark.parametrize("stream", [True, False])
def test_body_that_arrives_too_slowly_is_given_up(stream: bool):
    pace = Pace(rate=100_000, window=0.1)
    with trickling_server(HEADERS, b"x") as (url, hung_up), SingleAttemptClient(LIMIT, pace=pace) as client:
        request = client.build_request("GET", url)
        with pytest.raises(HubUnavailable, match="bytes per second"):
            client.send(request, stream=stream).read()
        assert hung_up.wait(LIMIT)


def test_body_that_is_fast_enough_is_read():
    pace = Pace(rate=100, window=0.02)
    body = HEADERS.replace(b"100000", b"20000")
    with trickling_server(body, b"x" * 1000) as (url, _), SingleAttemptClient(LIMIT, pace=pace) as client:
        assert len(client.get(url).content) == 20_000


def test_headers_that_never_end_are_given_up():
    pace = Pace(headers=0.2)
    with trickling_server(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n") as (url, hung_up):
        with SingleAttemptClient(LIMIT, pace=pace) as client, pytest.raises(HubUnavailable, match="No answer"):
            client.get(url)
        assert hung_up.wait(LIMIT)


def test_limit_of_the_headers_does_not_apply_to_the_body():
    client = SingleAttemptClient(LIMIT)
    with trickling_server(HEADERS, b"x") as (url, _), client, client.stream("GET", url):
        assert _headers_due.get() is None
