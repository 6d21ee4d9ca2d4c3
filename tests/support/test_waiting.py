from __future__ import annotations

import socket

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_until


def test_a_wait_gives_what_came_true():
    looks = iter([0, None, [], "there"])
    assert wait_until(lambda: next(looks), "it is there") == "there"


def test_a_wait_in_vain_says_what_for_and_what_was_seen():
    with pytest.raises(AssertionError, match=r"Waited for 0 s until the moon is blue; the last look gave \[\]"):
        wait_until(list, "the moon is blue", limit=0)


def test_nobody_answers_at_a_free_port():
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", free_port()))


def test_a_server_listens_on_a_free_port_again_and_again():
    port = free_port()
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            pass


def test_a_free_port_is_given_to_nobody_else():
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
