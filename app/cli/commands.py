"""`deltadex add | status | show | neighbors | embed`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import Progress

from app.cli import render
from app.cli.client import ADMIN_KEY_HEADER, API_KEY_HEADER, OVER, TOKEN_HEADER, ApiProblem, Client
from catalog import submissions
from catalog.database import Database
from catalog.errors import MissingExtra, TooManyJobs
from catalog.refs import RepoRef
from catalog.settings import settings
from catalog.tokens import read_token

out = Console()
notes = Console(stderr=True)  # progress and hints; standard output is the answer alone

Api = Annotated[str | None, typer.Option("--api", help="Address of the API; the running `deltadex up` without.")]
MAX_WAIT = 5.0  # seconds between tries while the quota is used up

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def connect(api: str | None) -> Client:
    key = settings().api_key
    return Client(api or settings().api_url(), {API_KEY_HEADER: key.get_secret_value()} if key else None)


def admin_headers() -> dict[str, str]:
    """ADMIN_API_KEY for the routes of administrators, where it is set."""
    key = settings().admin_api_key
    return {ADMIN_KEY_HEADER: key.get_secret_value()} if key else {}


def print_json(content: object) -> None:
    typer.echo(json.dumps(content))


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


def neighbors(
    repo_id: Annotated[str, typer.Argument(help="An indexed model; a folder's is local/NAME.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    min_similarity: Annotated[float, typer.Option(min=-1, max=1, help="Leave out what has a smaller cosine.")] = -1,
    space: Annotated[str | None, typer.Option(help="Key or feature of a space, such as meaning.")] = None,
    geometry: Annotated[str | None, typer.Option(help="raw, or one that was fitted; the best without.")] = None,
    base: Annotated[list[str] | None, typer.Option(help="Fine-tunes of this base alone; repeatable.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the models nearest to an indexed one."""
    repo_id = RepoRef(repo_id).repo_id  # what goes into a path is a name and nothing else
    asked: dict[str, Any] = {
        "k": k,
        "min_similarity": min_similarity,
        "space": space,
        "geometry": geometry,
        "base": base,
    }
    with connect(api) as client:
        answer = client.get(f"/v1/models/{repo_id}/neighbors", **asked)
    print_json(answer) if as_json else out.print(render.neighbor_list(answer["neighbors"]))
    if answer["note"]:
        notes.print(answer["note"])


def show(
    repo_id: Annotated[str, typer.Argument(help="A model; a folder's is local/NAME.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a model: its base and how that was found, how far it moved it, and which tokens it promotes."""
    repo_id = RepoRef(repo_id).repo_id
    with connect(api) as client:
        model = client.get(f"/v1/models/{repo_id}")
    print_json(model) if as_json else out.print(render.model(model))


def embed(context: typer.Context) -> None:
    """Compute vectors of folders into a file, with no server at all (see `deltadex embed --help`)."""
    become("workers.embed", context.args)


def evaluate(context: typer.Context) -> None:
    """Measure how well vectors tell a labelled pool apart, beside baselines (see `deltadex evaluate --help`)."""
    become("workers.evaluation.evaluate", context.args)


def study(context: typer.Context) -> None:
    """What the vectors depend on: probes, kinds, layers, dtype, additivity (see `deltadex study --help`)."""
    become("workers.evaluation.study", context.args)


def become(module: str, arguments: Sequence[str]) -> None:
    """Turn this process into a command of the workers', for the app never imports torch."""
    if find_spec("torch") is None:
        raise MissingExtra("No torch: this command needs `pip install 'deltadex[worker]'`.")
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
