"""The demo: index the example pool on this machine, print the nearest neighbors, and serve the API.

    python examples/demo.py [--check]

With --check it exits after the table, with status 0 if the nearest neighbor of every adapter is in the same domain.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from app.cli import console, render
from app.cli.commands import ingest as ingest_commands
from app.client import Client
from app.deployment.local import Deployment
from catalog.errors import CatalogError
from catalog.settings import Settings, settings

POOL = Path(__file__).parent / "pool"
DEFAULTS = ingest_commands.Options()
NEIGHBORS = 2  # each domain has three adapters


def domain(name: str) -> str:
    """`smollm2-135m-legal-first` -> `legal`."""
    return name.split("-")[-2]


def run(client: Client) -> bool:
    """Index the pool and print its neighbors. Returns whether every nearest neighbor is in the domain of its model."""
    folders = sorted(folder for folder in POOL.iterdir() if folder.is_dir())
    jobs = [ingest_commands.submit(client, str(folder), True, DEFAULTS) for folder in folders]
    with render.progress_bar(console.notes) as bar:
        jobs = ingest_commands.watch(client, jobs, bar)
    failed = [job for job in jobs if job["state"] != "done"]
    if failed:
        console.out.print(render.jobs(failed))
        return False
    names = [job["repo_id"] for job in jobs]
    neighbors = [(name, client.get(f"/v1/models/{name}/neighbors", k=NEIGHBORS)["neighbors"]) for name in names]
    console.out.print(render.neighbors(neighbors, NEIGHBORS))
    matches = [domain(name) == domain(page[0]["repo_id"]) for name, page in neighbors]
    console.out.print(f"{sum(matches)} of {len(matches)} nearest neighbors are of the same domain.")
    return all(matches)


def with_free_port(conf: Settings) -> Settings:
    """The settings, with another port if the configured one is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((conf.host, conf.port))
            return conf
        except OSError:
            probe.bind((conf.host, 0))
            return conf.model_copy(update={"port": probe.getsockname()[1]})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit after the table")
    check = parser.parse_args().check
    try:
        with (
            Deployment(with_free_port(settings())) as deployment,
            Client(deployment.url, deployment.admin_key) as client,
        ):
            passed = run(client)
            console.out.print(f"API      {deployment.url}\nOpenAPI  {deployment.url}/docs")
            if not check:
                console.out.print("Ctrl-C stops everything.")
                deployment.supervisor.wait()
    except CatalogError as error:
        console.notes.print(f"[red]{error.code}[/]: {error}", soft_wrap=True)
        return 1
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
