"""Job events over a real connection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import httpx
import pytest

from app.deployment import processes
from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.jobs import control as job_control
from catalog.jobs.repository import attempts
from catalog.tables import JobState
from tests.support import catalog as entries
from tests.support.keys import add_key
from tests.support.ports import free_port
from tests.support.problem_documents import documented_problem

LIMIT = 30  # seconds
KEY, OTHER_KEY = "an API key of the owner", "an API key of another"


class Stream:
    """An iterator over server-sent events as dicts of their fields, with decoded data."""

    def __init__(self, response: httpx.Response) -> None:
        self.last_id: str | None = None
        self._events = self._read(response)
        self.opening = next(self._events)

    def _read(self, response: httpx.Response) -> Iterator[dict]:
        fields: dict = {}
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            if line:
                fields[name] = json.loads(value) if name == "data" else value
            elif "data" in fields or "id" in fields:
                yield fields
                fields = {}
            else:
                fields = {}

    def take(self, count: int) -> list[tuple[int, str]]:
        """The job ids and states of the next `count` events."""
        return [(event["data"]["job"], event["data"]["state"]) for event in islice(self._events, count)]

    def remaining(self) -> list[tuple[int, str]]:
        return [(event["data"]["job"], event["data"]["state"]) for event in self._events]


@contextmanager
def open_stream(
    url: str, path: str = "/v1/jobs/events", last_id: str | None = None, key: str | None = None
) -> Iterator[Stream]:
    headers = ({"Last-Event-ID": last_id} if last_id else {}) | ({"X-API-Key": key} if key else {})
    with httpx.stream("GET", url + path, headers=headers, timeout=LIMIT) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


def run_job(database: Database, job_id: int, worker: int) -> None:
    entries.claim(database, job_id, worker)
    with database.transaction() as session:
        attempts.update_progress(session, [job_id], worker, JobState.ENCODING, 0.5)
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")


def test_events_of_a_private_job_go_only_to_its_submitter(url: str, database: Database):
    for key in (KEY, OTHER_KEY):
        add_key(database, key)
    with open_stream(url) as anonymous, open_stream(url, key=OTHER_KEY) as other, open_stream(url, key=KEY) as owner:
        private = entries.put_private_job(database, "a/hidden", hash_key(KEY))
        public = entries.put_job(database, "a/shown")
        assert owner.take(2) == [(private.id, "queued"), (public.id, "queued")]
        assert anonymous.take(1) == other.take(1) == [(public.id, "queued")]
    with open_stream(url, f"/v1/jobs/{private.id}/events", key=KEY) as stream:
        assert stream.take(1) == [(private.id, "queued")]


ALL_STATES = ["queued", "fetching", "encoding", "done"]


def test_every_change_is_streamed_in_order(url: str, database: Database):
    worker = entries.put_worker(database)
    with open_stream(url) as stream:
        ids = [entries.put_job(database, f"a/{number}").id for number in range(2)]
        for job_id in ids:
            run_job(database, job_id, worker)
        changes = stream.take(8)
    assert [[state for job, state in changes if job == job_id] for job_id in ids] == [ALL_STATES] * 2


def test_last_event_id_resumes_the_stream(url: str, database: Database):
    worker = entries.put_worker(database)
    with open_stream(url) as stream:
        job_id = entries.put_job(database).id
        assert stream.take(1) == [(job_id, "queued")]
        last_id = stream.last_id
    run_job(database, job_id, worker)

    with open_stream(url, last_id=last_id) as stream:
        assert stream.take(3) == [(job_id, state) for state in ALL_STATES[1:]]


def test_connection_without_events_can_be_resumed(url: str, database: Database):
    with open_stream(url) as stream:
        last_id = stream.last_id
    job_id = entries.put_job(database).id
    with open_stream(url, last_id=last_id) as stream:
        assert stream.take(1) == [(job_id, "queued")]


def test_job_stream_starts_with_the_current_state_and_ends_with_the_job(url: str, database: Database):
    job_id, other = entries.put_job(database, "a/one").id, entries.put_job(database, "a/two").id
    with open_stream(url, f"/v1/jobs/{job_id}/events") as stream:
        assert stream.take(1) == [(job_id, "queued")]
        job_control.cancel(database, other)
        run_job(database, job_id, entries.put_worker(database))
        assert stream.remaining() == [(job_id, state) for state in ALL_STATES[1:]]


def test_stream_of_a_finished_job_reports_its_state_and_ends(url: str, database: Database):
    job_id = entries.put_job(database).id
    job_control.cancel(database, job_id)
    with open_stream(url, f"/v1/jobs/{job_id}/events") as stream:
        last_id = stream.last_id
        assert stream.remaining() == [(job_id, "cancelled")]
    with open_stream(url, f"/v1/jobs/{job_id}/events", last_id) as stream:
        assert stream.remaining() == [(job_id, "cancelled")]


def test_resuming_after_deleted_events_reports_a_gap(url: str, database: Database):
    with open_stream(url) as stream:
        first, second = (entries.put_job(database, f"a/{number}").id for number in range(2))
        stream.take(1)
        last_id = stream.last_id
    with database.transaction() as session:
        session.connection().exec_driver_sql(f"DELETE FROM job_events WHERE job_id = {first}")
    with httpx.stream("GET", f"{url}/v1/jobs/events", headers={"Last-Event-ID": last_id}, timeout=LIMIT) as response:
        events = Stream(response)._events
        assert next(events)["event"] == "gap"
        assert next(events)["data"]["job"] == second


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/v1/jobs/999/events", {}, "job_not_found"),
        ("/v1/jobs/0/events", {}, "invalid_input"),
        ("/v1/jobs/events", {"Last-Event-ID": "x"}, "invalid_cursor"),
        ("/v1/jobs/events", {"Last-Event-ID": f"{2**63}-1"}, "invalid_cursor"),
        ("/v1/jobs/events", {"Last-Event-ID": "9" * 40 + "-1"}, "invalid_cursor"),
        ("/v1/jobs/events", {"Last-Event-ID": "9" * 5_000 + "-1"}, "invalid_input"),
        ("/v1/jobs/events", {"Last-Event-ID": "1-" + "9" * 5_000}, "invalid_input"),
        ("/v1/jobs/events", {"Last-Event-ID": b"\xb2-1"}, "invalid_cursor"),
        ("/v1/jobs/events", {"Last-Event-ID": "\u0663-\u0663".encode()}, "invalid_cursor"),
        ("/v1/jobs/events", {"Last-Event-ID": "-1-1"}, "invalid_cursor"),
        ("/v1/jobs/1/events", {"Last-Event-ID": "9" * 5_000 + "-1"}, "invalid_input"),
        ("/v1/jobs/events?state=done", {}, "invalid_input"),
    ],
)
def test_invalid_stream_request_returns_a_problem(url: str, path: str, headers: dict, code: str):
    response = httpx.get(url + path, headers=headers, timeout=LIMIT)
    assert documented_problem(response)["code"] == code


def test_streams_end_when_the_process_is_terminated(database: Database, servers: object):
    port = free_port()
    process = subprocess.Popen(
        processes.in_this_environment(processes.api("127.0.0.1", port)),
        env={**os.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}")
        with open_stream(f"http://127.0.0.1:{port}") as stream:
            process.send_signal(signal.SIGTERM)
            assert stream.remaining() == []
        assert process.wait(LIMIT) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{url}/healthz")
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
