from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import event as hooks

from app.api.services import event_stream
from app.api.services.event_stream import Broadcast
from catalog.database import Database
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository.events import Event, Place
from tests.support import catalog as entries
from tests.support.outage import without_its_table

LIMIT = 20  # seconds
WATCHERS = 40


@pytest.fixture
def queries(database: Database) -> Iterator[list[str]]:
    """Statements that read events."""
    found: list[str] = []

    def note(_connection, _cursor, statement: str, *_: object) -> None:
        if "FROM job_events" in statement:
            found.append(statement)

    hooks.listen(database.engine, "before_cursor_execute", note)
    yield found
    hooks.remove(database.engine, "before_cursor_execute", note)


def head(database: Database) -> Place:
    with database.transaction() as session:
        return job_events.head(session)


async def take(events: Broadcast, after: Place, count: int, pause: float = 0) -> list[Event]:
    found = []
    async for event in events.follow(after):
        found.append(event)
        await asyncio.sleep(pause)
        if len(found) == count:
            break
    return found


def test_many_watchers_cost_as_many_queries_as_one(database: Database, queries: list[str]):
    async def run() -> list[list[Event]]:
        async with Broadcast(database, interval=0.1) as events:
            after = await asyncio.to_thread(head, database)
            watchers = [asyncio.create_task(take(events, after, 3)) for _ in range(WATCHERS)]
            await asyncio.sleep(0.3)  # all of them wait
            queries.clear()
            for number in range(3):
                await asyncio.to_thread(entries.put_job, database, f"a/{number}")
            return await asyncio.wait_for(asyncio.gather(*watchers), LIMIT)

    found = asyncio.run(run())

    assert {tuple(event.repo_id for event in each) for each in found} == {("a/0", "a/1", "a/2")}
    assert len(queries) < WATCHERS


def test_nobody_watching_costs_no_query(database: Database, queries: list[str]):
    async def run() -> None:
        async with Broadcast(database, interval=0.01):
            await asyncio.sleep(0.2)

    asyncio.run(run())
    assert queries == []


def test_a_slow_watcher_loses_nothing_and_keeps_nothing_in_memory(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_stream, "PAGE", 3)
    names = [f"a/{number}" for number in range(40)]

    async def run() -> tuple[list[Event], int]:
        async with Broadcast(database, interval=0.01, kept=5) as events:
            after = await asyncio.to_thread(head, database)
            slow = asyncio.create_task(take(events, after, len(names), pause=0.02))
            largest = 0
            for name in names:
                await asyncio.to_thread(entries.put_job, database, name)
                largest = max(largest, len(events._recent))
            return await asyncio.wait_for(slow, LIMIT), largest

    found, largest = asyncio.run(run())

    assert [event.repo_id for event in found] == names
    assert largest <= 5


def test_whoever_watches_is_told_again_after_any_error(database: Database, caplog: pytest.LogCaptureFixture):
    async def run() -> list[Event]:
        async with Broadcast(database, interval=0.01) as events:
            after = await asyncio.to_thread(head, database)
            watcher = asyncio.create_task(take(events, after, 1))
            await asyncio.sleep(0.1)  # it waits
            with without_its_table(database, "job_events"):
                async with asyncio.timeout(LIMIT):
                    while "the next look tries again" not in caplog.text:
                        await asyncio.sleep(0.01)
            await asyncio.to_thread(entries.put_job, database, "a/later")
            return await asyncio.wait_for(watcher, LIMIT)

    assert [event.repo_id for event in asyncio.run(run())] == ["a/later"]


def test_every_watcher_is_sent_home_at_the_end(database: Database):
    async def run() -> list[Event]:
        async with Broadcast(database, interval=3600) as events:
            watcher = asyncio.create_task(take(events, Place(0, 0), 1))
            await asyncio.sleep(0.1)
            events.end()
            return await asyncio.wait_for(watcher, LIMIT)

    assert asyncio.run(run()) == []
