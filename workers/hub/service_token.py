"""The service's own Hub token (`HF_TOKEN`), and whether the Hub accepts it.

The Hub answers every request that has an invalid or expired token with 401, also requests for public repos.
"""

from __future__ import annotations

import logging
import string
import threading
import time
from urllib.parse import quote

import httpx2

PROBE_INTERVAL = 60.0  # seconds after a rejection in which the token is not sent again

# In the messages of the Hub: "Invalid credentials in Authorization header", 'User Access Token "x" is expired',
# "Invalid username or password."
_MESSAGES = ("invalid credentials", "access token", "invalid token", "expired", "revoked", "invalid username")

log = logging.getLogger(__name__)


def sendable(token: str) -> str:
    """The token with characters that a header cannot have replaced: the Hub then rejects it like any invalid one."""
    return quote(token, safe=string.punctuation)


class ServiceToken:
    """The token of the service (None: it has none), and whether the Hub rejected it at the last request. Thread-safe.

    After a rejection, requests are sent without it for `PROBE_INTERVAL` seconds, and then one request tries it again.
    """

    def __init__(self, token: str | None = None) -> None:
        self._authorization = f"Bearer {token}" if token else None
        self._rejected = False
        self._next_probe = 0.0
        self._lock = threading.Lock()

    @property
    def rejected(self) -> bool:
        return self._rejected

    def is_sent_with(self, request: httpx2.Request) -> bool:
        return self._authorization is not None and request.headers.get("authorization") == self._authorization

    def should_be_sent(self) -> bool:
        """Whether the next request should have the token. During a rejection, only one request per interval should."""
        with self._lock:
            if not self._rejected:
                return True
            due = time.monotonic() >= self._next_probe
            if due:
                self._next_probe = time.monotonic() + PROBE_INTERVAL
            return due

    def record_rejection(self) -> None:
        with self._lock:
            if not self._rejected:
                log.error("hub_token_invalid: the Hub rejects HF_TOKEN; only public repos can be read")
            self._rejected, self._next_probe = True, time.monotonic() + PROBE_INTERVAL

    def record_acceptance(self) -> None:
        with self._lock:
            if self._rejected:
                log.warning("the Hub accepts HF_TOKEN again")
            self._rejected = False


def rejects_token(response: httpx2.Response) -> bool:
    """Whether a response says that the token of its request is invalid, and not that it may not read the repo.

    The Hub answers a valid token with 403 or 404. A mirror that uses 401 there names the reason in `X-Error-Code`.
    """
    if response.status_code != 401 or "authorization" not in response.request.headers:
        return False
    message = response.headers.get("x-error-message", "").lower()
    return "x-error-code" not in response.headers or any(text in message for text in _MESSAGES)
