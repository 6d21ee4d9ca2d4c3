"""Rate limits for the requests of all workers to a Hub, shared in Redis and by its clock.

The Hub counts requests in buckets: "api" for its API, and "resolvers" for files. Redis stores three things: for each
bucket, the time of the next free turn (turns are evenly spaced, so that no second has more requests than its rate) and
the end of a pause (a 429 for one worker pauses all), and the leases of running downloads. All of it may be lost at any
time: spacing starts again, and a Hub that still limits the rate answers with another 429.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

import httpx2
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from catalog.errors import DownloadStopped, HubRateLimited, Unavailable
from workers.process.cancellation import raise_if_cancelled

Stop = Callable[[], bool]

BUCKETS = API, FILES = "api", "resolvers"  # by the names that the Hub's header `RateLimit` has for them
FILES_PER_API_CALL = 6  # in the Hub's limits of anonymous requests, 3,000 and 500 in five minutes
SPACING_MARGIN = 1.1  # turns are wider apart than necessary: a delayed request arrives together with later ones
MAX_TURN_WAIT = 20.0  # seconds that a request waits for its turn; for longer waits the job is requeued
MAX_PAUSE = 3600.0  # seconds
LEASE_SECONDS = 60.0  # a lease ends this long after the last bytes of its download
REDIS_RETRIES = 8  # of a call to Redis
POLL_INTERVAL = 0.25  # seconds between checks for a free lease, or for cancellation

_NOW = "local t = redis.call('TIME') local now = t[1] + t[2] / 1000000 "
# KEYS: next free turn, pause. ARGV: seconds between turns, maximal wait. Returns {granted, seconds to wait, turn}
_TURN_SCRIPT = (
    _NOW
    + """
local turn = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(redis.call('GET', KEYS[2]) or 0))
local wait = string.format('%.6f', turn - now)
if turn - now > tonumber(ARGV[2]) then return {0, wait, ''} end
redis.call('SET', KEYS[1], string.format('%.6f', turn + ARGV[1]), 'EX', 7200)
return {1, wait, string.format('%.6f', turn)}
"""
)
# KEYS: pause. ARGV: seconds. The key expires with the pause
_PAUSE_SCRIPT = (
    _NOW
    + """
local till = now + ARGV[1]
if till > tonumber(redis.call('GET', KEYS[1]) or 0) then
  redis.call('SET', KEYS[1], string.format('%.6f', till), 'PX', math.max(1, math.ceil(ARGV[1] * 1000)))
end
"""
)
# KEYS: leases, scored by their end. ARGV: name, maximal number, seconds. Takes or renews a lease
_LEASE_SCRIPT = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('EXPIRE', KEYS[1], math.ceil(2 * ARGV[3]))
return 1
"""
)


@dataclass(frozen=True)
class Turn:
    """When a request may go out: `at` in seconds on Redis's clock, `wait` from now."""

    at: float
    wait: float


class HubLimits:
    """The interface of rate limits. This base class sets none, for commands that run without servers; the limits of the
    Hub itself still apply.
    """

    def bucket_of(self, host: str, path: str) -> str:
        """The bucket in which requests to a URL are counted: one of the endpoint's, or the host for any other host,
        such as the content delivery network to which the Hub redirects downloads.
        """
        return host

    def wait_turn(self, bucket: str) -> None:
        """Wait until one request of a bucket may be sent. Raises `HubRateLimited` if the wait would exceed
        `MAX_TURN_WAIT`, and `Cancelled`.
        """

    def pause(self, bucket: str, seconds: float) -> None:
        """Prevent all workers from sending requests of a bucket for `seconds` seconds."""

    @contextmanager
    def download(self, stop: Stop | None = None) -> Iterator[Callable[[], None]]:
        """Hold the lease of one download. The yielded function renews it; call it while bytes arrive."""
        yield lambda: None


