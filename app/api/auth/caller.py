"""The caller of a request: its API key, what it may do, and what it can see."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated

from anyio import CapacityLimiter, move_on_after, to_thread
from anyio.lowlevel import RunVar
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.api.auth.roles import required_role
from app.api.settings import SettingsDep
from catalog.archives.limits import ArchiveLimits
from catalog.auth import keys
from catalog.auth.hub_tokens import TokenBox, parse_token
from catalog.auth.keys import Caller
from catalog.auth.viewer import Viewer
from catalog.errors import CatalogError, KeyRequired, RoleRequired
from catalog.jobs.quotas import Quota
from catalog.tables import Role

OPEN_ROUTE_TIMEOUT = 0.05  # seconds that a route that is open to everybody waits for the caller of a key
OPEN_ROUTE_THREADS = 4
KEY_HEADER = "X-API-Key"
TOKEN_HEADER = "X-Hub-Token"
_key_header = APIKeyHeader(name=KEY_HEADER, auto_error=False, description="A key from `deltadex keys add`.")
_bearer = HTTPBearer(auto_error=False, description="The same key as a bearer token.")
_token = APIKeyHeader(
    name=TOKEN_HEADER,
    scheme_name="HubToken",
    auto_error=False,
    description="A Hugging Face token with read access to the repo, if it is gated or private.",
)


async def _caller(
    request: Request,
    settings: SettingsDep,
    key: Annotated[str | None, Depends(_key_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """The caller, with the role that the route requires. Every route depends on this.

    Raises `KeyUnknown`, `KeyRevoked`, `KeyExpired`, `KeyRequired` and `RoleRequired`. On a route that is open to
    everybody, a key that is not accepted, or not within `OPEN_ROUTE_TIMEOUT`, counts as none.
    """
    required = required_role(request.method, request.scope["route"].path)
    anonymous = Caller("anonymous", Role.READER if settings.anonymous_reading else None)
    key = key or (bearer.credentials if bearer else None)
    authenticate = partial(keys.authenticate, request.app.state.services.database, key or "", settings.admin_api_key)
    if not key:
        caller = anonymous
    elif required is not None:
        caller = await run_in_threadpool(authenticate)
    else:
        caller = await _within_timeout(authenticate) or anonymous
    request.state.caller = caller  # for the audit log
    if required is None or (caller.role is not None and caller.role.includes(required)):
        return caller
    if caller.is_anonymous:
        raise KeyRequired(
            f"This request needs an API key with the role {required}. Send it in the header {KEY_HEADER}."
        )
    raise RoleRequired(
        f"{caller.name} has the role {caller.role}, and this request needs {required}. Ask an admin for such a key."
    )


_open_route_threads: RunVar[CapacityLimiter] = RunVar("open_route_threads")


async def _within_timeout(authenticate: Callable[[], Caller]) -> Caller | None:
    """The caller, found in a thread that no other request uses; None if the key is not accepted in time. A health check
    must answer while all threads are busy.
    """
    try:
        threads = _open_route_threads.get()
    except LookupError:
        _open_route_threads.set(threads := CapacityLimiter(OPEN_ROUTE_THREADS))
    with move_on_after(OPEN_ROUTE_TIMEOUT), suppress(CatalogError):
        return await to_thread.run_sync(authenticate, limiter=threads, abandon_on_cancel=True)
    return None


CallerDep = Annotated[Caller, Depends(_caller)]
authorized = Depends(_caller)


async def _viewer(caller: CallerDep) -> Viewer:
    return caller.viewer


ViewerDep = Annotated[Viewer, Depends(_viewer)]


async def _quota(settings: SettingsDep, caller: CallerDep) -> Quota:
    assert caller.viewer.submitter is not None  # only routes for submitters have a quota
    limit = settings.max_active_jobs if caller.max_active_jobs is None else caller.max_active_jobs
    archives = ArchiveLimits(settings.archive_bytes_per_key, settings.archive_bytes)
    return Quota(caller.viewer.submitter, limit, settings.max_results, archives)


QuotaDep = Annotated[Quota, Depends(_quota)]


async def _sealed_token(
    request: Request, quota: QuotaDep, token: Annotated[str | None, Depends(_token)]
) -> bytes | None:
    """Raises `InvalidHubToken` and `HubTokensDisabled`."""
    if not token:
        return None
    box: TokenBox = request.app.state.tokens
    return box.seal(parse_token(token), quota.submitter)


TokenDep = Annotated[bytes | None, Depends(_sealed_token)]
