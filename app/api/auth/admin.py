"""Who may change how the catalog works."""

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
key_header = APIKeyHeader(name=KEY_HEADER, auto_error=False, description="`ADMIN_API_KEY`, where one is set.")
# a proxy on this machine makes every request look like one of this machine's own
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def require_admin(request: Request, settings: SettingsDep, key: Annotated[str | None, Depends(key_header)]) -> None:
    """Raises `AdminKeyRequired` for a key that is missing or wrong, and where none is set `AdminOnly` for whoever does
    not ask from this machine.
    """
    if settings.admin_api_key is not None:
        if not is_the_admins(settings, key):
            raise AdminKeyRequired(f"Send the admin key (ADMIN_API_KEY of the API) in the header {KEY_HEADER}.")
    elif not _from_this_machine(request):
        raise AdminOnly(
            "No admin key is set, so this answers on this machine only: ask from there, or set ADMIN_API_KEY."
        )


def is_the_admins(settings: Settings, key: str | None) -> bool:
    """Whether that is the key of `ADMIN_API_KEY`, where one is set; it takes as long for every key."""
    expected = settings.admin_api_key.get_secret_value() if settings.admin_api_key is not None else ""
    return bool(expected) and hmac.compare_digest(expected.encode(), (key or "").encode())


def _from_this_machine(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


admin = Depends(require_admin)
FOR_ADMINS = (AdminOnly, AdminKeyRequired)  # what `admin` raises