class SharedLimits(HubLimits):
    """Limits shared by all processes with the same Redis and the same `endpoint`.

    `rate` is in requests for files per second, and a sixth of it the rate of API calls (0: only the Hub's own limits);
    other hosts have no rate. `downloads` is the number of downloads at a time in all workers; a lease ends `lease`
    seconds after its last renewal. The constructor does not connect. Methods raise
    `Unavailable` if Redis does not answer the first call and `retries` further ones, within some seconds.
    """

    def __init__(
        self,
        redis_url: str,
        endpoint: str,
        *,
        rate: float,
        downloads: int,
        lease: float = LEASE_SECONDS,
        retries: int = REDIS_RETRIES,
    ) -> None:
        retry = Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), retries)
        self._redis = Redis.from_url(
            redis_url,
            socket_timeout=5,
            socket_connect_timeout=2,
            retry=retry,
            retry_on_error=[RedisConnectionError, RedisTimeoutError],
        )
        self._host = httpx2.URL(endpoint).netloc.decode("ascii")
        self._keys = f"deltadex:hub:{{{self._host}}}"
        self._leases = f"{self._keys}:downloads"
        spacing = SPACING_MARGIN / rate if rate > 0 else 0.0
        self._spacing = {FILES: spacing, API: spacing * FILES_PER_API_CALL}
        self._downloads = downloads
        self._lease_seconds = lease
        self._take_turn = self._redis.register_script(_TURN_SCRIPT)
        self._set_pause = self._redis.register_script(_PAUSE_SCRIPT)
        self._take_lease = self._redis.register_script(_LEASE_SCRIPT)

    def bucket_of(self, host: str, path: str) -> str:
        if host != self._host:
            return host
        return FILES if "/resolve/" in path or "/resolve-cache/" in path else API

    def wait_turn(self, bucket: str) -> None:
        while (turn := self.reserve(bucket)).wait > 0:
            due = time.monotonic() + turn.wait
            while (remaining := due - time.monotonic()) > 0:
                raise_if_cancelled()  # the job may be cancelled long before its turn
                time.sleep(min(remaining, POLL_INTERVAL))
            with _redis_errors():
                if not self._redis.exists(self._pause_key(bucket)):
                    return  # otherwise a pause began during the sleep

    def reserve(self, bucket: str) -> Turn:
        """Take the next turn of a bucket. Raises `HubRateLimited`, without taking a turn."""
        with _redis_errors():
            granted, wait, at = self._take_turn(
                keys=[f"{self._keys}:{bucket}:turn", self._pause_key(bucket)],
                args=[self._spacing.get(bucket, 0.0), MAX_TURN_WAIT],
            )
        if not granted:
            raise HubRateLimited("The Hub limits the rate of requests.", float(wait))
        return Turn(float(at), float(wait))

    def pause(self, bucket: str, seconds: float) -> None:
        with _redis_errors():
            self._set_pause(keys=[self._pause_key(bucket)], args=[min(seconds, MAX_PAUSE)])

    def _pause_key(self, bucket: str) -> str:
        return f"{self._keys}:{bucket}:pause"

    @contextmanager
    def download(self, stop: Stop | None = None) -> Iterator[Callable[[], None]]:
        name = uuid4().hex
        while not self._lease(name):
            raise_if_stopped(stop)
            time.sleep(POLL_INTERVAL * random.uniform(0.5, 1.5))
        renewed = time.monotonic()

        def renew() -> None:
            nonlocal renewed
            if time.monotonic() - renewed > self._lease_seconds / 4:
                renewed = time.monotonic()
                self._lease(name)

        try:
            yield renew
        finally:
            with suppress(RedisError):  # otherwise the lease expires
                self._redis.zrem(self._leases, name)

    def _lease(self, name: str) -> bool:
        with _redis_errors():
            return bool(self._take_lease(keys=[self._leases], args=[name, self._downloads, self._lease_seconds]))


def raise_if_stopped(stop: Stop | None) -> None:
    """Raises `DownloadStopped`."""
    if stop is not None and stop():
        raise DownloadStopped("The download was stopped.")


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"Redis, which stores the shared rate limits, does not answer: {error}.") from error
