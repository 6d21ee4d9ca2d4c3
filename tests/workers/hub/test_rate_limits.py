from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from app.deployment.embedded import EmbeddedServers
from catalog.errors import DownloadStopped, HubRateLimited, Unavailable
from catalog.settings import Settings
from tests.support.hub_client import ADAPTER, files_in
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.ports import free_port
from tests.support.waiting import LIMIT
from workers.hub import session
from workers.hub.client import Hub
from workers.hub.rate_limits import API, FILES, FILES_PER_API_CALL, SharedLimits
from workers.process.cancellation import Cancelled, cancel_scope

ROOT = Path(__file__).parents[3]
ENDPOINT = "http://hub.test"
CLOCK_RESOLUTION = 2e-6  # seconds; Redis gives turns in microseconds
TAKE_TURNS = """
import sys
from workers.hub.rate_limits import FILES, SharedLimits
limits = SharedLimits(sys.argv[1], "http://hub.test", rate=20, downloads=1)
for _ in range(20):
    print(limits.reserve(FILES).at)
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
    """The leases of downloads, with their ends by Redis's clock."""
    with redis.Redis.from_url(url) as server:
        return dict(server.zrange("deltadex:hub:{hub.test}:downloads", 0, -1, withscores=True))


# turns


def test_turns_are_evenly_spaced_over_all_workers(redis_url: str):
    one, other = make_limits(redis_url, rate=10), make_limits(redis_url, rate=10)
    turns = [limits.reserve(FILES).at for limits in (one, other, one, other)]
    assert all(later - earlier >= 0.1 - CLOCK_RESOLUTION for earlier, later in pairwise(turns))


def test_rate_holds_over_several_processes(redis_url: str):
    command = [sys.executable, "-c", TAKE_TURNS, redis_url]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    turns = sorted(float(line) for process in running for line in process.communicate()[0].splitlines())
    assert len(turns) == 60
    assert all(later - earlier >= 1 / 20 - CLOCK_RESOLUTION for earlier, later in pairwise(turns))


def test_without_a_rate_no_request_waits(redis_url: str):
    limits = make_limits(redis_url)
    assert {limits.reserve(FILES).wait for _ in range(50)} == {0}


def test_limits_of_two_hubs_are_separate(redis_url: str):
    make_limits(redis_url).pause(FILES, 60)
    assert SharedLimits(redis_url, "http://other.test", rate=1, downloads=1).reserve(FILES).wait == 0


def test_default_rate_is_within_the_limits_of_anonymous_requests(redis_url: str):
    limits = make_limits(redis_url, rate=Settings.model_fields["hub_rate"].default)
    for bucket, allowed in ((API, 500), (FILES, 3_000)):  # in five minutes
        one, other = limits.reserve(bucket).at, limits.reserve(bucket).at
        assert 300 / (other - one) <= allowed


def test_other_hosts_have_no_rate(redis_url: str):
    limits = make_limits(redis_url, rate=1)
    assert limits.bucket_of("cdn.test", "/api/models") == "cdn.test"
    assert {limits.reserve("cdn.test").wait for _ in range(5)} == {0}


# pauses


def test_pause_of_one_worker_stops_the_others(redis_url: str):
    one, other = make_limits(redis_url), make_limits(redis_url)
    one.pause(FILES, 1000)
    with pytest.raises(HubRateLimited) as caught:
        other.wait_turn(FILES)
    assert 900 < caught.value.retry_after <= 1000


def test_shorter_pause_does_not_end_a_longer_one(redis_url: str):
    limits = make_limits(redis_url)
    limits.pause(FILES, 100)
    limits.pause(FILES, 1)
    with pytest.raises(HubRateLimited):
        limits.reserve(FILES)


