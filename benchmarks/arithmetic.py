"""Measure whether the sum of two domains finds the models that were trained on both.

    python -m benchmarks.arithmetic --json

A worker indexes the example pool and its mixtures, and searches run over HTTP. The term of a domain is a stored vector,
the mean of the vectors of its three adapters. Each sum of two domains is a query. Reported for each mixture in
`examples/pool-mix`: the pair whose sum is `nearest` to it by raw cosine; the `rank` of its own pair among the ten
pairs; the `rank_of_all` of its own pair among these and the five single domains; the `lead` of its own pair over the
best other pair; and its residual against the sum of its own pair.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.cli.commands import ingest as ingest_commands
from app.client import POLL_INTERVAL, Client
from app.deployment.local import Deployment
from catalog.settings import settings
from examples.demo import domain, with_free_port

EXAMPLES = Path(__file__).parents[1] / "examples"
COLUMNS = (
    "feature",
    "terms",
    "mixture",
    "nearest",
    "rank",
    "rank_of_all",
    "cosine",
    "lead",
    "relative",
    "min_relative",
    "scale",
)
Pair = tuple[str, ...]


def domains_of(mixture: str) -> Pair:
    """The domains in the name of a mixture: `smollm2-135m-mix-legal-math` -> `legal`, `math`."""
    return tuple(mixture.split("-")[-2:])


def embed_examples(client: Client) -> tuple[list[str], list[str]]:
    """Submit the pool and the mixtures, and wait for their jobs; returns the repo ids of both."""
    pool, mixtures = (
        sorted(folder for folder in (EXAMPLES / name).iterdir() if folder.is_dir()) for name in ("pool", "pool-mix")
    )
    job_ids = [ingest_commands.submit(client, str(folder), is_folder=True)["id"] for folder in (*pool, *mixtures)]
    jobs = client.wait_for(job_ids, lambda _: None)
    failed = [job for job in jobs if job["state"] != "done"]
    if failed:
        raise SystemExit(f"jobs failed: {failed}")
    repo_ids = [job["repo_id"] for job in jobs]
    return repo_ids[: len(pool)], repo_ids[len(pool) :]


def wait_until_indexed(client: Client, names: list[str], space: dict[str, Any]) -> None:
    """Wait until the API has read all vectors from the change feed."""
    query = {"repo_id": names[0], "space": space["key"], "geometry": "raw", "k": 100, "include_low_confidence": True}
    while len(client.post("/v1/search", query)["neighbors"]) < len(names) - 1:
        time.sleep(POLL_INTERVAL)


def store_domains(client: Client, pool: list[str], space: dict[str, Any]) -> dict[str, str]:
    """Store the mean vector of each domain; returns how an expression refers to each of them."""
    terms = {}
    for name in sorted({domain(repo_id) for repo_id in pool}):
        members = [repo_id for repo_id in pool if domain(repo_id) == name]
        mean = f"({' + '.join(members)}) / {len(members)}"
        stored = client.post(
            "/v1/vectors", {"name": f"{name}-{space['feature']}", "expression": mean, "space": space["key"]}
        )
        terms[name] = f"vector:{stored['name']}"
    return terms


def mixture_rows(
    client: Client, terms: dict[str, str], mixtures: list[str], space: dict[str, Any], unit: bool
) -> Iterator[dict[str, Any]]:
    """One row per mixture."""
    query = {"space": space["key"], "unit_terms": unit, "geometry": "raw", "k": 100, "include_low_confidence": True}

    def cosines(pair: Pair) -> dict[str, float]:
        answer = client.post("/v1/search", query | {"expression": " + ".join(terms[name] for name in pair)})
        return {neighbor["repo_id"]: neighbor["similarity"] for neighbor in answer["neighbors"]}

    sums = {pair: cosines(pair) for size in (1, 2) for pair in combinations(sorted(terms), size)}
    for mixture in mixtures:
        own_pair = tuple(sorted(domains_of(mixture)))
        pairs = {pair: similarities[mixture] for pair, similarities in sums.items() if len(pair) == 2}
        others = [cosine for pair, cosine in pairs.items() if pair != own_pair]
        expression = " + ".join(terms[name] for name in own_pair)
        [residual] = client.post("/v1/search", query | {"expression": expression, "compare": mixture})["residuals"]
        yield {
            "feature": space["feature"],
            "terms": "unit" if unit else "raw",
            "mixture": " + ".join(own_pair),
            "nearest": " + ".join(max(pairs, key=pairs.__getitem__)),
            "rank": 1 + sum(other > pairs[own_pair] for other in others),
            "rank_of_all": 1 + sum(similarities[mixture] > pairs[own_pair] for similarities in sums.values()),
            "cosine": residual["cosine"],
            "lead": pairs[own_pair] - max(others),
            **{name: residual[name] for name in ("relative", "min_relative", "scale")},
        }


def measure(bases: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        (data / "bases").symlink_to(bases.resolve())
        for name in ("DATABASE_URL", "REDIS_URL"):  # the deployment starts its own servers
            os.environ.pop(name, None)
        os.environ["DELTADEX_DATA_DIR"] = str(data)
        settings.cache_clear()
        with (
            Deployment(with_free_port(settings())) as deployment,
            Client(deployment.url, deployment.admin_key) as client,
        ):
            pool, mixtures = embed_examples(client)
            rows: list[dict[str, Any]] = []
            for space in client.get("/v1/spaces")["spaces"]:
                wait_until_indexed(client, [*pool, *mixtures], space)
                terms = store_domains(client, pool, space)
                rows += [row for unit in (False, True) for row in mixture_rows(client, terms, mixtures, space, unit)]
    own_pair_first = Counter((row["feature"], row["terms"]) for row in rows if row["rank"] == 1)
    summary = [
        {"feature": feature, "terms": terms, "own_pair_first": own_pair_first[feature, terms]}
        for feature, terms in dict.fromkeys((row["feature"], row["terms"]) for row in rows)
    ]
    return {"mixtures": len(mixtures), "summary": summary, "rows": rows}


def main(
    bases: Annotated[
        Path | None, typer.Option(help="Folder of base models, OWNER/NAME. Default: that of the demo.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Rank every sum of two domains for each mixture."""
    report = measure(bases or settings().bases_dir)
    if as_json:
        print(json.dumps(report))
        return
    table = Table(*COLUMNS)
    for row in report["rows"]:
        table.add_row(*(f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS))
    Console(width=160).print(table)
    for row in report["summary"]:
        print(f"{row['own_pair_first']} of {report['mixtures']} ({row['feature']}, {row['terms']} terms)")


if __name__ == "__main__":
    typer.run(main)
