"""The API key of a request, the quota that its jobs count toward, and its Hub token."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from app.api.settings import SettingsDep
from catalog.auth.hub_tokens import TokenBox, parse_token
from catalog.auth.viewer import check_key
from catalog.errors import ApiKeyRequired
from catalog.jobs.quotas import ANONYMOUS, Quota

KEY_HEADER = "X-API-Key"
TOKEN_HEADER = "X-Hub-Token"
key_header = APIKeyHeader(
    name=KEY_HEADER,
    scheme_name="SubmitterKey",
    auto_error=False,
    description="A secret of at least 20 characters that you choose. Active jobs are counted by key, and private "
    "models are visible only to keys with access.",
)
_token = APIKeyHeader(
    name=TOKEN_HEADER,
    scheme_name="HubToken",
    auto_error=False,
    description="A Hugging Face token with read access to the repo, if it is gated or private. Requires `X-API-Key`.",
)


async def _key(key: Annotated[str | None, Depends(key_header)]) -> str | None:
    """Raises `WeakKey`, also if the key is only used for the quota: users may later own private models with it."""
    return check_key(key) if key else None


KeyDep = Annotated[str | None, Depends(_key)]


async def _quota(settings: SettingsDep, key: KeyDep) -> Quota:
    return Quota.from_key(key, settings.max_active_jobs)


QuotaDep = Annotated[Quota, Depends(_quota)]


async def _sealed_token(
    request: Request, quota: QuotaDep, token: Annotated[str | None, Depends(_token)]
) -> bytes | None:
    """Raises `ApiKeyRequired`, `InvalidHubToken`, `HubTokensDisabled`."""
    if not token:
        return None
    if quota.submitter == ANONYMOUS:
        raise ApiKeyRequired(
            f"A Hub token requires an API key in the header {KEY_HEADER}. The model is visible only to that key."
        )
    box: TokenBox = request.app.state.tokens
    return box.seal(parse_token(token), quota.submitter)


TokenDep = Annotated[bytes | None, Depends(_sealed_token)]
