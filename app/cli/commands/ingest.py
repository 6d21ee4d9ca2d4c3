"""`deltadex add | status`."""

from __future__ import annotations

import getpass
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.progress import Progress

from app.cli import render
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.client import FINISHED, TOKEN_HEADER, ApiProblem, Client
from catalog.audit import service as audit_service
from catalog.audit.service import Act
from catalog.auth.hub_tokens import parse_token
from catalog.database import Database
from catalog.errors import TooManyJobs
from catalog.jobs import submissions
from catalog.models.repo_ref import RepoRef, check_base_id
from catalog.settings import settings

MAX_WAIT = 5.0  # seconds between attempts while the quota is used up


@dataclass(frozen=True)
class Options:
    """How all targets of one command are submitted. A `name` is that of a single folder; `headers` hold a Hub token."""

    revision: str | None = None
    base: str | None = None
    name: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def add(
    targets: Annotated[list[str], typer.Argument(help="Repo ids (OWNER/NAME), or folders on this machine.")],
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit of the repos. Of public ones, only main is searched."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name a single folder local/NAME.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model (OWNER/NAME), tried before those that the files name.")
    ] = None,
    hub: Annotated[
        bool, typer.Option("--hub", help="Treat every target as a repo id, even if a folder with that path exists.")
    ] = False,
    token_stdin: Annotated[
        bool,
        typer.Option("--token-stdin", help="Read a Hub token from standard input. Default: DELTADEX_USER_TOKEN."),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until all jobs have ended.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Embed fine-tunes and make them searchable. Exits with 1 if any of them fails."""
    folders = [target for target in targets if not hub and Path(target).is_dir()]
    if name is not None and (len(targets) != 1 or not folders):
        raise typer.BadParameter("--name requires exactly one folder")
    if revision is not None and folders:
        raise typer.BadParameter("--revision applies to repos of the Hub, not to folders")
    for target in set(targets) - set(folders):
        RepoRef(target, revision)  # report an invalid repo id before anything is submitted
    check_base_id(base)
    if token_stdin and folders:
        raise typer.BadParameter("--token-stdin applies to repos of the Hub, not to folders")
    options = Options(revision, base, name, token_headers(token_stdin))
    with connect(api) as client:
        jobs = [submit_within_quota(client, target, target in folders, options) for target in targets]
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
    """The header with a Hub token to submit with, if there is one. A token is never an argument, because other users
    can see the arguments of a process. Raises `InvalidHubToken`.
    """
    token = SecretStr(sys.stdin.readline().strip()) if from_stdin else settings().user_token
    return {TOKEN_HEADER: parse_token(token.get_secret_value()).get_secret_value()} if token is not None else {}


def submit_within_quota(client: Client, target: str, is_folder: bool, options: Options) -> dict[str, Any]:
    """Call `submit`; while the submitter has too many active jobs, wait and try again."""
    while True:
        try:
            return submit(client, target, is_folder, options)
        except ApiProblem as problem:
            if problem.code != TooManyJobs.code:
                raise
            notes.print(f"{target} waits: {problem.message}")
            time.sleep(min(problem.retry_after or MAX_WAIT, MAX_WAIT))


def submit(client: Client, target: str, is_folder: bool, options: Options) -> dict[str, Any]:
    """Submit a repo id through the API, or a folder directly, because the API accepts no paths. Returns the job."""
    if not is_folder:
        body = {"repo_id": target, "revision": options.revision, "base": options.base}
        return client.post("/v1/models", body, options.headers)
    database = Database(settings().require_database_url())
    try:
        job = submissions.submit_folder(database, Path(target), options.name, options.base)
        audit_service.record(database, Act(f"user {getpass.getuser()}", "deltadex add", job.model.repo_id))
    finally:
        database.close()
    return client.get(f"/v1/jobs/{job.id}")


def watch(client: Client, jobs: list[dict[str, Any]], bar: Progress) -> list[dict[str, Any]]:
    """Wait for jobs with a progress bar. Returns them in their final states."""
    task = bar.add_task("embedding", total=len(jobs))
    finished: set[int] = set()

    def show(job: dict[str, Any]) -> None:
        if job["state"] in FINISHED:
            finished.add(job["id"])
        bar.update(task, completed=len(finished), description=f"{job['repo_id']} {job['state']}")

    final = {job["id"]: job for job in client.wait_for({job["id"]: None for job in jobs}, show)}
    bar.update(task, description="embedded")
    return [final[job["id"]] for job in jobs]


def status(
    job: Annotated[int | None, typer.Argument(help="A job id. Default: the whole catalog.")] = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Print each change: of the job until it ends, or of all jobs until Ctrl-C.")
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a job, or the state of the catalog and its latest jobs."""
    with connect(api) as client:
        if watching:
            print_events(client, job, as_json)
            return
        if job is not None:
            detail = client.get(f"/v1/jobs/{job}")
            print_json(detail) if as_json else out.print(render.jobs([detail]), render.history(detail))
            return
        stats, readiness = client.get("/v1/stats"), client.readiness()
        recent = client.get("/v1/jobs", limit=10)["jobs"]
    if as_json:
        print_json({"stats": stats, "readiness": readiness, "jobs": recent})
    else:
        out.print(render.status(stats, readiness, recent))


def print_events(client: Client, job: int | None, as_json: bool) -> None:
    """Print one event per line: of one job until it ends, or of all jobs until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        for event in client.events(f"/v1/jobs/{job}/events" if job is not None else "/v1/jobs/events"):
            if as_json:
                print_json(event)
                sys.stdout.flush()
            elif "job" in event:
                out.print(render.event(event), soft_wrap=True)
            else:
                notes.print("some events are missing, because they have been deleted")
            if job is not None and event.get("state") in FINISHED:
                return
