"""Check the API with requests that schemathesis makes from its OpenAPI document.

    python -m benchmarks.fuzz [--requests N] [--seed N] [--json]

The requests go over HTTP to an API process with a small catalog on a real Postgres and a real Valkey, as an admin, a
submitter, a reader, without a key and with an unknown one. A third are schemathesis' cases for the boundaries of each
parameter, a third are drawn from the schemas, and a third break them. Most of the drawn ones name what exists. The same
seed draws the same requests; the `digest` of all that were sent also depends on the cursors and keys that the API made.

All checks of schemathesis apply but `positive_data_acceptance`: a request that is as its schema says may name a model
that does not exist, or state two fields that exclude each other. `unsupported_method` does not apply to
`POST /v1/merges/plan`, because `GET` on that path asks for the merge with the id `plan`. Added are the checks that the
code of an error is among those that the document lists for the route and the status, and that 503 says when to retry.
`ok` means that no check failed, and that the memory of the API process grew by at most `MAX_GROWTH` after the first
`WARM_UP` of the requests. Rate limits are off.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from itertools import count, islice
from pathlib import Path
from typing import Any

import httpx
import psutil
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, Response
from schemathesis.checks import CHECKS, CheckContext, CheckFunction, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import RANDOM, GenerationMode
from schemathesis.schemas import APIOperation, BaseSchema

from app.api.problems import MEDIA_TYPE
from app.deployment import processes
from app.deployment.embedded import EmbeddedServers
from benchmarks import fuzz_catalog
from catalog.database import Database
from tests.support.keys import ADMIN_KEY, AS_ADMIN
from tests.support.ports import free_port

ROUNDS = 3  # in which the catalog is filled again, and each operation gets cases of every kind
KNOWN = 0.7  # of the valid requests name what exists
WARM_UP = 0.2  # of all requests
MAX_GROWTH = 0.1  # of the memory after the warm-up
TIMEOUT = 10  # seconds for a response
STREAM_TIMEOUT = 1
REFUSALS = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, 503]  # of a request that breaks its schema
CONFIG = {
    "max-stream-events": 1,  # streams of events do not end
    "checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}},  # schemathesis' own list has no 413
}
EXCLUDED_CHECKS = ("positive_data_acceptance",)
INVALID_HTTP = b"Invalid HTTP request received."  # of uvicorn, to an address of more than 64 KiB: no API sees it
MERGE_PLAN = "POST /v1/merges/plan"
KEY_HEADERS = ("X-API-Key", "Authorization")
CALLER_WEIGHTS = (6, 3, 2, 2, 1)
SETTINGS = {
    "ADMIN_API_KEY": ADMIN_KEY,
    "DELTADEX_ANONYMOUS_READING": "false",
    "DELTADEX_RATE_LIMIT": "0",
    "DELTADEX_WEBHOOK_SECRET": "the secret of the webhook",
    "DELTADEX_FEED_INTERVAL": "0.1",
}


class Requests:
    """Draws requests for all operations of a schema, each with its caller."""

    def __init__(self, schema: BaseSchema, count: int, seed: int) -> None:
        self.operations: list[APIOperation] = [result.ok() for result in schema.get_all_operations()]
        self.values: Mapping[str, list[Any]] = {}
        self._seed = seed
        self._random = random.Random(seed)
        self._batch = max(2, count // (3 * ROUNDS * len(self.operations)))
        self._boundaries = {operation.label: self._boundary_cases(schema, operation) for operation in self.operations}

    def round(self, number: int) -> Iterator[tuple[str, Case]]:
        """The name of a caller and a request, for some requests to each operation, in random order."""
        for operation in self._random.sample(self.operations, len(self.operations)):
            seed = f"{self._seed} {number} {operation.label}"
            cases = list(islice(self._boundaries[operation.label], self._batch))
            cases += [self._with_known_values(case) for case in self._draw(operation, GenerationMode.POSITIVE, seed)]
            cases += self._draw(operation, GenerationMode.NEGATIVE, seed)
            for case in cases:
                yield self._random.choices(list(fuzz_catalog.CALLERS), weights=CALLER_WEIGHTS)[0], case

    def _boundary_cases(self, schema: BaseSchema, operation: APIOperation) -> Iterator[Case]:
        seed_schemathesis(f"{self._seed} {operation.label}")
        cases = schema.iter_coverage_cases(
            operation,
            generation_modes=list(GenerationMode),
            generation_config=schema.config.generation_for(operation=operation),
        )
        return iter(self._random.sample(listed := list(cases), len(listed)))

    def _draw(self, operation: APIOperation, mode: GenerationMode, seed: str) -> list[Case]:
        cases: list[Case] = []
        seed_schemathesis(seed)

        @seeded(seed)
        @settings(
            max_examples=self._batch,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def draw(case: Case) -> None:
            cases.append(case)

        with suppress(Unsatisfiable):  # nothing to break in a request without parameters
            draw()
        return cases

    def _with_known_values(self, case: Case) -> Case:
        """The request with values that exist, in most cases: a drawn id is never that of a stored row."""
        if self._random.random() < KNOWN:
            for container in (case.path_parameters, case.query, case.body):
                if isinstance(container, dict):
                    known = {name: self._random.choice(self.values[name]) for name in container if name in self.values}
                    container.update(known)
        return case


def seed_schemathesis(seed: str) -> None:
    """Seed the two generators that it uses beside those of hypothesis."""
    random.seed(seed)
    RANDOM.seed(seed)


class Report:
    """What came of the requests of a run."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()  # by caller
        self.statuses: Counter[int] = Counter()
        self.codes: Counter[str] = Counter()  # of errors
        self.failures: Counter[str] = Counter()  # by check and route
        self.examples: dict[str, str] = {}  # the first of each failure
        self.digest = hashlib.sha256()  # of all requests

    def add(self, caller: str, case: Case, response: Response) -> None:
        self.requests[caller] += 1
        self.digest.update(f"{caller} {case.method} {case.formatted_path} {case.query} {case.body}".encode())
        self.statuses[response.status_code] += 1
        if response.headers["content-type"] == [MEDIA_TYPE]:
            self.codes[response.json()["code"]] += 1

    def add_failure(self, check: str, case: Case, message: str) -> None:
        name = f"{check}: {case.operation.label}"
        self.failures[name] += 1
        if self.examples.setdefault(name, message) is message:
            print(f"{name}\n{message}", file=sys.stderr, flush=True)


