"""The command `deltadex`."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.markup import escape

from app.cli import console
from app.cli.commands import arithmetic as arithmetic_commands
from app.cli.commands import clusters as cluster_commands
from app.cli.commands import crawls as crawl_commands
from app.cli.commands import ingest as ingest_commands
from app.cli.commands import jobs as job_commands
from app.cli.commands import maps as map_commands
from app.cli.commands import merges as merge_commands
from app.cli.commands import models as model_commands
from app.cli.commands import offline as offline_commands
from app.cli.commands import reindexes as reindex_commands
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
    """Run the API, a worker and beat; Postgres and Valkey too where DATABASE_URL and REDIS_URL are not set."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    conf = settings().model_copy(update=given)
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


cli.command()(ingest_commands.add)
cli.command()(ingest_commands.status)
cli.command()(model_commands.show)
cli.command()(model_commands.neighbors)
cli.command()(model_commands.search)
cli.command()(model_commands.revisions)
cli.command()(arithmetic_commands.compose)
cli.add_typer(arithmetic_commands.vectors, name="vectors")
cli.command()(task_commands.task)
cli.add_typer(task_commands.tasks, name="tasks")
cli.command()(selection_commands.select)
cli.add_typer(selection_commands.selections, name="selections")
cli.command()(merge_commands.merge)
cli.add_typer(merge_commands.merges, name="merges")
cli.command()(crawl_commands.crawl)
cli.add_typer(crawl_commands.crawls, name="crawls")
cli.command()(reindex_commands.reindex)
cli.add_typer(reindex_commands.reindexes, name="reindexes")
cli.command()(job_commands.cancel)
cli.command()(job_commands.retry)
cli.command()(job_commands.workers)
cli.add_typer(job_commands.queue, name="queue")
cli.command()(cluster_commands.cluster)
cli.add_typer(cluster_commands.clusters, name="clusters")
cli.command("map")(map_commands.draw_map)
for handed_on in (
    offline_commands.embed,
    offline_commands.evaluate,
    offline_commands.study,
):  # the workers' own commands
    cli.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
    )(handed_on)  # fmt: skip


def main() -> None:
    """Run the command line; an error of ours becomes its code and sentence, and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        cli()
    except CatalogError as error:
        console.notes.print(f"[red]{error.code}[/]: {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
