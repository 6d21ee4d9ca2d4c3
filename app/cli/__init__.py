"""The command `deltadex`."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.markup import escape

from app.cli import console
from app.cli.commands import arithmetic as arithmetic_commands
from app.cli.commands import audit as audit_commands
from app.cli.commands import clusters as cluster_commands
from app.cli.commands import crawls as crawl_commands
from app.cli.commands import curation as curation_commands
from app.cli.commands import ingest as ingest_commands
from app.cli.commands import jobs as job_commands
from app.cli.commands import keys as key_commands
from app.cli.commands import maintenance as maintenance_commands
from app.cli.commands import maps as map_commands
from app.cli.commands import merges as merge_commands
from app.cli.commands import models as model_commands
from app.cli.commands import offline as offline_commands
from app.cli.commands import quarantine as quarantine_commands
from app.cli.commands import reindexes as reindex_commands
from app.cli.commands import removals as removal_commands
from app.cli.commands import selections as selection_commands
from app.cli.commands import tasks as task_commands
from app.deployment.local import Deployment
from catalog.errors import CatalogError
from catalog.settings import settings

cli = typer.Typer(
    name="deltadex",
    help="The index of what fine-tuned language models have learned.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@cli.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Run the API, a worker and beat; Postgres and Valkey too if DATABASE_URL and REDIS_URL are not set."""
    options = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    conf = settings().model_copy(update=options)
    with Deployment(conf) as deployment:
        if as_json:
            console.print_json({"api": deployment.url, "openapi": f"{deployment.url}/docs"})
        else:
            console.out.print(
                f"API      {deployment.url}\nOpenAPI  {deployment.url}/docs\nLogs     {conf.data_dir}/logs"
            )
            console.out.print("Ctrl-C stops everything.")
        sys.stdout.flush()
        deployment.supervisor.wait()


for command in (
    ingest_commands.add, ingest_commands.status, model_commands.show, model_commands.neighbors, model_commands.search,
    model_commands.revisions, curation_commands.tag, curation_commands.untag, curation_commands.note,
    curation_commands.alias, arithmetic_commands.compose, task_commands.task, selection_commands.select,
    merge_commands.merge, crawl_commands.crawl, reindex_commands.reindex, job_commands.cancel, job_commands.retry,
    job_commands.workers, cluster_commands.cluster, audit_commands.audit, removal_commands.remove,
    maintenance_commands.sweep,
):  # fmt: skip
    cli.command()(command)
cli.command("map")(map_commands.draw_map)
for name, group in {
    "vectors": arithmetic_commands.vectors,
    "tasks": task_commands.tasks,
    "selections": selection_commands.selections,
    "merges": merge_commands.merges,
    "crawls": crawl_commands.crawls,
    "reindexes": reindex_commands.reindexes,
    "queue": job_commands.queue,
    "keys": key_commands.keys,
    "clusters": cluster_commands.clusters,
    "block": removal_commands.block,
    "quarantine": quarantine_commands.quarantine,
    "spaces": removal_commands.spaces,
    "aliases": curation_commands.aliases,
}.items():
    cli.add_typer(group, name=name)
for worker_command in (offline_commands.embed, offline_commands.evaluate):
    # the workers' own command parses the options
    cli.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
    )(worker_command)  # fmt: skip


def main() -> None:
    """Run the command line. A `CatalogError` is printed as its code and message, and the exit code is 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        cli()
    except CatalogError as error:
        console.notes.print(f"[red]{error.code}[/]: {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