def test_refused_request_takes_no_turn(redis_url: str):
    limits = make_limits(redis_url, rate=1)
    limits.pause(FILES, 100)
    for _ in range(5):
        with pytest.raises(HubRateLimited):
            limits.reserve(FILES)
    with redis.Redis.from_url(redis_url) as server:
        assert server.keys("*turn") == []


def test_pause_is_bounded(redis_url: str):
    limits = make_limits(redis_url)
    limits.pause(FILES, 10**9)
    with pytest.raises(HubRateLimited) as caught:
        limits.reserve(FILES)
    assert caught.value.retry_after <= 3600


def test_request_that_waits_for_its_turn_sees_a_new_pause(redis_url: str):
    limits = make_limits(redis_url, rate=0.25)
    limits.reserve(FILES)

    def pause_during_the_wait() -> bool:
        make_limits(redis_url).pause(FILES, 1000)
        return False

    with cancel_scope(pause_during_the_wait), pytest.raises(HubRateLimited):
        limits.wait_turn(FILES)


def test_cancelled_work_stops_waiting_for_its_turn(redis_url: str):
    limits = make_limits(redis_url)
    limits.pause(FILES, 15)
    with cancel_scope(lambda: True), pytest.raises(Cancelled):
        limits.wait_turn(FILES)


def test_limits_start_again_when_redis_is_emptied(redis_url: str):
    limits = make_limits(redis_url)
    limits.pause(FILES, 100)
    with redis.Redis.from_url(redis_url) as server:
        server.flushdb()
        server.script_flush()
    assert limits.reserve(FILES).wait == 0


def test_unreachable_redis_is_a_transient_error():
    limits = make_limits(f"redis://127.0.0.1:{free_port()}/0", retries=1)
    with pytest.raises(Unavailable, match="does not answer"):
        limits.wait_turn(FILES)


# downloads


def test_number_of_downloads_is_limited(redis_url: str):
    running, peak = set(), 0
    changed = threading.Condition()

    def download(number: int) -> None:
        nonlocal peak
        with make_limits(redis_url, downloads=2).download():
            with changed:
                running.add(number)
                peak = max(peak, len(running))
                changed.notify_all()
                assert changed.wait_for(lambda: peak >= 2, LIMIT)
            time.sleep(0.05)  # time for a further download to start
            with changed:
                running.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(download, range(6)))
    assert peak == 2


def test_download_that_waits_for_a_lease_can_be_stopped(redis_url: str):
    limits = make_limits(redis_url, downloads=1)
    with limits.download(), pytest.raises(DownloadStopped), limits.download(stop=lambda: True):
        pass


def test_lease_of_a_dead_worker_expires(redis_url: str):
    dead = make_limits(redis_url, downloads=1, lease=0.1).download()
    dead.__enter__()
    [lease_of_dead] = leases(redis_url)
    with make_limits(redis_url, downloads=1).download():
        [lease] = leases(redis_url)
    assert lease != lease_of_dead


def test_renewed_lease_lasts_longer(redis_url: str):
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
def test_retry_after_pauses_all_workers(redis_url: str, scripted_hub: ScriptedHub, hub: Hub, answer: Answer):
    scripted_hub.answer("/api/models/", answer)
    with pytest.raises(Unavailable):
        hub.resolve("o/one")
    other = SharedLimits(redis_url, scripted_hub.url, rate=0, downloads=2)
    with pytest.raises(HubRateLimited) as caught:
        other.wait_turn(API)
    assert caught.value.retry_after > 1000
    assert len(scripted_hub.requests) == 1


def test_429_without_a_time_pauses_too(scripted_hub: ScriptedHub, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "DEFAULT_PAUSE", 1000)
    scripted_hub.answer("/api/models/", Answer(429))
    for _ in range(2):
        with pytest.raises(HubRateLimited):
            hub.resolve("o/one")
    assert len(scripted_hub.requests) == 1


