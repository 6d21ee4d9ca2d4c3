from __future__ import annotations

import socket

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_until


def test_wait_until_returns_the_first_truthy_value():
    values = iter([0, None, [], "ready"])
    assert wait_until(lambda: next(values), "it is ready") == "ready"


def test_timeout_message_names_the_expected_state_and_the_last_value():
    with pytest.raises(AssertionError, match=r"Waited for 0 s until the moon is blue; the last value was \[\]"):
        wait_until(list, "the moon is blue", limit=0)


def test_connection_to_a_free_port_is_refused():
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", free_port()))


def test_servers_can_listen_on_a_free_port_repeatedly():
    port = free_port()
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            pass


def test_free_port_cannot_be_bound_by_others():
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
