from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from app.deployment.embedded import EmbeddedServers
from catalog.errors import DownloadStopped, HubRateLimited, Unavailable
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.ports import free_port
from tests.support.waiting import LIMIT
from workers.hub import session
from workers.hub.client import Hub
from workers.hub.rate_limits import SharedLimits
from workers.process.cancellation import Stopped, heeding

ROOT = Path(__file__).parents[3]
ENDPOINT = "http://hub.test"
CLOCK = 2e-6  # seconds; turns are told in microseconds
TAKER = """
import sys
from workers.hub.rate_limits import SharedLimits
limits = SharedLimits(sys.argv[1], "http://hub.test", rate=20, downloads=1)
for _ in range(20):
    print(limits.reserve().at)
"""


@pytest.fixture
def redis_url(servers: EmbeddedServers) -> Iterator[str]:
    with redis.Redis.from_url(servers.redis_url) as server:
        server.flushdb()
        yield servers.redis_url
        server.flushdb()


def make_limits(url: str, rate: float = 0, downloads: int = 2, **more: Any) -> SharedLimits:
    return SharedLimits(url, ENDPOINT, rate=rate, downloads=downloads, **more)


def leases(url: str) -> dict[bytes, float]:
    """Who downloads, and until when each counts by Redis's clock."""
    with redis.Redis.from_url(url) as server:
        return dict(server.zrange("deltadex:hub:{hub.test}:downloads", 0, -1, withscores=True))


# turns


def test_turns_are_spaced_evenly_over_all_workers(redis_url: str):
    one, other = make_limits(redis_url, rate=10), make_limits(redis_url, rate=10)
    turns = [limits.reserve().at for limits in (one, other, one, other)]
    assert all(later - earlier >= 0.1 - CLOCK for earlier, later in pairwise(turns))


def test_no_second_holds_more_turns_than_the_rate_whatever_processes_ask(redis_url: str):
    command = [sys.executable, "-c", TAKER, redis_url]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    turns = sorted(float(line) for process in running for line in process.communicate()[0].splitlines())
    assert len(turns) == 60
    assert all(later - earlier >= 1 / 20 - CLOCK for earlier, later in pairwise(turns))


def test_without_a_rate_nobody_waits(redis_url: str):
    limits = make_limits(redis_url)
    assert {limits.reserve().wait for _ in range(50)} == {0}


def test_hubs_do_not_wait_for_each_other(redis_url: str):
    make_limits(redis_url).hold(60)
    assert SharedLimits(redis_url, "http://other.test", rate=1, downloads=1).reserve().wait == 0


# holds


def test_a_hold_of_one_worker_stops_the_others(redis_url: str):
    one, other = make_limits(redis_url), make_limits(redis_url)
    one.hold(1000)
    with pytest.raises(HubRateLimited) as caught:
        other.wait_turn()
    assert 900 < caught.value.retry_after <= 1000


def test_a_shorter_hold_does_not_end_a_longer_one(redis_url: str):
    limits = make_limits(redis_url)
    limits.hold(100)
    limits.hold(1)
    with pytest.raises(HubRateLimited):
        limits.reserve()


def test_a_refused_request_takes_no_turn(redis_url: str):
    limits = make_limits(redis_url, rate=1)
    limits.hold(100)
    for _ in range(5):
        with pytest.raises(HubRateLimited):
            limits.reserve()
    with redis.Redis.from_url(redis_url) as server:
        assert server.keys("*turn") == []


def test_a_hold_has_an_end_however_long_the_hub_asks(redis_url: str):
    limits = make_limits(redis_url)
    limits.hold(10**9)
    with pytest.raises(HubRateLimited) as caught:
        limits.reserve()
    assert caught.value.retry_after <= 3600


def test_who_slept_towards_its_turn_sees_a_hold_that_came_meanwhile(redis_url: str):
    limits = make_limits(redis_url, rate=0.25)
    limits.reserve()

    def hold_meanwhile() -> bool:
        make_limits(redis_url).hold(1000)
        return False

    with heeding(hold_meanwhile), pytest.raises(HubRateLimited):  # asked for while it sleeps
        limits.wait_turn()


def test_work_that_is_given_up_does_not_wait_for_its_turn(redis_url: str):
    limits = make_limits(redis_url)
    limits.hold(15)
    with heeding(lambda: True), pytest.raises(Stopped):
        limits.wait_turn()


def test_limits_that_redis_forgot_start_anew(redis_url: str):
    limits = make_limits(redis_url)
    limits.hold(100)
    with redis.Redis.from_url(redis_url) as server:
        server.flushdb()
        server.script_flush()
    assert limits.reserve().wait == 0


