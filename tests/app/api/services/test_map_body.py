"""Bodies of maps whose views take as long as the tests want."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from app.api.services import map_body
from app.api.services.map_body import Body, MapBodies
from catalog.errors import IndexNotLoaded
from catalog.maps.view import LoadedMap, MapVersion, MapView
from tests.support.waiting import wait_until

LAYOUT = LoadedMap(0, 0.0, [], *(np.zeros(0, np.int64), [], np.zeros((0, 2), np.int64)), *[np.zeros(0, np.int64)] * 2)


def version(seq: int, space_key: str = "a") -> MapVersion:
    return MapVersion(1, space_key, 2, 1, None, 1, seq)


class SlowViews:
    """Views that are created when `go` is set. An arrival is named like the last change of its version."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.created: list[MapVersion] = []

    def create(self, of: MapVersion) -> MapView:
        self.created.append(of)
        assert self.go.wait(30)
        return MapView(of, LAYOUT, [f"owner/{of.last_seq}"], np.zeros((1, 2), np.int64), [-1], [])


@pytest.fixture
def views() -> SlowViews:
    return SlowViews()


@pytest.fixture
def bodies(views: SlowViews) -> Iterator[MapBodies]:
    bodies = MapBodies(views.create)
    yield bodies
    views.go.set()
    bodies.close()


def arrivals(body: Body) -> list[str]:
    return json.loads(gzip.decompress(body.compressed))["arrivals"]["repo_ids"]


def test_requests_that_wait_for_a_map_take_one_thread_in_all(views: SlowViews, bodies: MapBodies):
    async def run() -> list[Body]:
        before = threading.active_count()
        requests = [asyncio.create_task(bodies.get(version(1))) for _ in range(200)]
        await asyncio.to_thread(wait_until, lambda: views.created, "the view is being created")
        assert threading.active_count() <= before + 2  # of `bodies`, and of `to_thread`
        views.go.set()
        return await asyncio.gather(*requests)

    answers = asyncio.run(run())
    assert views.created == [version(1)]
    assert {id(body) for body in answers} == {id(answers[0])}


def test_earlier_body_is_served_while_the_new_one_is_made(
    views: SlowViews, bodies: MapBodies, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(map_body, "PATIENCE", 0.01)
    views.go.set()
    first = asyncio.run(bodies.get(version(1)))
    views.go.clear()
    assert asyncio.run(bodies.get(version(2))) is first
    assert asyncio.run(bodies.get(version(3))) is first
    views.go.set()
    wait_until(lambda: not bodies._making, "the body is made")
    assert arrivals(asyncio.run(bodies.get(version(3)))) == ["owner/3"]
    assert views.created == [version(1), version(2), version(3)]


def test_request_waits_for_its_own_version_after_one_that_is_being_made(views: SlowViews, bodies: MapBodies):
    async def run() -> list[Body]:
        requests = [asyncio.create_task(bodies.get(version(1)))]
        await asyncio.to_thread(wait_until, lambda: views.created, "the first view is being created")
        requests.append(asyncio.create_task(bodies.get(version(2))))
        await asyncio.sleep(0)
        views.go.set()
        return await asyncio.gather(*requests)

    assert [arrivals(body) for body in asyncio.run(run())] == [["owner/1"], ["owner/2"]]


def test_slow_map_does_not_hold_up_that_of_another_space(views: SlowViews, bodies: MapBodies):
    async def run() -> None:
        slow = asyncio.create_task(bodies.get(version(1)))
        await asyncio.to_thread(wait_until, lambda: views.created, "the first view is being created")
        other = asyncio.create_task(bodies.get(version(1, "b")))
        await asyncio.to_thread(wait_until, lambda: len(views.created) == 2, "both views are being created")
        views.go.set()
        await asyncio.gather(slow, other)

    asyncio.run(run())


def test_error_reaches_every_request_and_the_next_one_tries_again(views: SlowViews):
    def fail(of: MapVersion) -> MapView:
        views.create(of)
        raise IndexNotLoaded("The index is being loaded.", retry_after=1)

    bodies = MapBodies(fail)

    async def run() -> list[Body | BaseException]:
        requests = [asyncio.create_task(bodies.get(version(1))) for _ in range(3)]
        await asyncio.to_thread(wait_until, lambda: views.created, "the view is being created")
        views.go.set()
        return await asyncio.gather(*requests, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(run())] == [IndexNotLoaded] * 3
    with pytest.raises(IndexNotLoaded):
        asyncio.run(bodies.get(version(1)))
    assert len(views.created) == 2
    bodies.close()
