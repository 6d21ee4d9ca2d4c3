"""How the Hub client's requests go out, and what its errors mean here.

The library retries a failed request five times and sleeps for as long as the server asks, in the call: a worker
would stand still for minutes. Here a request is made once and a transient failure is raised as such; the job waits,
not the worker.
"""

from __future__ import annotations

import email.utils
import errno
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from catalog.errors import (
    CatalogError,
    DiskFull,
    HubRateLimited,
    HubUnavailable,
    RepoGated,
    RepoNotFound,
    RevisionNotFound,
)
from workers.hub.rate_limits import HubLimits
from workers.process import cancellation

COOL_OFF = 5.0  # seconds, where a 429 does not say how long


class OneTryClient(httpx2.Client):
    """The library's session: `timeout` seconds without a byte end a request, transient failures are not retried, and
    every request, of a redirect too, waits for its turn among all workers.

    Every job's requests go through it, so it remembers nothing between them: no token, which each request brings along
    (and a redirect to another host does not), and no cookie. Proxies and certificates are httpx's own business.

    Raises `HubRateLimited` and `HubUnavailable`.
    """

    def __init__(self, timeout: float, limits: HubLimits | None = None) -> None:
        self._limit = timeout
        self._limits = limits or HubLimits()
        super().__init__(
            follow_redirects=True,
            cookies=_no_cookies(),
            event_hooks={"request": [self._wait], "response": [self._heed]},
        )

    def _wait(self, _request: httpx2.Request) -> None:
        self._limits.wait_turn()

    def _heed(self, response: httpx2.Response) -> None:
        """Slow everybody down when the Hub asks for it, or says that nothing is left of its limit."""
        wait = retry_after(response.headers)
        if response.status_code == 429:
            self._limits.hold(COOL_OFF if wait is None else wait)
        elif wait:
            self._limits.hold(wait)

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        cancellation.check()
        request.extensions["timeout"] = httpx2.Timeout(self._limit).as_dict()  # the library's is 10 s, or none
        try:
            try:
                response = super().send(request, **options)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                # a kept connection that the server had closed in the meantime; a new one tells
                response = super().send(request, **options)
        except httpx2.TransportError as error:
            raise HubUnavailable(f"No answer from {request.url.host}: {_reason(error)}.") from error
        if response.status_code == 429:
            response.close()
            raise HubRateLimited(f"{request.url.host} asks to slow down.", retry_after(response.headers))
        if response.status_code >= 500:
            response.close()
            raise HubUnavailable(
                f"{request.url.host} answered with status {response.status_code}.", retry_after(response.headers)
            )
        response.stream = _Heeding(response.stream)
        return response


def _no_cookies() -> CookieJar:
    """What the Hub tells one token's owner is nothing to send with the next."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


class _Heeding(httpx2.SyncByteStream):
    """A body that ends with `Stopped` at the next bytes once its job is given up: the library asks for ten megabytes at
    a time, which may take minutes.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            cancellation.check()
            yield piece

    def close(self) -> None:
        self._stream.close()


_installed: tuple[float, HubLimits] | None = None


def one_try(timeout: float, limits: HubLimits) -> None:
    """Have the library use `OneTryClient`. Once: a session that is replaced is closed under whoever uses it."""
    global _installed  # noqa: PLW0603
    if _installed != (timeout, limits):
        set_client_factory(partial(OneTryClient, timeout, limits))
        _installed = (timeout, limits)


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into the typed tree. A full disk is `DiskFull`; other local errors pass."""
    try:
        yield
    except CatalogError:
        raise
    except LocalEntryNotFoundError as error:  # the library's name for "the request failed and nothing is cached"
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise _translated(cause, repo_id, revision) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk is full; {repo_id} cannot be downloaded.") from error
        if error.errno is not None:
            raise
        raise _translated(error, repo_id, revision) from error
    except (httpx2.HTTPError, ValueError, TypeError, KeyError) as error:
        raise _translated(error, repo_id, revision) from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `Retry-After` (seconds or a date, RFC 9110 10.2.3) or the Hub's `RateLimit` header."""
    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        limits = parse_ratelimit_headers(headers)
        return float(limits.reset_in_seconds) if limits and limits.remaining == 0 else None


def _translated(error: Exception, repo_id: str, revision: str | None) -> CatalogError:
    for kind, meaning in _MEANINGS.items():
        if isinstance(error, kind):
            return meaning(repo_id, revision)
    if isinstance(error, HfHubHTTPError):
        return _by_status(error.response.status_code, repo_id)
    return HubUnavailable(f"What the Hub sent for {repo_id} cannot be used: {_reason(error)}.")


def _by_status(status: int, repo_id: str) -> CatalogError:
    if status in (401, 403):
        return RepoGated(
            f"The Hub refuses access to {repo_id}: submit it with a token that may read it, or set HF_TOKEN to one."
        )
    if status in (404, 410):
        return _missing(repo_id, None)
    return HubUnavailable(f"The Hub answered with status {status} for {repo_id}.")


def _gated(repo_id: str, _revision: str | None) -> CatalogError:
    return RepoGated(
        f"{repo_id} is gated: accept its terms on the Hub, and submit it with a token of the account that did, or set "
        "HF_TOKEN to one."
    )


def _missing(repo_id: str, _revision: str | None) -> CatalogError:
    return RepoNotFound(f"{repo_id} does not exist on the Hub, or is private; a private one needs a token.")


def _disabled(repo_id: str, _revision: str | None) -> CatalogError:
    return RepoNotFound(f"{repo_id} has been disabled on the Hub.")


def _malformed(repo_id: str, _revision: str | None) -> CatalogError:
    return RepoNotFound(f"{repo_id!r} is not the id of a repo.")


def _no_revision(repo_id: str, revision: str | None) -> CatalogError:
    return RevisionNotFound(f"{repo_id} has no revision {revision!r}.")


def _entry_gone(repo_id: str, _revision: str | None) -> CatalogError:
    return HubUnavailable(f"The Hub lists a file of {repo_id} that it does not serve.")


_MEANINGS: dict[type[Exception], Callable[[str, str | None], CatalogError]] = {
    GatedRepoError: _gated,  # before its base class, RepositoryNotFoundError
    RepositoryNotFoundError: _missing,
    RevisionNotFoundError: _no_revision,
    RemoteEntryNotFoundError: _entry_gone,
    DisabledRepoError: _disabled,
    HFValidationError: _malformed,
}


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.LocalProtocolError):
        return "a header cannot be sent as it is"  # the message quotes the header, which may be a token
    return f"{type(error).__name__} {error}".strip().rstrip(".")