def test_redis_that_is_away_is_an_error_that_may_pass():
    limits = make_limits(f"redis://127.0.0.1:{free_port()}/0", retries=1)
    with pytest.raises(Unavailable, match="does not answer"):
        limits.wait_turn()


# downloads


def test_no_more_downloads_run_than_may(redis_url: str):
    running, most = set(), 0
    changed = threading.Condition()

    def download(number: int) -> None:
        nonlocal most
        with make_limits(redis_url, downloads=2).download():
            with changed:
                running.add(number)
                most = max(most, len(running))
                changed.notify_all()
                assert changed.wait_for(lambda: most >= 2, LIMIT)
            time.sleep(0.05)  # room for one too many
            with changed:
                running.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(download, range(6)))
    assert most == 2


def test_a_download_that_waits_can_be_stopped(redis_url: str):
    limits = make_limits(redis_url, downloads=1)
    with limits.download(), pytest.raises(DownloadStopped), limits.download(stop=lambda: True):
        pass


def test_the_place_of_a_worker_that_died_is_free_again_when_its_lease_ends(redis_url: str):
    dead = make_limits(redis_url, downloads=1, lease=0.1).download()
    dead.__enter__()
    [held_by_dead] = leases(redis_url)
    with make_limits(redis_url, downloads=1).download():
        [held] = leases(redis_url)
    assert held != held_by_dead


def test_a_download_that_gives_signs_of_life_keeps_its_place_longer(redis_url: str):
    with make_limits(redis_url, downloads=1, lease=0.4).download() as renew:
        [(name, before)] = leases(redis_url).items()
        time.sleep(0.15)  # more than a quarter of the lease
        renew()
        assert leases(redis_url)[name] > before


# requests


@pytest.fixture
def hub(redis_url: str, scripted_hub: ScriptedHub, tmp_path: Path) -> Hub:
    limits = SharedLimits(redis_url, scripted_hub.url, rate=0, downloads=2)
    return Hub(scripted_hub.url, None, tmp_path, timeout=LIMIT, max_file_bytes=10**6, max_repo_files=100, limits=limits)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(429, {"Retry-After": "1200"}),
        Answer(429, {"RateLimit": '"api";r=0;t=1200'}),
        Answer(503, {"Retry-After": "1200"}),
    ],
)
def test_a_hub_that_asks_to_wait_is_not_asked_again_by_anyone(
    redis_url: str, scripted_hub: ScriptedHub, hub: Hub, answer: Answer
):
    scripted_hub.answer("/api/models/", answer)
    with pytest.raises(Unavailable):
        hub.resolve("o/one")
    other = SharedLimits(redis_url, scripted_hub.url, rate=0, downloads=2)
    with pytest.raises(HubRateLimited) as caught:
        other.wait_turn()
    assert caught.value.retry_after > 1000
    assert len(scripted_hub.requests) == 1


def test_a_429_that_names_no_time_slows_down_all_the_same(
    scripted_hub: ScriptedHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "COOL_OFF", 1000)
    scripted_hub.answer("/api/models/", Answer(429))
    for _ in range(2):
        with pytest.raises(HubRateLimited):
            hub.resolve("o/one")
    assert len(scripted_hub.requests) == 1


def test_a_limit_that_is_used_up_is_not_tried_again(redis_url: str, scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publishes("o/one", {"config.json": b"{}"})
    last = scripted_hub._answers["/api/models/o/one"]
    scripted_hub.first("/api/models/o/one", Answer(200, {"RateLimit": '"api";r=0;t=120'}, last.body))
    assert hub.resolve("o/one").repo_id == "o/one"
    with pytest.raises(HubRateLimited):
        hub.resolve("o/one")
    assert len(scripted_hub.requests) == 1


def test_each_hop_of_a_redirect_waits_for_its_turn(redis_url: str, scripted_hub: ScriptedHub, tmp_path: Path):
    scripted_hub.answer("/api/models/old/n", Answer(307, {"Location": "/api/models/new/n/revision/main"}))
    scripted_hub.publishes("new/n", {})
    limits = SharedLimits(redis_url, scripted_hub.url, rate=5, downloads=2)
    before = limits.reserve().at
    Hub(scripted_hub.url, None, tmp_path, timeout=LIMIT, max_file_bytes=1, max_repo_files=1, limits=limits).resolve(
        "old/n"
    )
    assert limits.reserve().at - before >= 3 / 5 - CLOCK  # two turns lie between
