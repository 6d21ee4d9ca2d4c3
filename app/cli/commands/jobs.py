"""`deltadex cancel | retry | workers`, and `deltadex queue [list | pause | drain | resume]`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.client import POLL_INTERVAL, Client

queue = typer.Typer(help="List, pause, drain and resume queues. Needs the key of an admin.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="encode: jobs. maintenance: indexes, clusters, maps.")]


def cancel(
    jobs: Annotated[list[int], typer.Argument(help="Job ids.")], api: Api = None, as_json: AsJson = False
) -> None:
    """Cancel queued or running jobs. No result of them is stored."""
    with connect(api) as client:
        _print_jobs([client.post(f"/v1/jobs/{job_id}/cancel", {}) for job_id in jobs], as_json)


def retry(
    jobs: Annotated[list[int] | None, typer.Argument(help="Job ids.")] = None,
    code: Annotated[
        str | None, typer.Option(help="Retry all jobs that failed with this error code, as an admin.")
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Retry as an admin, even if the jobs are quarantined.")
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Retry failed or cancelled jobs: by their ids, or all with an error code."""
    if bool(jobs) == (code is not None):
        raise typer.BadParameter("pass either job ids or --code")
    with connect(api) as client:
        if code is not None:
            result = client.post("/v1/admin/jobs/retry", {"code": code})
            print_json(result) if as_json else out.print(f"{result['retried']} jobs are queued again")
            return
        path = "/v1/admin/jobs" if admin else "/v1/jobs"
        _print_jobs([client.post(f"{path}/{job_id}/retry", {}) for job_id in jobs or ()], as_json)


def workers(api: Api = None, as_json: AsJson = False) -> None:
    """Show the live workers: device, resident bases, memory, activity and jobs. Needs the key of an admin."""
    with connect(api) as client:
        page = client.get("/v1/admin/workers")
    print_json(page) if as_json else out.print(render.workers(page["workers"]))


@queue.command("list")
def list_(api: Api = None, as_json: AsJson = False) -> None:
    """Show the queues: whether they are paused, and how many jobs are queued and running."""
    with connect(api) as client:
        page = client.get("/v1/admin/queues")
    print_json(page) if as_json else out.print(render.queues(page["queues"]))


@queue.command()
def pause(name: Name = "encode", api: Api = None, as_json: AsJson = False) -> None:
    """Pause a queue: nothing more is claimed, and running jobs continue."""
    with connect(api) as client:
        _print_queue(_change(client, name, "pause"), as_json)


@queue.command()
def drain(name: Name = "encode", api: Api = None, as_json: AsJson = False) -> None:
    """Pause a queue, and wait until none of its jobs is running."""
    with connect(api) as client:
        report = _change(client, name, "pause")
        with notes.status("draining") as status:
            while not report["drained"]:
                status.update(f"draining: {report['running']} running")
                time.sleep(POLL_INTERVAL)
                queues = client.get("/v1/admin/queues")["queues"]
                report = next(queue for queue in queues if queue["name"] == name)
                if not report["paused"]:
                    raise typer.BadParameter("the queue was resumed before it was drained; drain it again")
    _print_queue(report, as_json)


@queue.command()
def resume(name: Name = "encode", api: Api = None, as_json: AsJson = False) -> None:
    """Resume a paused queue."""
    with connect(api) as client:
        _print_queue(_change(client, name, "resume"), as_json)


def _change(client: Client, name: str, action: str) -> dict[str, Any]:
    return client.post(f"/v1/admin/queues/{name}/{action}", {})


def _print_queue(report: dict[str, Any], as_json: bool) -> None:
    print_json(report) if as_json else out.print(render.queues([report]))


def _print_jobs(jobs: list[dict[str, Any]], as_json: bool) -> None:
    print_json({"jobs": jobs}) if as_json else out.print(render.jobs(jobs))
