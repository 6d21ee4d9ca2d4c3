"""The command `deltadex`."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.markup import escape

from app.cli import (
    cluster_commands,
    commands,
    compose_commands,
    crawl_commands,
    job_commands,
    map_commands,
    merge_commands,
    model_commands,
    reindex_commands,
    selection_commands,
    task_commands,
)
from app.cli.deployment import Deployment
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
    as_json: commands.AsJson = False,
) -> None:
    """Run the API, a worker and beat; Postgres and Valkey too where DATABASE_URL and REDIS_URL are not set."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    conf = settings().model_copy(update=given)
    with Deployment(conf) as deployment:
        if as_json:
            commands.print_json({"api": deployment.url, "openapi": f"{deployment.url}/docs"})
        else:
            commands.out.print(
                f"API      {deployment.url}\nOpenAPI  {deployment.url}/docs\nLogs     {conf.data_dir}/logs"
            )
            commands.out.print("Ctrl-C stops everything.")
        sys.stdout.flush()
        deployment.supervisor.wait()


cli.command()(commands.add)
cli.command()(commands.status)
cli.command()(commands.show)
cli.command()(commands.neighbors)
cli.command()(model_commands.search)
cli.command()(model_commands.revisions)
cli.command()(compose_commands.compose)
cli.add_typer(compose_commands.vectors, name="vectors")
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
for handed_on in (commands.embed, commands.evaluate, commands.study):  # the workers' own commands
    cli.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
    )(handed_on)  # fmt: skip


def main() -> None:
    """Run the command line; an error of ours becomes its code and sentence, and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        cli()
    except CatalogError as error:
        commands.notes.print(f"[red]{error.code}[/]: {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
