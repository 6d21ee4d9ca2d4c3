"""The HTTP client of the API that the command line uses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Self

import httpx

from catalog.errors import CatalogError, NotRunning, RateLimited, TooManyAtOnce

API_KEY_HEADER = "X-API-Key"
TOKEN_HEADER = "X-Hub-Token"
TIMEOUT = 30.0  # seconds without a byte
POLL_INTERVAL = 0.25  # seconds
RECONNECT_INTERVAL = 1.0  # seconds
MAX_RETRY_AFTER = 60.0  # seconds that a request waits after it exceeded the rate limit
FINISHED = ("done", "failed", "cancelled")


class ApiProblem(CatalogError):
    """An error response of the API, with the code and status of its problem document."""

    def __init__(self, problem: dict[str, Any], retry_after: float | None = None) -> None:
        super().__init__(problem.get("detail", "The API gave no reason."))
        self.code = problem.get("code", CatalogError.code)
        self.status = problem.get("status", CatalogError.status)
        if "position" in problem:
            self.span = (problem["position"], problem["length"])
        self.retry_after = retry_after  # seconds


class Client:
    """Calls the API at `url` with an API key, if one is given. Methods return the decoded JSON, and raise `ApiProblem`
    and `NotRunning`. They wait if the rate limit is exceeded.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, headers={API_KEY_HEADER: key} if key else None, timeout=TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: object) -> dict[str, Any]:
        query = {name: value for name, value in params.items() if value is not None}
        return self._call("GET", path, params=query)

    def download(self, path: str, file: BinaryIO, **params: str | None) -> None:
        """Download a path to a file. Raises `ApiProblem` if the download is incomplete, and `NotRunning`."""
        query = httpx.QueryParams({name: value for name, value in params.items() if value is not None})
        try:
            with self._http.stream("GET", path, params=query) as response:
                if response.is_error:
                    response.read()
                    raise ApiProblem(self._decoded(response))
                for data in response.iter_bytes():
                    file.write(data)
        except httpx.RemoteProtocolError as error:  # fewer bytes than Content-Length
            raise ApiProblem({"detail": "The download was interrupted. Try again."}) from error
        except httpx.TransportError as error:
            raise self._not_running() from error

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the data of server-sent events, reconnecting with `Last-Event-ID`. Never ends by itself."""
        last_id: str | None = None
        while True:
            try:
                headers = {"Last-Event-ID": last_id} if last_id else None
                with self._http.stream("GET", path, headers=headers) as response:
                    if response.is_error:
                        response.read()
                        raise ApiProblem(self._decoded(response))
                    for line in response.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            last_id = value
                        elif name == "data":
                            yield json.loads(value)
            except httpx.TransportError as error:
                if last_id is None:
                    raise self._not_running() from error
            time.sleep(RECONNECT_INTERVAL)

    def post(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None, *, patient: bool = False
    ) -> dict[str, Any]:
        """`patient`: wait for the answer as long as it takes."""
        return self._send("POST", path, body, headers, **_timeout(patient))

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("PUT", path, body)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("PATCH", path, body)

    def _send(
        self, method: str, path: str, body: dict[str, Any], headers: dict[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        members = {name: value for name, value in body.items() if value is not None}
        text = json.dumps(members)  # NaN and infinities are sent too: the API rejects them with an explanation
        headers = {"content-type": "application/json", **(headers or {})}
        return self._call(method, path, content=text, headers=headers, **options)

    def delete(self, path: str, *, patient: bool = False, **params: object) -> dict[str, Any]:
        """`patient`: wait for the answer as long as it takes."""
        query = {name: value for name, value in params.items() if value is not None}
        return self._call("DELETE", path, params=query, **_timeout(patient))

    def readiness(self) -> dict[str, Any]:
        """The checks of `/readyz`, even if it answers 503."""
        return self._decoded(self._request("GET", "/readyz"))

    def wait_for(self, jobs: Iterable[int], on_poll: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """Poll jobs until all of them have ended, calling `on_poll` with each response. Returns the jobs in order."""
        latest: dict[int, dict[str, Any] | None] = dict.fromkeys(jobs)
        while True:
            unfinished = [job_id for job_id, job in latest.items() if job is None or job["state"] not in FINISHED]
            if not unfinished:
                return [job for job in latest.values() if job]
            for job_id in unfinished:
                latest[job_id] = job = self.get(f"/v1/jobs/{job_id}")
                on_poll(job)
            time.sleep(POLL_INTERVAL)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        while True:
            response = self._request(method, path, **options)
            content = self._decoded(response)
            if not response.is_error:
                return content
            header = response.headers.get("Retry-After", "")
            retry_after = float(header) if header.isdigit() else None
            if content.get("code") not in (RateLimited.code, TooManyAtOnce.code) or retry_after is None:
                raise ApiProblem(content, retry_after)
            time.sleep(min(retry_after, MAX_RETRY_AFTER))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._not_running() from error

    def _not_running(self) -> NotRunning:
        return NotRunning(f"No API answers at {self.url}. Start it with `deltadex up`, or pass --api.")

    def _decoded(self, response: httpx.Response) -> dict[str, Any]:
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ApiProblem({"detail": f"{self.url} answered {response.status_code} without a JSON object."})
        return content


def _timeout(patient: bool) -> dict[str, Any]:
    """The options of a request that may take minutes, or of an ordinary one."""
    return {"timeout": httpx.Timeout(TIMEOUT, read=None)} if patient else {}
