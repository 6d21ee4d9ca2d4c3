"""`deltadex remove`, `deltadex block [add | list | remove]` and `deltadex spaces [drop]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import DEFAULT_LIMIT, list_rows
from app.cli.render import table_of
from catalog.models.repo_ref import RepoRef

BLOCKS = "/v1/admin/blocks"
SPACES = "/v1/admin/spaces"

block = typer.Typer(help="Block owners, repos and licenses. Needs the key of an admin.", no_args_is_help=True)
spaces = typer.Typer(help="List all spaces; drop one. Needs the key of an admin.", invoke_without_command=True)


def remove(
    repo_ids: Annotated[list[str], typer.Argument(help="Models; local/NAME for a folder.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Remove models with everything that was measured of them. Needs the key of an admin."""
    names = [RepoRef(repo_id).repo_id for repo_id in repo_ids]
    with connect(api) as client:
        removed = [client.delete(f"/v1/models/{name}", patient=True) for name in names]
    if as_json:
        print_json({"removed": removed})
        return
    table = table_of("model", "revisions", "vectors", "cancelled jobs")
    for row in removed:
        cancelled = " ".join(map(str, row["jobs"]))
        table.add_row(row["repo_id"], str(row["revisions"]), str(row["vectors"]), cancelled)
    out.print(table)


@block.command()
def add(
    owner: Annotated[str | None, typer.Option(help="Block all models of a user or an organization.")] = None,
    repo: Annotated[str | None, typer.Option(help="Block one repo: OWNER/NAME.")] = None,
    license: Annotated[str | None, typer.Option(help="Block all models with this license, such as other.")] = None,
    reason: Annotated[str | None, typer.Option(help="A note that admins see.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Block an owner, a repo or a license, and remove the models that it applies to."""
    if sum(value is not None for value in (owner, repo, license)) != 1:
        raise typer.BadParameter("pass exactly one of --owner, --repo and --license")
    body = {"owner": owner, "repo": repo, "license": license, "reason": reason}
    with connect(api) as client, notes.status("removing the models that the block applies to"):
        added = client.post(BLOCKS, body, patient=True)
    if as_json:
        print_json(added)
    else:
        out.print(_block_table([added]), f"{added['removed']} models were removed")


@block.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number to show.")] = DEFAULT_LIMIT,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the blocks, newest first."""
    with connect(api) as client:
        rows, has_more = list_rows(client, BLOCKS, "blocks", limit)
    print_json({"blocks": rows, "has_more": has_more}) if as_json else out.print(_block_table(rows))


@block.command("remove")
def remove_block(
    block_id: Annotated[int, typer.Argument(metavar="ID", help="Id of a block.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Remove a block. Its models stay removed until they are submitted again."""
    with connect(api) as client:
        removed = client.delete(f"{BLOCKS}/{block_id}")
    print_json(removed) if as_json else out.print(_block_table([removed]))


def _block_table(blocks: Iterable[dict[str, Any]]) -> Table:
    table = table_of("block", "kind", "value", "since", "reason")
    for row in blocks:
        cells = (str(row["id"]), row["kind"], escape(row["value"]), row["created_at"][:19].replace("T", " "))
        table.add_row(*cells, escape(row["reason"] or ""))
    return table


@spaces.callback()
def list_spaces(context: typer.Context, api: Api = None, as_json: AsJson = False) -> None:
    """List all spaces, newest first."""
    if context.invoked_subcommand is not None:
        return
    with connect(api) as client:
        answer = client.get(SPACES)
    print_json(answer) if as_json else out.print(_space_table(answer["spaces"]))


@spaces.command()
def drop(
    key: Annotated[str, typer.Argument(help="Key of a space, or at least its first 8 digits.")],
    force: Annotated[bool, typer.Option("--force", help="Drop the space even if it is serving.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Drop a space with its vectors, index, clusters, map and geometries."""
    with connect(api) as client, notes.status(f"dropping space {key[:12]}: a large one takes minutes"):
        dropped = client.delete(f"{SPACES}/{key}", force=force or None, patient=True)
    if as_json:
        print_json(dropped)
        return
    out.print(_space_table([dropped]))
    if dropped["models_without_vectors"]:
        out.print(f"{dropped['models_without_vectors']} models are in no space now: `deltadex reindex` measures them")


def _space_table(spaces: Iterable[dict[str, Any]]) -> Table:
    table = table_of("key", "feature", "base", "edition", "vectors", "serving")
    for row in spaces:
        base = row["base_repo"] or "all bases"
        cells = (row["key"][:12], row["feature"], base, str(row["edition"]), str(row["vectors"]))
        table.add_row(*cells, "yes" if row["serving"] else "no")
    return table
