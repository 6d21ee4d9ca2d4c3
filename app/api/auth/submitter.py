"""Who submits: the quota that counts a request's jobs, and the token of the Hub that comes with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from app.api.settings import SettingsDep
from catalog.auth.hub_tokens import TokenBox, read_token
from catalog.auth.viewer import check_key
from catalog.errors import KeyRequired
from catalog.jobs.quotas import ANONYMOUS, Quota

KEY_HEADER = "X-API-Key"
TOKEN_HEADER = "X-Hub-Token"
key_header = APIKeyHeader(
    name=KEY_HEADER,
    scheme_name="SubmitterKey",
    auto_error=False,
    description="Whose quota of active jobs counts it, and to whom what is private is shown. A secret of yours of 20 "
    "characters or more.",
)
_token = APIKeyHeader(
    name=TOKEN_HEADER,
    scheme_name="HubToken",
    auto_error=False,
    description="A token of the Hub that may read the repo: for gated and private ones. Needs `X-API-Key`.",
)


async def _key(given: Annotated[str | None, Depends(key_header)]) -> str | None:
    """Raises `WeakKey`, also where the key would only count jobs: whoever sends one may come to keep things by it."""
    return check_key(given) if given else None


KeyDep = Annotated[str | None, Depends(_key)]


async def _quota(settings: SettingsDep, key: KeyDep) -> Quota:
    return Quota.of_key(key, settings.max_active_jobs)


QuotaDep = Annotated[Quota, Depends(_quota)]


async def _sealed_token(
    request: Request, quota: QuotaDep, token: Annotated[str | None, Depends(_token)]
) -> bytes | None:
    """Raises `KeyRequired`, `TokenMalformed`, `TokensOff`."""
    if not token:
        return None
    if quota.submitter == ANONYMOUS:
        raise KeyRequired(
            f"A token needs a key of yours in the header {KEY_HEADER}: what is read with it is shown to that key alone."
        )
    box: TokenBox = request.app.state.tokens
    return box.seal(read_token(token), quota.submitter)


TokenDep = Annotated[bytes | None, Depends(_sealed_token)]
