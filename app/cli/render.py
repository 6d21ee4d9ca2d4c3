"""Tables and lines for the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

STATE_STYLES = {"done": "green", "indexed": "green", "failed": "red", "cancelled": "yellow", "no_shift": "yellow"}


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def state(name: str) -> str:
    style = STATE_STYLES.get(name, "cyan")
    return f"[{style}]{name}[/]"


def error(item: dict[str, Any], prefix: str = "") -> str:
    """The code and message of an item's error after a prefix; empty if it has no error."""
    return escape(f"{prefix}{item['error']['code']}: {item['error']['message']}") if item["error"] else ""


def table_of(*columns: str) -> Table:
    """A table that wraps long cells instead of truncating them."""
    table = Table(box=box.SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def jobs(rows: Iterable[dict[str, Any]]) -> Table:
    table = table_of("job", "model", "state", "progress", "attempts", "error")
    for job in rows:
        model = job["repo_id"] + (f" on {job['base']}" if job["base"] else "")
        row = (str(job["id"]), model, state(job["state"]), f"{job['progress']:.0%}", str(job["attempts"]))
        table.add_row(*row, error(job))
    return table


def event(job_event: dict[str, Any]) -> str:
    """An event of a job in one line."""
    time, progress = job_event["at"][11:19], f"{job_event['progress']:.0%}"
    status = f"{state(job_event['state'])} {progress}{error(job_event, '  ')}"
    return f"{time}  {job_event['job']}  {job_event['repo_id']}  {status}"


def history(job: dict[str, Any]) -> Table:
    """The ended attempts at a job."""
    table = table_of("attempt", "worker", "ended", "state", "concurrent jobs", "outcome", "error")
    for attempt in job["history"]:
        if attempt["left_out"]:
            table.add_row(f"{attempt['left_out']} more")
        row = (
            str(attempt["attempt"]),
            attempt["worker"] or "",
            attempt["ended_at"][:19],
            f"{attempt['state']} {attempt['progress']:.0%}",
        )
        table.add_row(*row, str(attempt["concurrent_jobs"]), attempt["outcome"], escape(attempt["code"] or ""))
    return table


def queues(reports: Iterable[dict[str, Any]]) -> Table:
    table = table_of("queue", "state", "queued", "running")
    for report in reports:
        queue_state = "drained" if report["drained"] else "paused" if report["paused"] else "open"
        table.add_row(report["name"], queue_state, str(report["queued"]), str(report["running"]))
    return table


def workers(rows: Iterable[dict[str, Any]]) -> Table:
    table = table_of("worker", "device", "bases", "memory", "activity", "jobs")
    for worker in rows:
        bases = ", ".join(f"{base['repo_id']} {base['bytes'] / 2**20:,.0f} MB" for base in worker["bases"])
        memory = ", ".join(f"{kind} {used / 2**20:,.0f} MB" for kind, used in worker["memory"].items())
        job_ids = " ".join(str(job["id"]) for job in worker["jobs"])
        address = f"{worker['host']}:{worker['pid']}"
        table.add_row(address, worker["device"], bases, memory, worker["activity"] or "", job_ids)
    return table


def _address(worker: dict[str, Any]) -> str:
    """The host and process id of a worker, which only admins see, or else its id."""
    return f"{worker['host']}:{worker['pid']}" if worker["host"] else f"worker {worker['id']}"


def status(stats: dict[str, Any], readiness: dict[str, Any], recent: Iterable[dict[str, Any]]) -> RenderableType:
    summary = Table.grid(padding=(0, 2))
    for name, check in readiness["checks"].items():
        summary.add_row(name, "[green]ok[/]" if check["ok"] else "[red]failed[/]", check["detail"])
    workers = ", ".join(f"{_address(worker)} ({worker['device']})" for worker in stats["workers"])
    summary.add_row("workers", str(len(stats["workers"])), workers or "no live worker: jobs wait")
    for kind in ("models", "jobs"):
        counts = "  ".join(f"{state(name)} {count}" for name, count in stats[kind].items() if count)
        summary.add_row(kind, str(sum(stats[kind].values())), counts)
    paths = "  ".join(f"{path} {count}" for path, count in stats["bases"].items())
    summary.add_row("bases", str(sum(stats["bases"].values())), paths)
    return Group(summary, jobs(recent))


def neighbors(answers: Sequence[tuple[str, list[dict[str, Any]]]], k: int) -> Table:
    """One row per model: its k nearest neighbors with their cosines. The common prefix of all names is in the title."""
    names = [repo_id for repo_id, _ in answers]
    names += [neighbor["repo_id"] for _, neighbors in answers for neighbor in neighbors]
    prefix = re.match(r"(.*[/-])?", os.path.commonprefix(names)).group()  # type: ignore[union-attr]  # noqa: RUF071
    table = Table(title=f"{prefix}...", box=box.SIMPLE, title_justify="left")
    for column in ("model", *(f"neighbor {rank}" for rank in range(1, k + 1))):
        table.add_column(column, no_wrap=True)
    for repo_id, nearest in answers:
        cells = (
            f"{neighbor['repo_id'].removeprefix(prefix)} [dim]{neighbor['similarity']:.3f}[/]" for neighbor in nearest
        )
        table.add_row(repo_id.removeprefix(prefix), *cells)
    return table


def underlined(text: str, span: tuple[int, int]) -> str:
    """A text in one line, and below it carets under a span, which is given as its start and length."""
    line = "".join(" " if character.isspace() else character for character in text)
    start, end = span[0], span[0] + span[1]
    return f"  {line}\n  {' ' * cell_len(line[:start])}{'^' * max(1, cell_len(line[start:end]))}"


def neighbor_list(rows: Iterable[dict[str, Any]]) -> Table:
    """The neighbors of one model, one per row."""
    table = table_of("model", "cosine", "kind", "base", "revision")
    for neighbor in rows:
        row = (neighbor["repo_id"], f"{neighbor['similarity']:.4f}", neighbor["kind"] or "", neighbor["base"] or "")
        table.add_row(*row, (neighbor["sha"] or "")[:12])
    return table


def curation(said: dict[str, Any]) -> Table:
    """What the team says about a model: one row for each tag, note and alias, with its author and date."""
    table = table_of("team", "", "author", "written")
    rows = [("alias", f"alias/{alias['alias']}", alias) for alias in said["aliases"]]
    rows += [("tag", tag["tag"], tag) for tag in said["team_tags"]]
    rows += [("note", said["note"]["text"], said["note"])] if said["note"] else []
    for kind, text, written in rows:
        table.add_row(kind, escape(text), written["author"], written["written_at"][:10])
    return table


def model(detail: dict[str, Any]) -> RenderableType:
    """A model, with what the team says about it, the norm of its vector in each space, and the tokens that it makes
    more and less likely.
    """
    properties = Table.grid(padding=(0, 2))
    properties.add_row("model", f"{detail['repo_id']} {state(detail['state'])}")
    if revision := detail["revision"]:
        properties.add_row("revision", f"{revision['sha'][:12]} ({revision['kind']})")
        _add_base(properties, revision["base"], detail["base_proof"])
        metadata = detail["metadata"]
        for field in ("license", "downloads", "likes"):
            if metadata[field] is not None:
                properties.add_row(field, escape(str(metadata[field])))
        for field in ("tags", "datasets", "languages"):
            if metadata[field]:
                properties.add_row(field, escape(" ".join(metadata[field])))
        for note in revision["notes"]:
            properties.add_row("note", escape(note))
    norms = table_of("feature", "norm", "noise floor")
    tokens = Table.grid(padding=(0, 2))
    for measurement in detail["measurements"]:
        space, explanation = measurement["space"], measurement["explanation"]
        mark = " [yellow]no shift[/]" if measurement["no_shift"] else ""
        norms.add_row(space["feature"], f"{measurement['norm']:.4g}{mark}", f"{measurement['noise_floor']:.2g}")
        for side, title in (("promoted", "promotes"), ("suppressed", "suppresses")):
            if explanation:
                tokens.add_row(title, _tokens(explanation[side]))
    said = detail["curation"]
    team = [curation(said)] if said["team_tags"] or said["aliases"] or said["note"] else []
    return Group(properties, *team, norms, tokens)


def _add_base(properties: Table, base: dict[str, Any], proof: dict[str, Any] | None) -> None:
    """Add rows with a model's base, how it was determined and how it runs."""
    evidence = base["evidence"]
    properties.add_row("base", f"{base['repo_id']} @ {base['sha'][:12]}, found by: {evidence.get('source')}")
    if evidence.get("submitted_base") is not None:
        properties.add_row("submitted", escape(str(evidence["submitted_base"])))
    properties.add_row("declared", escape(str(evidence.get("declared"))))
    if proof:
        error = "" if proof["error"] is None else f" (relative error {proof['error']:.1e})"
        properties.add_row("base runs", escape(f"{proof['path']}{error} {proof['reason']}".strip()))
    for candidate in evidence.get("tried", []):
        properties.add_row("tried", escape(f"{candidate.get('candidate')}: {candidate.get('outcome')}"))


def _tokens(explained: Iterable[dict[str, Any]]) -> str:
    return escape(" ".join(repr(token["token"]) for token in explained))
