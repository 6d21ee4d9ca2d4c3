"""Who submits: the quota that counts a request's jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from catalog.quotas import Quota

KEY_HEADER = "X-API-Key"
_key = APIKeyHeader(
    name=KEY_HEADER, scheme_name="SubmitterKey", auto_error=False, description="Whose quota of active jobs counts it."
)


async def _quota(request: Request, key: Annotated[str | None, Depends(_key)]) -> Quota:
    return Quota.of_key(key, request.app.state.settings.max_active_jobs)


QuotaDep = Annotated[Quota, Depends(_quota)]
