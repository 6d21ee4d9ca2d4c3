"""`deltadex add | status`."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.progress import Progress

from app.cli import render
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.client import OVER, TOKEN_HEADER, ApiProblem, Client
from catalog.auth.hub_tokens import read_token
from catalog.database import Database
from catalog.errors import TooManyJobs
from catalog.jobs import submissions
from catalog.models.repo_ref import RepoRef
from catalog.settings import settings

MAX_WAIT = 5.0  # seconds between tries while the quota is used up


def add(
    targets: Annotated[list[str], typer.Argument(help="Repo ids (OWNER/NAME), or folders on this machine.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repos.")] = None,
    name: Annotated[str | None, typer.Option(help="Index one folder as local/NAME.")] = None,
    hub: Annotated[
        bool, typer.Option("--hub", help="Take every target as a repo id, also where a folder has it.")
    ] = False,
    token_stdin: Annotated[
        bool,
        typer.Option("--token-stdin", help="Read a token of the Hub from standard input; else DELTADEX_USER_TOKEN's."),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until each is indexed or failed.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Embed fine-tunes and make them searchable. Exits with 1 when one of them failed."""
    folders = [target for target in targets if not hub and Path(target).is_dir()]
    if name is not None and (len(targets) != 1 or not folders):
        raise typer.BadParameter("--name goes with exactly one folder")
    if revision is not None and folders:
        raise typer.BadParameter("--revision goes with repos of the Hub, and a folder has none")
    for target in set(targets) - set(folders):
        RepoRef(target, revision)  # a slip in one is told before any is submitted
    if token_stdin and folders:
        raise typer.BadParameter("--token-stdin goes with repos of the Hub, and a folder needs no token")
    headers = token_headers(token_stdin)
    with connect(api) as client:
        jobs = [submit_patiently(client, target, target in folders, revision, name, headers) for target in targets]
        if wait:
            with render.progress_bar(notes) as bar:
                jobs = watch(client, jobs, bar)
    if as_json:
        print_json({"jobs": jobs})
    else:
        out.print(render.jobs(jobs))
    if any(job["state"] in ("failed", "cancelled") for job in jobs):
        raise typer.Exit(1)


def token_headers(from_stdin: bool) -> dict[str, str]:
    """A token of the Hub to submit with, where there is one. Never an argument: those are for all to see in `ps`.

    Raises `TokenMalformed`.
    """
    given = SecretStr(sys.stdin.readline().strip()) if from_stdin else settings().user_token
    return {TOKEN_HEADER: read_token(given.get_secret_value()).get_secret_value()} if given is not None else {}


def submit_patiently(client: Client, target: str, *details: Any) -> dict[str, Any]:
    """As `submit`; while there are too many active jobs it waits until some are over."""
    while True:
        try:
            return submit(client, target, *details)
        except ApiProblem as problem:
            if problem.code != TooManyJobs.code:
                raise
            notes.print(f"{target} waits: {problem.message}")
            time.sleep(min(problem.retry_after or MAX_WAIT, MAX_WAIT))


def submit(
    client: Client,
    target: str,
    is_folder: bool,
    revision: str | None = None,
    name: str | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The job for a repo id, or for a folder: that goes past the API, which never takes a path."""
    if not is_folder:
        return client.post("/v1/models", {"repo_id": target, "revision": revision}, headers)
    database = Database(settings().require_database_url())
    try:
        job = submissions.submit_folder(database, Path(target), name)
    finally:
        database.close()
    return client.get(f"/v1/jobs/{job.id}")


def watch(client: Client, jobs: list[dict[str, Any]], bar: Progress) -> list[dict[str, Any]]:
    """Wait for the jobs with a progress bar; returns them as they ended."""
    task = bar.add_task("embedding", total=len(jobs))
    over: set[int] = set()

    def show(job: dict[str, Any]) -> None:
        if job["state"] in OVER:
            over.add(job["id"])
        bar.update(task, completed=len(over), description=f"{job['repo_id']} {job['state']}")

    ended = {job["id"]: job for job in client.wait_for({job["id"]: None for job in jobs}, show)}
    bar.update(task, description="embedded")
    return [ended[job["id"]] for job in jobs]


def status(
    job: Annotated[int | None, typer.Argument(help="A job's number; the whole catalog without.")] = None,
    watching: Annotated[bool, typer.Option("--watch", help="Go on telling each change; of a job, to its end.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a job, or what the catalog holds and works on."""
    with connect(api) as client:
        if watching:
            tell_events(client, job, as_json)
            return
        if job is not None:
            found = client.get(f"/v1/jobs/{job}")
            print_json(found) if as_json else out.print(render.jobs([found]), render.history(found))
            return
        stats, readiness = client.get("/v1/stats"), client.readiness()
        recent = client.get("/v1/jobs", limit=10)["jobs"]
    if as_json:
        print_json({"stats": stats, "readiness": readiness, "jobs": recent})
    else:
        out.print(render.status(stats, readiness, recent))


def tell_events(client: Client, job: int | None, as_json: bool) -> None:
    """Each event in a line of its own: a job's until it is over, all jobs' until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        for event in client.events(f"/v1/jobs/{job}/events" if job is not None else "/v1/jobs/events"):
            if as_json:
                print_json(event)
                sys.stdout.flush()
            elif "job" in event:
                out.print(render.event(event), soft_wrap=True)
            else:
                notes.print("some of what happened meanwhile is no longer known")
            if job is not None and event.get("state") in OVER:
                return
