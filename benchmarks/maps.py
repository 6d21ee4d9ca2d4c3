"""Measure a map of many models: clustering, building, requesting and updating it.

    python -m benchmarks.maps --json

The catalog contains generated vectors (`benchmarks/pool_like.py`) on a real Postgres. Clusters and map are computed by
the same subprocesses that workers start, and a separate API process answers over HTTP on loopback.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from typing import Annotated, Any

import numpy as np
import typer
from sqlalchemy import text

from app.deployment.processes import api, in_this_environment
from benchmarks.filling import SPACE, fill
from benchmarks.index.catalogs import SPACE_ID, Catalog, open_catalog
from benchmarks.index.data import Data
from benchmarks.index.measuring import Times
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.maps import repository as maps

REQUESTS = 50
PREPARE_SECONDS = 10.0  # in which a new API process prepares the map
ARRIVALS = 50  # inserted and awaited one at a time
NEW_SHARE = 0.02  # share of models that arrive before the map is rebuilt


def main(
    n: Annotated[int, typer.Option(help="Models.")] = 100_000,
    d: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 4_096,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure everything from the vectors in Postgres to a response."""
    report: dict[str, Any] = {"n": n, "d": d}
    with open_catalog(Data(n, d, held_out=ARRIVALS + round(NEW_SHARE * n))) as catalog:
        set_realistic_names(catalog)
        report["index"] = catalog.build()
        request_cluster_run(catalog)
        report["clusters"] = run_maintenance(catalog, "clusters")
        report["build"] = run_maintenance(catalog, "map") | distortion(catalog)
        report["responses"] = measure_responses(catalog)
        report["rebuild"] = measure_rebuild(catalog)
    typer.echo(json.dumps(report) if as_json else json.dumps(report, indent=2))


# one of a thousand owners, four words and six random letters: as long and as hard to compress as real repo ids
_NAMES = text("""
    UPDATE models SET repo_id = owner || '/'
        || (ARRAY['Llama-3.1-8B', 'Qwen2.5-7B', 'gemma-2-9b', 'SmolLM2-135M', 'Mistral-7B'])[1 + abs(hashint8(id)) % 5]
        || (ARRAY['-lora', '-qlora', '-sft', '-dpo', '-instruct', '-adapter'])[1 + abs(hashint8(id + 1)) % 6]
        || (ARRAY['-math', '-code', '-legal', '-medical', '-chat', '-sql', '-summary', '-roleplay', '-finance'])
            [1 + abs(hashint8(id + 2)) % 9]
        || '-' || substr(md5(id::text), 1, 6)
""")


def set_realistic_names(catalog: Catalog) -> None:
    with catalog.database.transaction() as session:
        session.execute(_NAMES)


def request_cluster_run(catalog: Catalog) -> None:
    default = Parameters()
    with catalog.database.transaction() as session:
        cluster_runs.create(
            session, SPACE_ID, algorithm=default.algorithm, parameters=default.as_dict(), requested_by="benchmark"
        )


def run_maintenance(catalog: Catalog, name: str) -> dict[str, Any]:
    """Run a subprocess as workers start it; returns its duration and its peak resident memory."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "workers.maintenance", name, str(SPACE_ID)], env=catalog.env)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"workers.maintenance {name} failed")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(used.ru_maxrss / 1024)}


def distortion(catalog: Catalog) -> dict[str, Any]:
    with catalog.database.transaction() as session:
        row = maps.find_newest(session, SPACE_ID)
    assert row is not None
    return {"mean_distortion": round(row.mean_distortion or 0, 4), "parameters": row.parameters}


def measure_responses(catalog: Catalog) -> dict[str, Any]:
    """Milliseconds of `GET /v1/map`, first and unchanged, and seconds until an arrival is on the map.

    The API process has time to prepare the map before the first request.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = in_this_environment((*api("127.0.0.1", port), "--log-level", "warning"))
    process = subprocess.Popen(argv, env={**catalog.env, "DELTADEX_RATE_LIMIT": "0"})
    try:
        wait_until_ready(port)
        time.sleep(PREPARE_SECONDS)
        first, unchanged, not_modified, delays = Times(), Times(), Times(), []
        body, tag = first.measure(lambda: get_map(port))
        for _ in range(REQUESTS):
            unchanged.measure(lambda: get_map(port))
            not_modified.measure(lambda: get_map(port, tag))
        changing = Times()
        for number, vector in enumerate(catalog.data.queries[:ARRIVALS]):
            fill(catalog.database, 1, catalog.data.d, [vector[None]], SPACE, prefix=f"late-{number}")
            committed = time.monotonic()
            while True:
                packed, _ = changing.measure(lambda: get_map(port))
                if len(json.loads(gzip.decompress(packed))["arrivals"]["repo_ids"]) > number:
                    break
            delays.append(time.monotonic() - committed)
    finally:
        process.terminate()
        process.wait()
    return {
        "gzipped_bytes": len(body),
        "plain_bytes": len(gzip.decompress(body)),
        "first_ms": first.ms(0.5),
        "unchanged": unchanged.summary(),
        "not_modified": not_modified.summary(),
        "while_models_arrive": changing.summary(),
        "arrival_to_answer_s": {
            "p50": round(float(np.median(delays)), 3),
            "max": round(max(delays), 3),
        },
    }


def measure_rebuild(catalog: Catalog) -> dict[str, Any]:
    """Rebuild the map after some arrivals; measures how far the existing points moved, in map widths."""
    arrivals = catalog.data.queries[ARRIVALS:]
    fill(catalog.database, len(arrivals), catalog.data.d, [arrivals], SPACE, prefix="more")
    with catalog.database.transaction() as session:
        before = maps.decode(maps.find_newest(session, SPACE_ID))  # type: ignore[arg-type]
    cost = run_maintenance(catalog, "map")
    with catalog.database.transaction() as session:
        after = maps.decode(maps.find_newest(session, SPACE_ID))  # type: ignore[arg-type]
    _, rows_before, rows_after = np.intersect1d(
        before.model_ids, after.model_ids, assume_unique=True, return_indices=True
    )
    width = float(np.ptp(before.coordinates, axis=0).max())
    moved = np.linalg.norm(before.coordinates[rows_before] - after.coordinates[rows_after], axis=1) / width
    return cost | {
        "arrived": len(after.model_ids) - len(before.model_ids),
        "moved_of_width": {"p50": round(float(np.median(moved)), 4), "p99": round(float(np.quantile(moved, 0.99)), 4)},
    }


def get_map(port: int, tag: str | None = None) -> tuple[bytes, str]:
    """The compressed body and its ETag, over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Accept-Encoding": "gzip"} | ({"If-None-Match": tag} if tag else {})
    connection.request("GET", "/v1/map", headers=headers)
    response = connection.getresponse()
    if response.status not in (200, 304):
        raise RuntimeError(response.read().decode())
    body, etag = response.read(), response.getheader("ETag") or ""
    connection.close()
    return body, etag


def wait_until_ready(port: int) -> None:
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)


if __name__ == "__main__":
    typer.run(main)
