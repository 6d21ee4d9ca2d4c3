"""The caller of a request: its API key, what it may do, and what it can see."""

from __future__ import annotations

from typing import Annotated

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
    everybody, a key that is not accepted counts as none.
    """
    required = required_role(request.method, request.scope["route"].path)
    anonymous = Caller("anonymous", Role.READER if settings.anonymous_reading else None)
    key = key or (bearer.credentials if bearer else None)
    if not key:
        caller = anonymous
    else:
        database = request.app.state.services.database
        try:
            caller = await run_in_threadpool(keys.authenticate, database, key, settings.admin_api_key)
        except CatalogError:
            if required is not None:
                raise
            caller = anonymous
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
