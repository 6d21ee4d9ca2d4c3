"""The command line's view of the API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Self

import httpx

from catalog.errors import CatalogError, NotRunning

ADMIN_KEY_HEADER = "X-Admin-Key"
API_KEY_HEADER = "X-API-Key"
TOKEN_HEADER = "X-Hub-Token"
POLL_INTERVAL = 0.25  # seconds
RECONNECT_INTERVAL = 1.0  # seconds
OVER = ("done", "failed", "cancelled")


class ApiProblem(CatalogError):
    """A problem document that the API answered with; it keeps the API's code."""

    def __init__(self, problem: dict[str, Any], retry_after: float | None = None) -> None:
        super().__init__(problem.get("detail", "The API gave no reason."))
        self.code = problem.get("code", CatalogError.code)
        self.status = problem.get("status", CatalogError.status)
        if "position" in problem:
            self.place = (problem["position"], problem["length"])
        self.retry_after = retry_after  # seconds


class Client:
    """Calls the API at `url`. Every method returns the decoded JSON and raises `ApiProblem` or `NotRunning`."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, *, headers: dict[str, str] | None = None, **params: object) -> dict[str, Any]:
        query = {name: value for name, value in params.items() if value is not None}
        return self._call("GET", path, params=query, headers=headers)

    def download(self, path: str, file: BinaryIO, **params: str | None) -> None:
        """Write what is at a path to a file, all of it or an error."""
        query = httpx.QueryParams({name: value for name, value in params.items() if value is not None})
        try:
            with self._http.stream("GET", path, params=query) as response:
                if response.is_error:
                    response.read()
                    raise ApiProblem(self._decoded(response))
                for data in response.iter_bytes():
                    file.write(data)
        except httpx.RemoteProtocolError as error:  # fewer bytes than were announced
            raise ApiProblem({"detail": "The download was cut off: try again."}) from error
        except httpx.TransportError as error:
            raise self._nobody_there() from error

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """The data of server-sent events, without end: a connection that is over is made again where it ended."""
        last: str | None = None
        while True:
            try:
                with self._http.stream("GET", path, headers={"Last-Event-ID": last} if last else None) as response:
                    if response.is_error:
                        response.read()
                        raise ApiProblem(self._decoded(response))
                    for line in response.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            last = value
                        elif name == "data":
                            yield json.loads(value)
            except httpx.TransportError as error:
                if last is None:
                    raise self._nobody_there() from error
            time.sleep(RECONNECT_INTERVAL)

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        given = {name: value for name, value in body.items() if value is not None}
        text = json.dumps(given)  # also what JSON has no words for, such as NaN: the API says what is wrong with it
        return self._call("POST", path, content=text, headers={"content-type": "application/json", **(headers or {})})

    def delete(self, path: str) -> dict[str, Any]:
        return self._call("DELETE", path)

    def readiness(self) -> dict[str, Any]:
        """What `/readyz` says, also when something is missing."""
        return self._decoded(self._request("GET", "/readyz"))

    def wait_for(self, jobs: Iterable[int], on_change: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """Look at the jobs until each is over, telling `on_change` of every look; returns them in their order."""
        seen: dict[int, dict[str, Any] | None] = dict.fromkeys(jobs)
        while True:
            waiting = [number for number, job in seen.items() if job is None or job["state"] not in OVER]
            if not waiting:
                return [job for job in seen.values() if job]
            for number in waiting:
                seen[number] = job = self.get(f"/v1/jobs/{number}")
                on_change(job)
            time.sleep(POLL_INTERVAL)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = self._request(method, path, **options)
        content = self._decoded(response)
        if response.is_error:
            wait = response.headers.get("Retry-After", "")
            raise ApiProblem(content, float(wait) if wait.isdigit() else None)
        return content

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._nobody_there() from error

    def _nobody_there(self) -> NotRunning:
        return NotRunning(f"No API answers at {self.url}: start `deltadex up`, or give --api.")

    def _decoded(self, response: httpx.Response) -> dict[str, Any]:
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ApiProblem({"detail": f"{self.url} answered {response.status_code} and no JSON object."})
        return content
