"""Rate limits: each request costs units, and each caller has so many of them a minute (`DELTADEX_RATE_LIMIT`).

The units of all API processes are counted together in Redis, by the library `limits`, in windows of a minute of its
own clock. While Redis does not answer, requests are not counted. Responses have the headers of the IETF draft
"RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers-10).
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Callable, Container
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth.caller import KEY_HEADER
from app.api.problems import render_error
from catalog.auth.keys import Caller
from catalog.auth.viewer import hash_key
from catalog.errors import RateLimited
from catalog.settings import Settings

WINDOW = 60  # seconds
KEY_PREFIX = "deltadex:rate_limits"  # of the keys in Redis
POLICY = "default"  # the name of the policy in the headers
REDIS_TIMEOUT = 0.5  # seconds that a request waits for Redis
OUTAGE_PAUSE = 5.0  # seconds in which Redis is not asked again after it did not answer
MAX_ACCEPTED = 100_000  # keys
IPV6_PREFIX = 64  # bits that a network has at least, so that one client can use all addresses with them

DEFAULT_COST = 1  # units
# units by method and path, by what a request costs the API, Postgres and the workers; 0: not counted
COSTS: dict[tuple[str, str], int] = {
    ("GET", "/healthz"): 0,
    ("GET", "/readyz"): 0,
    ("GET", "/v1/clusters/runs/{run_id}/compare/{other_id}"): 20,
    ("GET", "/v1/jobs/events"): 5,
    ("GET", "/v1/map"): 5,
    ("GET", "/v1/merges/{merge_id}/adapter"): 20,
    ("GET", "/v1/merges/{merge_id}/neighbors"): 4,
    ("GET", "/v1/models/{owner}/{name}/neighbors"): 2,
    ("GET", "/v1/stats"): 5,
    ("GET", "/v1/tasks/{task_id}/adapter"): 20,
    ("GET", "/v1/tasks/{task_id}/neighbors"): 10,
    ("POST", "/v1/merges"): 20,
    ("POST", "/v1/merges/plan"): 10,
    ("POST", "/v1/search"): 2,
    ("POST", "/v1/search/batch"): 50,
    ("POST", "/v1/selections"): 50,
    ("POST", "/v1/tasks"): 50,
    ("POST", "/v1/vectors"): 5,
}
_PATTERNS = [(method, compile_path(path)[0], cost) for (method, path), cost in COSTS.items()]

log = logging.getLogger(__name__)


def cost_of(method: str, path: str) -> int:
    """The units that a request costs."""
    return next((cost for name, pattern, cost in _PATTERNS if name == method and pattern.match(path)), DEFAULT_COST)


def identify(scope: Scope, accepted: Container[str]) -> str:
    """Who a request counts for: the hash of its API key if it is one of the `accepted`, or else the address of its
    client, so that nobody gets more units by sending another invented key each time.

    An IPv6 address counts as its /64. The address is that of the connection: uvicorn replaces it by the one that a
    proxy forwards only for the proxies of `--forwarded-allow-ips`.
    """
    headers = Headers(scope=scope)
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    key = headers.get(KEY_HEADER) or (bearer.strip() if scheme.lower() == "bearer" else "")
    return f"key:{hashed}" if key and (hashed := hash_key(key)) in accepted else f"address:{_network(scope)}"


def _network(scope: Scope) -> str:
    host = scope["client"][0] if scope.get("client") else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False).network_address)


@dataclass(frozen=True)
class Usage:
    """What a caller has used of its `limit` in this minute, the current request included, in units; the minute ends in
    `reset` seconds.
    """

    limit: int
    used: int
    reset: int

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit

    def headers(self) -> dict[str, str]:
        remaining = max(0, self.limit - self.used)
        return {
            "RateLimit-Policy": f'"{POLICY}";q={self.limit};w={WINDOW}',
            "RateLimit": f'"{POLICY}";r={remaining};t={self.reset}',
        }


class RateLimiter:
    """Counts units in Redis, in windows of the `clock` (Unix seconds). Used by one event loop."""

    def __init__(self, redis_url: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._pool = ConnectionPool.from_url(
            redis_url,
            socket_timeout=REDIS_TIMEOUT,
            socket_connect_timeout=REDIS_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=KEY_PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]  # it takes a pool, but its types say plain values
        )
        self._ask_after = 0.0  # of the monotonic clock; while Redis is down
        self._down = False

    async def count(self, caller: str, cost: int, limit: int) -> Usage | None:
        """Count units for a caller. None while Redis does not answer, which is logged once."""
        if time.monotonic() < self._ask_after:
            return None
        window, second = divmod(self._clock(), WINDOW)
        key = RateLimitItemPerMinute(limit).key_for(caller, str(int(window)))
        try:
            used = await self._storage.incr(key, WINDOW, amount=cost)
        except (RedisError, OSError, TimeoutError) as error:
            self._ask_after = time.monotonic() + OUTAGE_PAUSE
            if not self._down:
                log.warning("rate limits are off until Redis answers again: %s", error)
            self._down = True
            return None
        if self._down:
            log.warning("Redis answers again: rate limits are on")
        self._down = False
        return Usage(limit, used, math.ceil(WINDOW - second))

    async def close(self) -> None:
        await self._pool.disconnect()


class RateLimitMiddleware:
    """Counts each request for its caller, and refuses those of a caller who has no units left in this minute."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._accepted: set[str] = set()  # hashes of keys that this process has accepted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})  # in which a route leaves its caller
        if scope["type"] == "http":
            scope["state"]["limited_as"] = identify(scope, self._accepted)
        usage = await self._count(scope) if scope["type"] == "http" else None
        if usage is None:
            await self._app(scope, receive, send)
            self._remember(scope["state"].get("caller"))
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(usage.headers())
            await send(message)

        if usage.exceeded:
            error = RateLimited(
                f"More than {usage.limit:,} units of requests in a minute. Wait {usage.reset} seconds; the headers "
                "RateLimit-Policy and RateLimit say how many are left.",
                usage.reset,
            )
            await render_error(Request(scope), error)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)
            self._remember(scope["state"].get("caller"))

    def _remember(self, caller: Caller | None) -> None:
        if caller is not None and caller.viewer.submitter is not None:
            if len(self._accepted) >= MAX_ACCEPTED:
                self._accepted.clear()
            self._accepted.add(caller.viewer.submitter)

    async def _count(self, scope: Scope) -> Usage | None:
        """None if the request is not limited."""
        settings: Settings = scope["app"].state.settings
        limiter: RateLimiter | None = getattr(scope["app"].state, "rate_limiter", None)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        cost = cost_of(scope["method"], path)
        if limiter is None or settings.rate_limit == 0 or cost == 0:
            return None
        # a low limit must not forbid an expensive route
        return await limiter.count(scope["state"]["limited_as"], min(cost, settings.rate_limit), settings.rate_limit)
