"""The HTTP session of `huggingface_hub`, and the translation of its errors.

The library retries a failed request five times and sleeps within the call for as long as the server asks, which would
block a worker for minutes. This session makes a request once and raises transient failures, so that the job waits and
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
    GatedRepo,
    HubRateLimited,
    HubTokenInvalid,
    HubTokenRejected,
    HubUnavailable,
    RepoNotFound,
    RevisionNotFound,
)
from workers.hub.pace import Pace, PacedStream, expect_headers, limit_headers
from workers.hub.rate_limits import BUCKETS, HubLimits
from workers.hub.service_token import ServiceToken, rejects_token
from workers.process import cancellation

DEFAULT_PAUSE = 5.0  # seconds, after a 429 without a time to wait
TOKEN_PAUSE = 300.0  # seconds until a job that needs the service's token is tried again while the Hub rejects it
NO_ACCESS = (401, 403, 404)
READABLE_REPO = ("RevisionNotFound", "EntryNotFound")  # codes of a 404 for a part of a repo that can be read


class SingleAttemptClient(httpx2.Client):
    """The library's session. A request ends after `timeout` seconds without a byte, or if it is answered more slowly
    than `pace`. Transient failures are not retried, and every request, including each hop of a redirect, waits for its
    turn among all workers.

    The session serves the requests of all jobs, so it keeps no state between them: neither a token (each request has
    its own, and a redirect to another host drops it) nor cookies. Proxies and certificates are left to httpx. A request
    whose `service_token` the Hub rejects is sent once more without a token, so that public repos can be read.

    Raises `HubRateLimited` and `HubUnavailable`, and `HubTokenInvalid` for a repo that needs the rejected token.
    """

    def __init__(
        self,
        timeout: float,
        limits: HubLimits | None = None,
        service_token: ServiceToken | None = None,
        *,
        pace: Pace | None = None,
    ) -> None:
        self._request_timeout = timeout
        self._pace = pace or Pace()
        self._limits = limits or HubLimits()
        self._service_token = service_token or ServiceToken()
        super().__init__(
            follow_redirects=True,
            cookies=_no_cookies(),
            event_hooks={"request": [self._wait_turn], "response": [self._limit_body, self._pause_on_rate_limit]},
        )
        limit_headers(self)

    def _wait_turn(self, request: httpx2.Request) -> None:
        self._limits.wait_turn(self._bucket_of(request))
        expect_headers(self._pace.headers)

    def _limit_body(self, response: httpx2.Response) -> None:
        expect_headers(None)
        response.stream = PacedStream(response.stream, self._pace)

    def _pause_on_rate_limit(self, response: httpx2.Response) -> None:
        """Pause a bucket for all workers if the Hub asks for it or reports that the bucket is used up."""
        wait, refused = retry_after(response.headers), response.status_code == 429
        if refused and wait is None:
            wait = DEFAULT_PAUSE
        bucket, limits = self._bucket_of(response.request), parse_ratelimit_headers(response.headers)
        used_up = limits.resource_type if limits and bucket in BUCKETS and limits.resource_type in BUCKETS else bucket
        for paused in {used_up, bucket} if refused else {used_up}:
            if wait:
                self._limits.pause(paused, wait)

    def _bucket_of(self, request: httpx2.Request) -> str:
        return self._limits.bucket_of(request.url.netloc.decode("ascii"), request.url.path)

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        token = self._service_token
        if not token.is_sent_with(request):
            return self._send(request, **options)
        known_rejection = True
        if token.should_be_sent():
            response = self._send(request, **options)
            if response.status_code != 401 or not token.is_sent_with(response.request):
                token.record_acceptance()
                return response
            known_rejection = rejects_token(response)
            response.close()
        response = self._send(_without_token(request), **options)
        readable = response.status_code not in NO_ACCESS or response.headers.get("x-error-code") in READABLE_REPO
        if known_rejection or readable:
            token.record_rejection()
        if known_rejection and not readable:
            response.close()
            raise HubTokenInvalid("The Hub rejects HF_TOKEN.", TOKEN_PAUSE)
        return response

    def _send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        cancellation.raise_if_cancelled()
        request.extensions["timeout"] = httpx2.Timeout(
            self._request_timeout
        ).as_dict()  # the library uses 10 s, or none
        try:
            try:
                response = super().send(request, **options)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                # the server may have closed a kept-alive connection; try a new one once
                response = super().send(request, **options)
        except httpx2.TransportError as error:
            raise HubUnavailable(f"No answer from {request.url.host}: {_reason(error)}.") from error
        finally:
            expect_headers(None)
        if response.status_code == 429:
            response.close()
            raise HubRateLimited(f"{request.url.host} limits the rate of requests.", retry_after(response.headers))
        if response.status_code >= 500:
            response.close()
            raise HubUnavailable(
                f"{request.url.host} answered with status {response.status_code}.", retry_after(response.headers)
            )
        return response


def _without_token(request: httpx2.Request) -> httpx2.Request:
    headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() != "authorization"]
    return httpx2.Request(request.method, request.url, headers=headers, extensions=request.extensions)


def _no_cookies() -> CookieJar:
    """A cookie jar that stores nothing: cookies set for one token must not be sent with another."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


