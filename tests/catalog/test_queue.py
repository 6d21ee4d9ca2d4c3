from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
import redis

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.queue import ENCODE_QUEUE, INGEST, broker_answers, celery, ring, ring_after_commit
from tests.support.outage import away


@pytest.fixture
def broker(database: Database, servers: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(servers.redis_url) as broker:
        yield broker


def test_a_message_names_the_task_and_carries_nothing_but_the_job(broker: redis.Redis):
    ring(7)

    [message] = broker.lrange(ENCODE_QUEUE, 0, -1)
    headers = json.loads(message)["headers"]
    assert (headers["task"], headers["argsrepr"], headers["kwargsrepr"]) == (INGEST, "[7]", "{}")


def test_a_bell_rings_after_the_commit(broker: redis.Redis, database: Database):
    with database.transaction() as session:
        ring_after_commit(session, 7)
        assert broker.llen(ENCODE_QUEUE) == 0
    assert broker.llen(ENCODE_QUEUE) == 1


def test_a_transaction_that_is_rolled_back_rings_no_bell(broker: redis.Redis, database: Database):
    def fails() -> None:
        with database.transaction() as session:
            ring_after_commit(session, 7)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert broker.llen(ENCODE_QUEUE) == 0


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[redis.Connection]:
    """Every attempt to connect to a broker."""
    made: list[redis.Connection] = []
    connect = redis.Connection._connect

    def noted(connection: redis.Connection) -> object:
        made.append(connection)
        return connect(connection)

    monkeypatch.setattr(redis.Connection, "_connect", noted)
    return made


def test_a_broker_that_is_down_is_no_error_and_is_not_asked_again_and_again(
    servers: EmbeddedServers, broker: redis.Redis, attempts: list[redis.Connection]
):
    ring(1)
    with away(servers.valkey):
        attempts.clear()
        ring(2)
        assert not broker_answers()
        assert 2 <= len(attempts) <= 4  # one or two by each


def test_a_broker_that_is_back_is_rung_again(servers: EmbeddedServers, broker: redis.Redis):
    ring(1)
    with away(servers.valkey):
        pass

    ring(2)

    assert broker_answers()
    assert broker.llen(ENCODE_QUEUE) == 1


def test_a_broker_that_hangs_is_given_up(servers: EmbeddedServers, broker: redis.Redis):
    if servers.valkey is None:
        pytest.skip("the address of Redis was given: it is not ours to stop")
    ring(1)
    pid = broker.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        ring(2)  # without a limit this never returned
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("servers")  # the configuration names the broker
def test_messages_outlive_a_worker_that_dies():
    conf = celery.conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.worker_prefetch_multiplier) == (True, True, 1)
