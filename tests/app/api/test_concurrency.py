"""Costly requests wait for each other; nobody else waits for them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api import concurrency
from app.api.concurrency import MAX_COSTLY, ConcurrencyMiddleware, Lanes
from catalog.errors import TooManyAtOnce
from tests.support.keys import ADMIN_KEY
from tests.support.problem_documents import documented_problem

LIMIT = 2


class Waiting:
    """An app whose requests do not answer until `released` is set; counts those that run, by caller."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.most = 0
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running.append(scope["state"]["limited_as"])
        self.most = max(self.most, len(self.running))
        await self.released.wait()
        self.running.remove(scope["state"]["limited_as"])
        await send({"type": "http.response.start", "status": 200, "headers": []})


class Requests:
    """Sends requests of callers to a middleware."""

    def __init__(self, app: Any) -> None:
        self.lanes = Lanes()
        self._middleware = ConcurrencyMiddleware(app)
        settings = SimpleNamespace(concurrent_requests=LIMIT)
        self._app = SimpleNamespace(state=SimpleNamespace(settings=settings, lanes=self.lanes))

    async def send(self, caller: str, path: str = "/v1/search/batch") -> int:
        statuses = []

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        scope |= {"app": self._app, "state": {"limited_as": caller}}
        await self._middleware(scope, asyncio.Event().wait, send)
        [status] = statuses
        return status


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_of_a_caller_over_the_limit_wait_and_are_answered():
    async def run() -> tuple[list[str], int, list[int]]:
        app = Waiting()
        requests = Requests(app)
        tasks = [asyncio.create_task(requests.send("one")) for _ in range(5)]
        await settle()
        running = list(app.running)
        app.released.set()
        statuses = await asyncio.gather(*tasks)
        assert requests.lanes.lanes == {}
        return running, app.most, statuses

    assert asyncio.run(run()) == (["one"] * LIMIT, LIMIT, [200] * 5)


def test_another_caller_does_not_wait_for_them():
    async def run() -> list[str]:
        app = Waiting()
        requests = Requests(app)
        tasks = [asyncio.create_task(requests.send("one")) for _ in range(5)]
        await settle()
        tasks += [asyncio.create_task(requests.send("other")) for _ in range(2)]
        await settle()
        running = list(app.running)
        app.released.set()
        await asyncio.gather(*tasks)
        return running

    assert asyncio.run(run()) == ["one", "one", "other", "other"]


def test_all_callers_together_leave_threads_for_other_routes():
    async def run() -> tuple[int, int]:
        app = Waiting()
        requests = Requests(app)
        tasks = [asyncio.create_task(requests.send(f"caller {n}")) for n in range(2 * MAX_COSTLY)]
        await settle()
        costly = len(app.running)
        tasks.append(asyncio.create_task(requests.send("caller 0", "/v1/models")))
        await settle()
        everything = len(app.running)
        app.released.set()
        await asyncio.gather(*tasks)
        return costly, everything

    assert asyncio.run(run()) == (MAX_COSTLY, MAX_COSTLY + 1)


def test_slot_is_free_once_the_response_begins():
    async def run() -> int:
        reading = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await reading.wait()

        requests = Requests(app)
        slow = [asyncio.create_task(requests.send("one")) for _ in range(3 * LIMIT)]
        await settle()
        free = requests.lanes.lanes == {}
        reading.set()
        await asyncio.gather(*slow)
        return free

    assert asyncio.run(run())


def test_too_many_waiting_requests_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(concurrency, "MAX_WAITING", 1)

    async def run() -> list[int]:
        app = Waiting()
        requests = Requests(app)
        tasks = [asyncio.create_task(requests.send("one")) for _ in range(LIMIT + 2)]
        await settle()
        app.released.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [200] * (LIMIT + 1) + [TooManyAtOnce.status]


def test_request_that_fails_frees_its_slot():
    async def run() -> dict[str, Any]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise KeyError

        requests = Requests(app)
        for _ in range(2 * LIMIT):
            with pytest.raises(KeyError):
                await requests.send("one")
        return requests.lanes.lanes

    assert asyncio.run(run()) == {}


def test_costly_request_without_a_slot_in_time_gets_429_and_others_are_answered(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(concurrency, "MAX_WAIT", 0.05)
    monkeypatch.setattr(api.app.state.lanes, "slots", asyncio.Semaphore(0))

    response = api.get("/v1/stats")

    assert (response.status_code, documented_problem(response)["code"]) == (429, "too_many_at_once")
    assert response.headers["Retry-After"] == "1"
    assert {api.get(path).status_code for path in ("/healthz", "/readyz", "/v1/jobs")} == {200}


def test_keys_and_addresses_have_lanes_of_their_own(api: TestClient):
    asked: list[str] = []
    enter = api.app.state.lanes.enter

    async def remember(caller: str, limit: int) -> None:
        asked.append(caller)
        await enter(caller, limit)

    api.app.state.lanes.enter = remember
    for _ in range(2):
        api.get("/v1/stats", headers={"X-API-Key": ADMIN_KEY})  # the second time as a key that was accepted
    api.get("/v1/stats", headers={"X-API-Key": ""})
    assert asked[1].startswith("key:")
    assert asked[2].startswith("address:")