_installed: tuple[float, HubLimits, str | None] | None = None
_service_token = ServiceToken()


def install_client(timeout: float, limits: HubLimits, token: str | None = None) -> None:
    """Make the library use `SingleAttemptClient`, with `token` as the token of the service. The old session is closed,
    but only if a setting changed.
    """
    global _installed, _service_token  # noqa: PLW0603
    if _installed != (timeout, limits, token):
        _service_token = ServiceToken(token)
        set_client_factory(partial(SingleAttemptClient, timeout, limits, _service_token))
        _installed = (timeout, limits, token)


def is_service_token_rejected() -> bool:
    """Whether the Hub rejected the service's token at the last request of this process that had it."""
    return _service_token.rejected


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Translate errors of `huggingface_hub` into `CatalogError`s; of local errors, only a full disk (`DiskFull`)."""
    try:
        yield
    except HubTokenInvalid as error:
        raise HubTokenInvalid(
            f"{repo_id} cannot be read without a token, and the Hub rejects the service's own token, HF_TOKEN: it is "
            "wrong, expired or revoked. Set a valid one and restart the workers; until then, this waits.",
            error.retry_after,
        ) from error
    except CatalogError:
        raise
    except LocalEntryNotFoundError as error:  # raised for a failed request without a cached file
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise _translated(cause, repo_id, revision) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk is full: {repo_id} cannot be downloaded.") from error
        if error.errno is not None:
            raise
        raise _translated(error, repo_id, revision) from error
    except (httpx2.HTTPError, ValueError, TypeError, KeyError, RecursionError) as error:
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
    if isinstance(error, HfHubHTTPError) and rejects_token(error.response):
        return HubTokenRejected(
            f"The Hub rejects the token that was sent with the submission of {repo_id}: it is wrong, expired or "
            "revoked. Submit the model again with a valid token."
        )
    for kind, translate in _TRANSLATIONS.items():
        if isinstance(error, kind):
            return translate(repo_id, revision)
    if isinstance(error, HfHubHTTPError):
        return _by_status(error.response.status_code, repo_id)
    return HubUnavailable(f"The Hub's answer for {repo_id} cannot be used: {_reason(error)}.")


def _by_status(status: int, repo_id: str) -> CatalogError:
    if status in (401, 403):
        return GatedRepo(
            f"The Hub refuses access to {repo_id}: submit it with a token that may read it, or set HF_TOKEN to one."
        )
    if status in (404, 410):
        return _missing(repo_id, None)
    return HubUnavailable(f"The Hub answered with status {status} for {repo_id}.")


def _gated(repo_id: str, _revision: str | None) -> CatalogError:
    return GatedRepo(
        f"{repo_id} is gated: accept its terms on the Hub, and submit it with a token of that account, or set HF_TOKEN "
        "to one."
    )


def _missing(repo_id: str, _revision: str | None) -> CatalogError:
    return RepoNotFound(f"{repo_id} does not exist on the Hub, or is private; a private one needs a token.")


def _disabled(repo_id: str, _revision: str | None) -> CatalogError:
    return RepoNotFound(f"{repo_id} has been disabled on the Hub.")


def _malformed(repo_id: str, _revision: str | None) -> CatalogError:
    return RepoNotFound(f"{repo_id!r} is not the id of a repo.")


def _no_revision(repo_id: str, revision: str | None) -> CatalogError:
    return RevisionNotFound(f"{repo_id} has no revision {revision!r}.")


def _entry_missing(repo_id: str, _revision: str | None) -> CatalogError:
    return HubUnavailable(f"The Hub lists a file of {repo_id} that it does not serve.")


_TRANSLATIONS: dict[type[Exception], Callable[[str, str | None], CatalogError]] = {
    GatedRepoError: _gated,  # before its base class, RepositoryNotFoundError
    RepositoryNotFoundError: _missing,
    RevisionNotFoundError: _no_revision,
    RemoteEntryNotFoundError: _entry_missing,
    DisabledRepoError: _disabled,
    HFValidationError: _malformed,
}


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.LocalProtocolError):
        return "a header has invalid characters"  # the original message quotes the header, which may be a token
    return f"{type(error).__name__} {error}".strip().rstrip(".")
