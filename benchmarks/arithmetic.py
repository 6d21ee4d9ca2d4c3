"""Whether a sum of two domains leads to the models that learned both: the example pool and its mixtures, indexed by a
worker and searched over HTTP.

    python -m benchmarks.arithmetic --json

A domain's term is a stored vector, the mean of the vectors of its three adapters. Every sum of two domains is searched
with, and of each mixture in `examples/pool-mix` the figures are: the pair whose sum is nearest to it by raw cosine;
`rank` of its own pair among the ten; `rank of all` among these and the five domains alone; `lead` of its own pair over
the best other; and its residual against its own pair's sum.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
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
from examples.demo import domain, on_a_free_port

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWN = (
    "feature",
    "terms",
    "mixture",
    "nearest",
    "rank",
    "rank_of_all",
    "cosine",
    "lead",
    "relative",
    "least",
    "scale",
)
Pair = tuple[str, ...]


def parts(mixture: str) -> Pair:
    """`smollm2-135m-mix-legal-math` -> `legal`, `math`."""
    return tuple(mixture.split("-")[-2:])


def index(client: Client) -> tuple[list[str], list[str]]:
    """Have the pool and the mixtures embedded; the repo ids of both."""
    folders = [sorted(each for each in (EXAMPLES / name).iterdir() if each.is_dir()) for name in ("pool", "pool-mix")]
    jobs = [ingest_commands.submit(client, str(folder), is_folder=True)["id"] for each in folders for folder in each]
    ended = client.wait_for(jobs, lambda _: None)
    failed = [job for job in ended if job["state"] != "done"]
    if failed:
        raise SystemExit(f"not embedded: {failed}")
    names = [job["repo_id"] for job in ended]
    return names[: len(folders[0])], names[len(folders[0]) :]


def wait_until_found(client: Client, names: list[str], space: dict[str, Any]) -> None:
    """Until the API has read from the change feed what the worker stored."""
    question = {"repo_id": names[0], "space": space["key"], "geometry": "raw", "k": 100, "unconfident": True}
    while len(client.post("/v1/search", question)["neighbors"]) < len(names) - 1:
        time.sleep(POLL_INTERVAL)


def store_domains(client: Client, pool: list[str], space: dict[str, Any]) -> dict[str, str]:
    """The mean of each domain's models under a name; how each is written in an expression."""
    terms = {}
    for name in sorted({domain(each) for each in pool}):
        own = [each for each in pool if domain(each) == name]
        mean = f"({' + '.join(own)}) / {len(own)}"
        stored = client.post(
            "/v1/vectors", {"name": f"{name}-{space['feature']}", "expression": mean, "space": space["key"]}
        )
        terms[name] = f"vector:{stored['name']}"
    return terms


def rows(
    client: Client, terms: dict[str, str], mixtures: list[str], space: dict[str, Any], unit: bool
) -> Iterator[dict[str, Any]]:
    """One for each mixture."""
    question = {"space": space["key"], "unit_terms": unit, "geometry": "raw", "k": 100, "unconfident": True}

    def cosines(pair: Pair) -> dict[str, float]:
        sought = question | {"expression": " + ".join(terms[each] for each in pair)}
        return {each["repo_id"]: each["similarity"] for each in client.post("/v1/search", sought)["neighbors"]}

    sums = {pair: cosines(pair) for size in (1, 2) for pair in combinations(sorted(terms), size)}
    for mixture in mixtures:
        own = tuple(sorted(parts(mixture)))
        pairs = {pair: found[mixture] for pair, found in sums.items() if len(pair) == 2}
        others = [cosine for pair, cosine in pairs.items() if pair != own]
        beside = question | {"expression": " + ".join(terms[each] for each in own), "compare": mixture}
        [residual] = client.post("/v1/search", beside)["residuals"]
        yield {
            "feature": space["feature"],
            "terms": "unit" if unit else "raw",
            "mixture": " + ".join(own),
            "nearest": " + ".join(max(pairs, key=pairs.__getitem__)),
            "rank": 1 + sum(other > pairs[own] for other in others),
            "rank_of_all": 1 + sum(found[mixture] > pairs[own] for found in sums.values()),
            "cosine": residual["cosine"],
            "lead": pairs[own] - max(others),
            **{name: residual[name] for name in ("relative", "least", "scale")},
        }


def measure(bases: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        (data / "bases").symlink_to(bases.resolve())
        for name in ("DATABASE_URL", "REDIS_URL"):  # servers of its own, whatever else there is
            os.environ.pop(name, None)
        os.environ["DELTADEX_DATA_DIR"] = str(data)
        settings.cache_clear()
        with Deployment(on_a_free_port(settings())) as deployment, Client(deployment.url) as client:
            pool, mixtures = index(client)
            found = []
            for space in client.get("/v1/spaces")["spaces"]:
                wait_until_found(client, [*pool, *mixtures], space)
                terms = store_domains(client, pool, space)
                found += [row for unit in (False, True) for row in rows(client, terms, mixtures, space, unit)]
    own = {(row["feature"], row["terms"]): 0 for row in found}
    for row in found:
        own[row["feature"], row["terms"]] += row["rank"] == 1
    first = [{"feature": feature, "terms": terms, "own_pair_first": count} for (feature, terms), count in own.items()]
    return {"mixtures": len(mixtures), "summary": first, "rows": found}


def main(
    bases: Annotated[Path | None, typer.Option(help="Folder of base models, OWNER/NAME; the demo's without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Ranks every sum of two domains for each mixture."""
    report = measure(bases or settings().bases_dir)
    if as_json:
        print(json.dumps(report))
        return
    table = Table(*SHOWN)
    for row in report["rows"]:
        table.add_row(*(f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in SHOWN))
    Console(width=160).print(table)
    for each in report["summary"]:
        print(f"{each['own_pair_first']} of {report['mixtures']} ({each['feature']}, {each['terms']} terms)")


if __name__ == "__main__":
    typer.run(main)
