"""The demo: index the example pool on this machine, show what is near what, keep serving.

    python examples/demo.py [--check]

With --check it ends after the table: with 0 when every adapter's nearest neighbour is of its own domain.
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
NEIGHBOURS = 2  # a domain has three adapters


def domain(name: str) -> str:
    """`smollm2-135m-legal-first` -> `legal`."""
    return name.split("-")[-2]


def run(client: Client) -> bool:
    """Add the pool and print the table; whether every nearest neighbour is of its model's domain."""
    folders = sorted(folder for folder in POOL.iterdir() if folder.is_dir())
    jobs = [ingest_commands.submit(client, str(folder), is_folder=True) for folder in folders]
    with render.progress_bar(console.notes) as bar:
        jobs = ingest_commands.watch(client, jobs, bar)
    failed = [job for job in jobs if job["state"] != "done"]
    if failed:
        console.out.print(render.jobs(failed))
        return False
    names = [job["repo_id"] for job in jobs]
    answers = [(name, client.get(f"/v1/models/{name}/neighbors", k=NEIGHBOURS)["neighbors"]) for name in names]
    console.out.print(render.neighbors(answers, NEIGHBOURS))
    right = [domain(name) == domain(found[0]["repo_id"]) for name, found in answers]
    console.out.print(f"{sum(right)} of {len(right)} nearest neighbours are of the same domain.")
    return all(right)


def on_a_free_port(conf: Settings) -> Settings:
    """The settings, with another port where theirs is in use."""
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
    parser.add_argument("--check", action="store_true", help="end after the table")
    check = parser.parse_args().check
    try:
        with Deployment(on_a_free_port(settings())) as deployment, Client(deployment.url) as client:
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
