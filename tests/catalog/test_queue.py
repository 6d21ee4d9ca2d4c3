from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
import redis

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.queue import ENCODE_QUEUE, INGEST, MAX_WAITING, broker_answers, celery, enqueue, enqueue_after_commit
from tests.support.outage import server_down


@pytest.fixture
def broker(database: Database, servers: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(servers.redis_url) as broker:
        yield broker


def test_message_contains_only_the_task_name_and_job_id(broker: redis.Redis):
    enqueue(7)

    [message] = broker.lrange(ENCODE_QUEUE, 0, -1)
    headers = json.loads(message)["headers"]
    assert (headers["task"], headers["argsrepr"], headers["kwargsrepr"]) == (INGEST, "[7]", "{}")


def test_job_is_enqueued_after_the_commit(broker: redis.Redis, database: Database):
    with database.transaction() as session:
        enqueue_after_commit(session, 7)
        assert broker.llen(ENCODE_QUEUE) == 0
    assert broker.llen(ENCODE_QUEUE) == 1


def test_message_is_sent_only_if_few_wait(broker: redis.Redis):
    for number in range(MAX_WAITING + 5):
        enqueue(number)
    assert broker.llen(ENCODE_QUEUE) == MAX_WAITING

    broker.lpop(ENCODE_QUEUE)  # a worker receives one
    enqueue(7)

    assert broker.llen(ENCODE_QUEUE) == MAX_WAITING


def test_rolled_back_transaction_enqueues_nothing(broker: redis.Redis, database: Database):
    def fail() -> None:
        with database.transaction() as session:
            enqueue_after_commit(session, 7)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert broker.llen(ENCODE_QUEUE) == 0


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[redis.Connection]:
    """The connections that are attempted to a broker."""
    connections: list[redis.Connection] = []
    connect = redis.Connection._connect

    def record(connection: redis.Connection) -> object:
        connections.append(connection)
        return connect(connection)

    monkeypatch.setattr(redis.Connection, "_connect", record)
    return connections


def test_unreachable_broker_is_no_error_and_is_not_retried(
    servers: EmbeddedServers, broker: redis.Redis, attempts: list[redis.Connection]
):
    enqueue(1)
    with server_down(servers.valkey):
        attempts.clear()
        enqueue(2)
        assert not broker_answers()
        assert 2 <= len(attempts) <= 4  # one or two per call


def test_enqueue_works_again_after_the_broker_is_back(servers: EmbeddedServers, broker: redis.Redis):
    enqueue(1)
    with server_down(servers.valkey):
        pass

    enqueue(2)

    assert broker_answers()
    assert broker.llen(ENCODE_QUEUE) == 1


def test_hanging_broker_times_out(servers: EmbeddedServers, broker: redis.Redis):
    if servers.valkey is None:
        pytest.skip("an external Redis is not stopped by tests")
    enqueue(1)
    pid = broker.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        enqueue(2)  # without a timeout this call never returns
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("servers")  # the configuration names the broker
def test_messages_survive_a_worker_death():
    conf = celery.conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.worker_prefetch_multiplier) == (True, True, 1)