def documented_code(_: CheckContext, response: Response, case: Case) -> None:
    """Check that the code of an error is listed for the route and the status, and that 503 says when to retry."""
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        assert "retry-after" in response.headers, "503 without Retry-After"
    if response.headers["content-type"] == [MEDIA_TYPE] and response.request.method == case.operation.method.upper():
        documented = case.operation.definition.raw["responses"].get(str(response.status_code), {})
        code = response.json()["code"]
        assert f"`{code}`" in documented.get("description", ""), f"{response.status_code} {code} is not documented"


def checks() -> list[CheckFunction]:
    load_all_checks()
    return [check for check in CHECKS.get_all() if check.__name__ not in EXCLUDED_CHECKS] + [documented_code]


class Run:
    """Requests to an API process, whose memory is watched."""

    def __init__(self, url: str, api: psutil.Process, drawn: Requests, count: int) -> None:
        self.report = Report()
        self._url = url
        self._api = api
        self._drawn = drawn
        self._count = count
        self._checks = checks()
        self._session = requests.Session()

    def run(self, database: Database) -> dict[str, Any]:
        started = time.monotonic()
        warm_memory = 0
        for number, (caller, case) in enumerate(islice(self._rounds(database), self._count)):
            self._send(caller, case)
            if number == int(WARM_UP * self._count):
                warm_memory = self._api.memory_info().rss
        growth = self._api.memory_info().rss / warm_memory - 1
        checks = {"no failed checks": not self.report.failures, "memory flat": growth <= MAX_GROWTH}
        return {
            "requests": self.report.requests.total(),
            "seconds": round(time.monotonic() - started, 1),
            "digest": self.report.digest.hexdigest()[:16],
            "callers": dict(self.report.requests),
            "statuses": dict(sorted(self.report.statuses.items())),
            "codes": dict(sorted(self.report.codes.items())),
            "memory_mb": round(self._api.memory_info().rss / 2**20),
            "memory_growth": round(growth, 3),
            "failures": dict(self.report.failures.most_common()),
            "failed_checks": [name for name, passed in checks.items() if not passed],
            "ok": all(checks.values()),
        }

    def _rounds(self, database: Database) -> Iterator[tuple[str, Case]]:
        with httpx.Client(base_url=self._url, headers=AS_ADMIN, timeout=TIMEOUT) as http:
            for number in count():
                self._drawn.values = fuzz_catalog.fill(database, http)
                yield from self._drawn.round(number)

    def _send(self, caller: str, case: Case) -> None:
        headers = dict(fuzz_catalog.CALLERS[caller])
        for name in KEY_HEADERS if headers else ():
            case.headers.pop(name, None)  # a drawn key besides that of the caller
        # a stream of events ends with the timeout
        transport = {"timeout": STREAM_TIMEOUT if case.operation.path.endswith("/events") else TIMEOUT}
        try:
            response = case.call(self._url, self._session, headers, **transport)
        except requests.RequestException as error:
            self.report.add_failure(type(error).__name__, case, f"{error}\n{case.as_curl_command()}")
            return
        self.report.add(caller, case, response)
        if response.content == INVALID_HTTP:
            return
        try:
            transport |= {"session": self._session, "headers": headers}
            checks = self._checks
            if case.operation.label == MERGE_PLAN:
                checks = [check for check in checks if check.__name__ != "unsupported_method"]
            case.validate_response(response, checks=checks, headers=headers, transport_kwargs=transport)
        except FailureGroup as group:
            for failure in group.exceptions:
                self.report.add_failure(type(failure).__name__, case, str(group))


def run(requests_count: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder) / "servers") as servers:
        os.environ.update(
            SETTINGS, DATABASE_URL=servers.database_url, REDIS_URL=servers.redis_url, DELTADEX_DATA_DIR=folder
        )
        processes.migrate(servers.database_url)
        database = Database(servers.database_url)
        fuzz_catalog.create(database, Path(folder))
        with api_process(Path(folder) / "api.log") as (url, api):
            config = SchemathesisConfig.from_dict(CONFIG)
            schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=AS_ADMIN, config=config)
            drawn = Requests(schema, requests_count, seed)
            result = Run(url, api, drawn, requests_count).run(database)
        database.close()
    return {"seed": seed, **result}


@contextmanager
def api_process(log: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    command = processes.in_this_environment(processes.api("127.0.0.1", port))
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _is_ready(url):
            assert process.poll() is None, f"the API did not start: {log.read_text()}"
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    report = run(options.requests, options.seed)
    print(json.dumps(report) if options.json else "\n".join(f"{name:16} {value}" for name, value in report.items()))
    if not report["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
