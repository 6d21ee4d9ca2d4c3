"""Access control of the admin routes."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from app.api.settings import SettingsDep
from catalog.errors import AdminKeyRequired, AdminOnly
from catalog.settings import Settings

KEY_HEADER = "X-Admin-Key"
key_header = APIKeyHeader(name=KEY_HEADER, auto_error=False, description="The value of `ADMIN_API_KEY`, if it is set.")
# behind a proxy on this machine, every request seems to come from this machine
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def require_admin(request: Request, settings: SettingsDep, key: Annotated[str | None, Depends(key_header)]) -> None:
    """Raises `AdminKeyRequired` if the key is missing or wrong. If no key is configured, raises `AdminOnly` for
    requests from other machines.
    """
    if settings.admin_api_key is not None:
        if not is_admin_key(settings, key):
            raise AdminKeyRequired(f"Send the admin key (the API's ADMIN_API_KEY) in the header {KEY_HEADER}.")
    elif not _is_local(request):
        raise AdminOnly(
            "No admin key is configured, so only requests from the API's own machine are allowed. Set ADMIN_API_KEY."
        )


def is_admin_key(settings: Settings, key: str | None) -> bool:
    """Whether `key` is the configured `ADMIN_API_KEY`. Compares in constant time."""
    expected = settings.admin_api_key.get_secret_value() if settings.admin_api_key is not None else ""
    return bool(expected) and hmac.compare_digest(expected.encode(), (key or "").encode())


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


admin = Depends(require_admin)
ADMIN_ERRORS = (AdminOnly, AdminKeyRequired)  # raised by `admin`
