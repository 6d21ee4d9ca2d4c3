"""Checks of `Host` and `Origin`, so that pages of other sites cannot use a browser to reach the API.

A page that points its own name at this machine (DNS rebinding) sends that name in `Host`; an address cannot be pointed
elsewhere, so addresses are accepted. A page of another site sends its `Origin`, or `Sec-Fetch-Site: cross-site`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import render_error
from catalog.errors import CatalogError, CrossSite, HostNotAllowed

ANY = "*"


class OriginMiddleware:
    """Refuses requests for other names than `localhost`, addresses and the `allowed` ones, and those of other sites."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = {name.lower() for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._find_error(Headers(scope=scope), scope["method"])) is not None:
            await render_error(Request(scope), error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _find_error(self, headers: Headers, method: str) -> CatalogError | None:
        host = headers.get("host", "")
        if not self._is_allowed(_hostname(f"//{host}")):
            return HostNotAllowed(
                f"This API does not answer for the host {host[:100]!r}. Use an IP address, or add the name to "
                "DELTADEX_ALLOWED_HOSTS."
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            if not self._is_listed(_hostname(origin)):
                return CrossSite(f"Requests of pages from {origin[:100]} are refused. Call the API from its own pages.")
        elif headers.get("sec-fetch-site") == "cross-site" and (
            headers.get("sec-fetch-mode") != "navigate" or method != "GET"
        ):
            return CrossSite("Requests of pages of other sites are refused. Call the API from its own pages.")
        return None

    def _is_allowed(self, hostname: str) -> bool:
        return self._is_listed(hostname) or hostname == "localhost" or _is_address(hostname)

    def _is_listed(self, hostname: str) -> bool:
        return ANY in self._allowed or hostname in self._allowed


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # of brackets without an address
        return ""


def _is_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True
