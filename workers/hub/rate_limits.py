"""What all workers together may ask of a Hub, agreed upon in Redis and by its clock.

Three things lie there: when the next request may go out (evenly spaced, so that no second holds more than `rate`), a
time before which none may (a 429 seen by one worker slows all), and who downloads at the moment. Redis may forget all
of it at any time: spacing starts anew, and a Hub that is still annoyed says so again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from catalog.errors import DownloadStopped, HubRateLimited, Unavailable
from workers.process.cancellation import check

Stop = Callable[[], bool]

HEADROOM = 1.1  # requests that are late on their way fall into the next ones' second
PATIENCE = 20.0  # seconds that a request waits for its turn; a job, not a thread, waits longer
LONGEST_HOLD = 3600.0  # seconds
LEASE = 60.0  # seconds after which a download that gave no sign of life counts as dead
RETRIES = 8  # of a call to Redis
GLANCE = 0.25  # seconds between looks at whether a download may begin, or is given up

_NOW = "local t = redis.call('TIME') local now = t[1] + t[2] / 1000000 "
# KEYS: the next free turn, the hold. ARGV: seconds between turns, patience. Returns {granted, seconds to wait, turn}
_TURN = (
    _NOW
    + """
local turn = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(redis.call('GET', KEYS[2]) or 0))
local wait = string.format('%.6f', turn - now)
if turn - now > tonumber(ARGV[2]) then return {0, wait, ''} end
redis.call('SET', KEYS[1], string.format('%.6f', turn + ARGV[1]), 'EX', 7200)
return {1, wait, string.format('%.6f', turn)}
"""
)
# KEYS: the hold. ARGV: seconds. The key lives exactly as long as the hold
_HOLD = (
    _NOW
    + """
local till = now + ARGV[1]
if till > tonumber(redis.call('GET', KEYS[1]) or 0) then
  redis.call('SET', KEYS[1], string.format('%.6f', till), 'PX', math.max(1, math.ceil(ARGV[1] * 1000)))
end
"""
)
# KEYS: who downloads, scored by when the lease ends. ARGV: who, how many may, seconds. Takes a lease or renews one
_LEASE = (
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
    """No limits: what a lone command has that runs without servers. The Hub's own answers still end its requests."""

    def wait_turn(self) -> None:
        """Return when one request may go out. Raises `HubRateLimited` where that is too far away to wait for, and
        `Stopped` when the work is given up meanwhile.
        """

    def hold(self, seconds: float) -> None:
        """Let nobody's request go out for so long."""

    @contextmanager
    def download(self, stop: Stop | None = None) -> Iterator[Callable[[], None]]:
        """One of the downloads that may run at once. What it gives is to be called while bytes arrive."""
        yield lambda: None


class SharedLimits(HubLimits):
    """The limits of everybody who names the same Redis and the same `endpoint`.

    `rate` is in requests a second (0: as many as the Hub itself allows), `downloads` how many run at once over all
    workers; one that gave no sign of life for `lease` seconds counts no more. Making one contacts nobody. Methods raise
    `Unavailable` where Redis does not answer to the first call and to so many `retries`, which is for some seconds.
    """

    def __init__(
        self,
        redis_url: str,
        endpoint: str,
        *,
        rate: float,
        downloads: int,
        lease: float = LEASE,
        retries: int = RETRIES,
    ) -> None:
        retry = Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), retries)
        self._redis = Redis.from_url(
            redis_url,
            socket_timeout=5,
            socket_connect_timeout=2,
            retry=retry,
            retry_on_error=[RedisConnectionError, RedisTimeoutError],
        )
        keys = f"deltadex:hub:{{{urlsplit(endpoint).netloc}}}"
        self._turns, self._hold, self._leases = f"{keys}:turn", f"{keys}:hold", f"{keys}:downloads"
        self._spacing = HEADROOM / rate if rate > 0 else 0.0
        self._downloads = downloads
        self._lease_seconds = lease
        self._take_turn = self._redis.register_script(_TURN)
        self._put_hold = self._redis.register_script(_HOLD)
        self._take_lease = self._redis.register_script(_LEASE)

    def wait_turn(self) -> None:
        while (turn := self.reserve()).wait > 0:
            due = time.monotonic() + turn.wait
            while (left := due - time.monotonic()) > 0:
                check()  # the job may be given up long before its turn
                time.sleep(min(left, GLANCE))
            with _redis_errors():
                if not self._redis.exists(self._hold):
                    return  # otherwise the Hub asked to slow down while this one slept

    def reserve(self) -> Turn:
        """Take the next turn. Raises `HubRateLimited`, and then none is taken."""
        with _redis_errors():
            granted, wait, at = self._take_turn(keys=[self._turns, self._hold], args=[self._spacing, PATIENCE])
        if not granted:
            raise HubRateLimited("The Hub asked all workers to slow down.", float(wait))
        return Turn(float(at), float(wait))

    def hold(self, seconds: float) -> None:
        with _redis_errors():
            self._put_hold(keys=[self._hold], args=[min(seconds, LONGEST_HOLD)])

    @contextmanager
    def download(self, stop: Stop | None = None) -> Iterator[Callable[[], None]]:
        name = uuid4().hex
        while not self._lease(name):
            check_stop(stop)
            time.sleep(GLANCE * random.uniform(0.5, 1.5))
        renewed = time.monotonic()

        def renew() -> None:
            nonlocal renewed
            if time.monotonic() - renewed > self._lease_seconds / 4:
                renewed = time.monotonic()
                self._lease(name)

        try:
            yield renew
        finally:
            with suppress(RedisError):  # the lease ends by itself
                self._redis.zrem(self._leases, name)

    def _lease(self, name: str) -> bool:
        with _redis_errors():
            return bool(self._take_lease(keys=[self._leases], args=[name, self._downloads, self._lease_seconds]))


def check_stop(stop: Stop | None) -> None:
    """Raises `DownloadStopped`."""
    if stop is not None and stop():
        raise DownloadStopped("The download was stopped.")


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"Redis, where the workers agree on the Hub's limits, does not answer: {error}.") from error
