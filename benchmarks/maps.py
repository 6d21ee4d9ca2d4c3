"""What a map of many models costs: to be drawn and clustered, to be asked for, and to be kept up with.

    python -m benchmarks.maps --json

A catalog of generated vectors (`benchmarks/pool_like.py`) on a real Postgres; clusters and map are made by the
processes that workers start, and one API process of its own answers over HTTP on loopback.
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
from benchmarks.index.catalogs import SPACE_ID, Catalog, catalog_of
from benchmarks.index.data import Data
from benchmarks.index.measuring import Times
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.maps import repository as maps

REQUESTS = 50
READY = 10.0  # seconds after its start in which a process makes the map ready
ARRIVALS = 50  # that are waited for one by one
NEW_SHARE = 0.02  # of the models, that arrive before the map is drawn anew


def main(
    n: Annotated[int, typer.Option(help="Models.")] = 100_000,
    d: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 4_096,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measures the whole way from Postgres to an answer."""
    report: dict[str, Any] = {"n": n, "d": d}
    with catalog_of(Data(n, d, held_out=ARRIVALS + round(NEW_SHARE * n))) as catalog:
        name_like_a_hub(catalog)
        report["index"] = catalog.build()
        ask_for_clusters(catalog)
        report["clusters"] = run(catalog, "clusters")
        report["drawing"] = run(catalog, "map") | distortion(catalog)
        report["answers"] = answers(catalog)
        report["redrawing"] = redrawn(catalog)
    typer.echo(json.dumps(report) if as_json else json.dumps(report, indent=2))


# an owner of a thousand, four words and six letters of chance: as long and as hard to pack as real ids
_NAMES = text("""
    UPDATE models SET repo_id = owner || '/'
        || (ARRAY['Llama-3.1-8B', 'Qwen2.5-7B', 'gemma-2-9b', 'SmolLM2-135M', 'Mistral-7B'])[1 + abs(hashint8(id)) % 5]
        || (ARRAY['-lora', '-qlora', '-sft', '-dpo', '-instruct', '-adapter'])[1 + abs(hashint8(id + 1)) % 6]
        || (ARRAY['-math', '-code', '-legal', '-medical', '-chat', '-sql', '-summary', '-roleplay', '-finance'])
            [1 + abs(hashint8(id + 2)) % 9]
        || '-' || substr(md5(id::text), 1, 6)
""")


def name_like_a_hub(catalog: Catalog) -> None:
    with catalog.database.transaction() as session:
        session.execute(_NAMES)


def ask_for_clusters(catalog: Catalog) -> None:
    default = Parameters()
    with catalog.database.transaction() as session:
        cluster_runs.ask(
            session, SPACE_ID, algorithm=default.algorithm, parameters=default.as_dict(), asked_by="benchmark"
        )


def run(catalog: Catalog, name: str) -> dict[str, Any]:
    """A process as workers start it: its seconds, and the most memory that it alone had resident."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "workers.maintenance", name, str(SPACE_ID)], env=catalog.env)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"workers.maintenance {name} failed")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(used.ru_maxrss / 1024)}


def distortion(catalog: Catalog) -> dict[str, Any]:
    with catalog.database.transaction() as session:
        row = maps.newest(session, SPACE_ID)
    assert row is not None
    return {"mean_distortion": round(row.mean_distortion or 0, 4), "parameters": row.parameters}


def answers(catalog: Catalog) -> dict[str, Any]:
    """Milliseconds of `GET /v1/map`: the first of a process that had its time to make the map ready, then unchanged;
    and seconds until an arrival is on it.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = in_this_environment((*api("127.0.0.1", port), "--log-level", "warning"))
    process = subprocess.Popen(argv, env=catalog.env)
    try:
        wait_for(port)
        time.sleep(READY)
        first, same, not_modified, delays = Times(), Times(), Times(), []
        body, tag = first.take(lambda: ask(port))  # type: ignore[arg-type, return-value]
        for _ in range(REQUESTS):
            same.take(lambda: ask(port))  # type: ignore[arg-type, return-value]
            not_modified.take(lambda: ask(port, tag))  # type: ignore[arg-type, return-value]
        changed = Times()
        for number, vector in enumerate(catalog.data.queries[:ARRIVALS]):
            fill(catalog.database, 1, catalog.data.d, [vector[None]], SPACE, prefix=f"late-{number}")
            committed = time.monotonic()
            while True:
                packed, _ = changed.take(lambda: ask(port))  # type: ignore[arg-type, return-value]
                if len(json.loads(gzip.decompress(packed))["placed"]["repo_ids"]) > number:
                    break
            delays.append(time.monotonic() - committed)
    finally:
        process.terminate()
        process.wait()
    return {
        "gzipped_bytes": len(body),
        "plain_bytes": len(gzip.decompress(body)),
        "first_ms": first.ms(0.5),
        "unchanged": same.summary(),
        "not_modified": not_modified.summary(),
        "while_models_arrive": changed.summary(),
        "arrival_to_answer_s": {
            "p50": round(float(np.median(delays)), 3),
            "max": round(max(delays), 3),
        },
    }


def redrawn(catalog: Catalog) -> dict[str, Any]:
    """Drawn anew after some arrivals: its seconds, and how far the points that were there moved, in map widths."""
    more = catalog.data.queries[ARRIVALS:]
    fill(catalog.database, len(more), catalog.data.d, [more], SPACE, prefix="more")
    with catalog.database.transaction() as session:
        before = maps.arrays(maps.newest(session, SPACE_ID))  # type: ignore[arg-type]
    cost = run(catalog, "map")
    with catalog.database.transaction() as session:
        after = maps.arrays(maps.newest(session, SPACE_ID))  # type: ignore[arg-type]
    _, mine, theirs = np.intersect1d(before.model_ids, after.model_ids, assume_unique=True, return_indices=True)
    width = float(np.ptp(before.places, axis=0).max())
    moved = np.linalg.norm(before.places[mine] - after.places[theirs], axis=1) / width
    return cost | {
        "arrived": len(after.model_ids) - len(before.model_ids),
        "moved_of_width": {"p50": round(float(np.median(moved)), 4), "p99": round(float(np.quantile(moved, 0.99)), 4)},
    }


def ask(port: int, tag: str | None = None) -> tuple[bytes, str]:
    """The body as it was sent, and its ETag; a connection for each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Accept-Encoding": "gzip"} | ({"If-None-Match": tag} if tag else {})
    connection.request("GET", "/v1/map", headers=headers)
    response = connection.getresponse()
    if response.status not in (200, 304):
        raise RuntimeError(response.read().decode())
    found = response.read(), response.getheader("ETag") or ""
    connection.close()
    return found


def wait_for(port: int) -> None:
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