def test_exhausted_rate_limit_pauses_before_the_next_request(redis_url: str, scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/one", {"config.json": b"{}"})
    last = scripted_hub._answers["/api/models/o/one"]
    scripted_hub.answer_first("/api/models/o/one", Answer(200, {"RateLimit": '"api";r=0;t=120'}, last.body))
    assert hub.resolve("o/one").repo_id == "o/one"
    with pytest.raises(HubRateLimited):
        hub.resolve("o/one")
    assert len(scripted_hub.requests) == 1


@pytest.mark.parametrize(("name", "paused", "free"), [("api", API, FILES), ("resolvers", FILES, API)])
def test_used_up_bucket_does_not_stop_the_other(
    scripted_hub: ScriptedHub, hub: Hub, redis_url: str, name: str, paused: str, free: str
):
    scripted_hub.publish("o/one", ADAPTER)
    snapshot = hub.resolve("o/one")
    path = "/api/models/o/one" if name == "api" else f"/o/one/resolve/{scripted_hub.sha}/adapter_model.safetensors"
    scripted_hub.answer(path, Answer(429, {"RateLimit": f'"{name}";r=0;t=1200'}))
    with pytest.raises(HubRateLimited):
        hub.resolve("o/one") if name == "api" else hub.fetch_finetune(snapshot)
    limits = SharedLimits(redis_url, scripted_hub.url, rate=0, downloads=2)
    assert limits.reserve(free).wait == 0
    with pytest.raises(HubRateLimited):
        limits.reserve(paused)


def test_downloads_go_on_while_the_bucket_of_the_api_is_empty(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/one", ADAPTER)
    last = scripted_hub._answers["/api/models/o/one"]
    scripted_hub.answer_first("/api/models/o/one", Answer(200, {"RateLimit": '"api";r=0;t=1200'}, last.body))
    assert files_in(hub.fetch_finetune(hub.resolve("o/one"))) == set(ADAPTER)


class RecordingLimits(SharedLimits):
    """Limits that record the buckets in which turns are taken."""

    def wait_turn(self, bucket: str) -> None:
        self.taken = [*getattr(self, "taken", []), bucket]
        super().wait_turn(bucket)


def test_redirect_to_another_host_is_not_counted_as_a_request_to_the_hub(
    redis_url: str, scripted_hub: ScriptedHub, tmp_path: Path
):
    scripted_hub.publish("o/one", ADAPTER)
    other = ScriptedHub()
    for path in [path for path in scripted_hub._answers if "/resolve/" in path]:
        answer = scripted_hub._answers[path]
        other.answer(path, answer)
        scripted_hub.answer(path, Answer(302, {**answer.headers, "Location": f"{other.url}{path}"}))
    limits = RecordingLimits(redis_url, scripted_hub.url, rate=0, downloads=2)
    settings = {"timeout": LIMIT, "max_file_bytes": 10**6, "max_repo_files": 9, "limits": limits}
    try:
        hub = Hub(scripted_hub.url, None, tmp_path, **settings)
        hub.fetch_finetune(hub.resolve("o/one"))
    finally:
        other.stop()
    files = len(ADAPTER)
    assert Counter(limits.taken) == {API: 1, FILES: files, other.url.removeprefix("http://"): files}


def test_each_hop_of_a_redirect_takes_a_turn(redis_url: str, scripted_hub: ScriptedHub, tmp_path: Path):
    scripted_hub.answer("/api/models/old/n", Answer(307, {"Location": "/api/models/new/n/revision/main"}))
    scripted_hub.publish("new/n", {})
    limits = SharedLimits(redis_url, scripted_hub.url, rate=5 * FILES_PER_API_CALL, downloads=2)
    before = limits.reserve(API).at
    Hub(scripted_hub.url, None, tmp_path, timeout=LIMIT, max_file_bytes=1, max_repo_files=1, limits=limits).resolve(
        "old/n"
    )
    assert limits.reserve(API).at - before >= 3 / 5 - CLOCK_RESOLUTION  # of two requests
