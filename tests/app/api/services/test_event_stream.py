from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import event as sqlalchemy_events

from app.api.services import event_stream
from app.api.services.event_stream import EventStream
from catalog.database import Database
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository.events import Event, EventCursor
from tests.support import catalog as entries
from tests.support.outage import missing_table

LIMIT = 20  # seconds
WATCHERS = 40


@pytest.fixture
def queries(database: Database) -> Iterator[list[str]]:
    """The SQL statements that read events."""
    statements: list[str] = []

    def note(_connection, _cursor, statement: str, *_: object) -> None:
        if "FROM job_events" in statement:
            statements.append(statement)

    sqlalchemy_events.listen(database.engine, "before_cursor_execute", note)
    yield statements
    sqlalchemy_events.remove(database.engine, "before_cursor_execute", note)


def newest_cursor(database: Database) -> EventCursor:
    with database.transaction() as session:
        return job_events.newest_cursor(session)


async def collect(events: EventStream, after: EventCursor, count: int, pause: float = 0) -> list[Event]:
    received = []
    async for event in events.follow(after):
        received.append(event)
        await asyncio.sleep(pause)
        if len(received) == count:
            break
    return received


def test_number_of_queries_does_not_grow_with_the_watchers(database: Database, queries: list[str]):
    async def run() -> list[list[Event]]:
        async with EventStream(database, interval=0.1) as events:
            after = await asyncio.to_thread(newest_cursor, database)
            watchers = [asyncio.create_task(collect(events, after, 3)) for _ in range(WATCHERS)]
            await asyncio.sleep(0.3)  # until all of them wait
            queries.clear()
            for number in range(3):
                await asyncio.to_thread(entries.put_job, database, f"a/{number}")
            return await asyncio.wait_for(asyncio.gather(*watchers), LIMIT)

    results = asyncio.run(run())

    assert {tuple(event.repo_id for event in received) for received in results} == {("a/0", "a/1", "a/2")}
    assert len(queries) < WATCHERS


def test_no_query_runs_without_watchers(database: Database, queries: list[str]):
    async def run() -> None:
        async with EventStream(database, interval=0.01):
            await asyncio.sleep(0.2)

    asyncio.run(run())
    assert queries == []


def test_slow_watcher_gets_all_events_and_holds_none_in_memory(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_stream, "PAGE_SIZE", 3)
    names = [f"a/{number}" for number in range(40)]

    async def run() -> tuple[list[Event], int]:
        async with EventStream(database, interval=0.01, max_recent=5) as events:
            after = await asyncio.to_thread(newest_cursor, database)
            slow = asyncio.create_task(collect(events, after, len(names), pause=0.02))
            largest = 0
            for name in names:
                await asyncio.to_thread(entries.put_job, database, name)
                largest = max(largest, len(events._recent))
            return await asyncio.wait_for(slow, LIMIT), largest

    received, largest = asyncio.run(run())

    assert [event.repo_id for event in received] == names
    assert largest <= 5


def test_watchers_get_events_again_after_an_error(database: Database, caplog: pytest.LogCaptureFixture):
    async def run() -> list[Event]:
        async with EventStream(database, interval=0.01) as events:
            after = await asyncio.to_thread(newest_cursor, database)
            watcher = asyncio.create_task(collect(events, after, 1))
            await asyncio.sleep(0.1)  # until it waits
            with missing_table(database, "job_events"):
                async with asyncio.timeout(LIMIT):
                    while "Unexpected error while reading job events" not in caplog.text:
                        await asyncio.sleep(0.01)
            await asyncio.to_thread(entries.put_job, database, "a/later")
            return await asyncio.wait_for(watcher, LIMIT)

    assert [event.repo_id for event in asyncio.run(run())] == ["a/later"]


def test_end_ends_the_streams_of_all_watchers(database: Database):
    async def run() -> list[Event]:
        async with EventStream(database, interval=3600) as events:
            watcher = asyncio.create_task(collect(events, EventCursor(0, 0), 1))
            await asyncio.sleep(0.1)
            events.end()
            return await asyncio.wait_for(watcher, LIMIT)

    assert asyncio.run(run()) == []
