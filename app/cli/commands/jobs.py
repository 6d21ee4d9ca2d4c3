"""`deltadex cancel | retry | workers`, and `deltadex queue [list | pause | drain | resume]`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.console import Api, AsJson, admin_headers, connect, notes, out, print_json
from app.client import POLL_INTERVAL, Client

queue = typer.Typer(help="The queues, for administrators. Sends ADMIN_API_KEY where it is set.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="encode: jobs. upkeep: indexes, clusters, maps.")]


def cancel(
    jobs: Annotated[list[int], typer.Argument(help="Numbers of jobs.")], api: Api = None, as_json: AsJson = False
) -> None:
    """End jobs, whether they wait or run. Nothing of them is stored."""
    with connect(api) as client:
        _show([client.post(f"/v1/jobs/{job}/cancel", {}) for job in jobs], as_json)


def retry(
    jobs: Annotated[list[int] | None, typer.Argument(help="Numbers of jobs.")] = None,
    code: Annotated[str | None, typer.Option(help="All that failed with this error; for administrators.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="As an administrator: quarantined jobs too.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Queue failed or cancelled jobs again: by their numbers, or all with an error."""
    if bool(jobs) == (code is not None):
        raise typer.BadParameter("give either jobs or --code")
    with connect(api) as client:
        if code is not None:
            done = client.post("/v1/admin/jobs/retry", {"code": code}, admin_headers())
            print_json(done) if as_json else out.print(f"{done['retried']} jobs are queued again")
            return
        where, headers = ("/v1/admin/jobs", admin_headers()) if admin else ("/v1/jobs", None)
        _show([client.post(f"{where}/{job}/retry", {}, headers) for job in jobs or ()], as_json)


def workers(api: Api = None, as_json: AsJson = False) -> None:
    """Show the workers: device, bases in memory, memory, and what each does now. Sends ADMIN_API_KEY if set."""
    with connect(api) as client:
        found = client.get("/v1/admin/workers", headers=admin_headers())
    print_json(found) if as_json else out.print(render.workers(found["workers"]))


@queue.command("list")
def listed(api: Api = None, as_json: AsJson = False) -> None:
    """Show the queues: which are paused, and what waits and runs."""
    with connect(api) as client:
        found = client.get("/v1/admin/queues", headers=admin_headers())
    print_json(found) if as_json else out.print(render.queues(found["queues"]))


@queue.command()
def pause(name: Name = "encode", api: Api = None, as_json: AsJson = False) -> None:
    """Have nothing more taken from a queue; what runs goes on to its end."""
    with connect(api) as client:
        _tell(_change(client, name, "pause"), as_json)


@queue.command()
def drain(name: Name = "encode", api: Api = None, as_json: AsJson = False) -> None:
    """Pause a queue, and wait until nothing of it runs any more."""
    with connect(api) as client:
        found = _change(client, name, "pause")
        with notes.status("draining") as status:
            while not found["drained"]:
                status.update(f"draining: {found['running']} running")
                time.sleep(POLL_INTERVAL)
                listed = client.get("/v1/admin/queues", headers=admin_headers())["queues"]
                found = next(each for each in listed if each["name"] == name)
                if not found["paused"]:
                    raise typer.BadParameter("somebody resumed it meanwhile")
    _tell(found, as_json)


@queue.command()
def resume(name: Name = "encode", api: Api = None, as_json: AsJson = False) -> None:
    """Have a paused queue worked on again."""
    with connect(api) as client:
        _tell(_change(client, name, "resume"), as_json)


def _change(client: Client, name: str, what: str) -> dict[str, Any]:
    return client.post(f"/v1/admin/queues/{name}/{what}", {}, admin_headers())


def _tell(found: dict[str, Any], as_json: bool) -> None:
    print_json(found) if as_json else out.print(render.queues([found]))


def _show(jobs: list[dict[str, Any]], as_json: bool) -> None:
    print_json({"jobs": jobs}) if as_json else out.print(render.jobs(jobs))
