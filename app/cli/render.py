"""Tables for people."""

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


def error(found: dict[str, Any], before: str = "") -> str:
    """The code and the sentence of what failed, with something before them; empty where nothing failed."""
    return escape(f"{before}{found['error']['code']}: {found['error']['message']}") if found["error"] else ""


def table_of(*columns: str) -> Table:
    """A table that breaks what is too long for its column instead of hiding it."""
    table = Table(box=box.SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def jobs(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("job", "model", "state", "progress", "attempts", "error")
    for job in found:
        row = (str(job["id"]), job["repo_id"], state(job["state"]), f"{job['progress']:.0%}", str(job["attempts"]))
        table.add_row(*row, error(job))
    return table


def event(told: dict[str, Any]) -> str:
    """One line."""
    at = told["at"][11:19]  # hours, minutes, seconds
    return f"{at}  {told['job']}  {told['repo_id']}  {state(told['state'])} {told['progress']:.0%}{error(told, '  ')}"


def history(job: dict[str, Any]) -> Table:
    """How each attempt at a job ended."""
    table = table_of("attempt", "worker", "ended", "at", "beside", "outcome", "error")
    for each in job["history"]:
        row = (
            str(each["attempt"]),
            each["worker"] or "",
            each["ended_at"][:19],
            f"{each['state']} {each['progress']:.0%}",
        )
        table.add_row(*row, str(each["beside"]), each["outcome"], escape(each["code"] or ""))
    return table


def queues(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("queue", "state", "queued", "running")
    for each in found:
        standing = "drained" if each["drained"] else "paused" if each["paused"] else "open"
        table.add_row(each["name"], standing, str(each["queued"]), str(each["running"]))
    return table


def workers(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("worker", "device", "bases", "memory", "does", "jobs")
    for each in found:
        bases = ", ".join(f"{base['repo_id']} {base['bytes'] / 2**20:,.0f} MB" for base in each["bases"])
        memory = ", ".join(f"{kind} {used / 2**20:,.0f} MB" for kind, used in each["memory"].items())
        held = " ".join(str(job["id"]) for job in each["jobs"])
        table.add_row(f"{each['host']}:{each['pid']}", each["device"], bases, memory, each["activity"] or "", held)
    return table


def status(stats: dict[str, Any], readiness: dict[str, Any], recent: Iterable[dict[str, Any]]) -> RenderableType:
    summary = Table.grid(padding=(0, 2))
    for name, check in readiness["checks"].items():
        summary.add_row(name, "[green]ok[/]" if check["ok"] else "[red]missing[/]", check["detail"])
    workers = ", ".join(f"{each['host']}:{each['pid']} ({each['device']})" for each in stats["workers"])
    summary.add_row("workers", str(len(stats["workers"])), workers or "none alive: jobs wait")
    for kind in ("models", "jobs"):
        counts = "  ".join(f"{state(name)} {count}" for name, count in stats[kind].items() if count)
        summary.add_row(kind, str(sum(stats[kind].values())), counts)
    return Group(summary, jobs(recent))


def neighbors(answers: Sequence[tuple[str, list[dict[str, Any]]]], k: int) -> Table:
    """One row a model: its k nearest with their cosines. What all the names start with stands in the title alone."""
    names = [repo_id for repo_id, _ in answers] + [each["repo_id"] for _, found in answers for each in found]
    start = re.match(r"(.*[/-])?", os.path.commonprefix(names)).group()  # type: ignore[union-attr]  # noqa: RUF071
    table = Table(title=f"{start}...", box=box.SIMPLE, title_justify="left")
    for column in ("model", *(f"neighbour {rank}" for rank in range(1, k + 1))):
        table.add_column(column, no_wrap=True)
    for repo_id, found in answers:
        nearest = (f"{each['repo_id'].removeprefix(start)} [dim]{each['similarity']:.3f}[/]" for each in found)
        table.add_row(repo_id.removeprefix(start), *nearest)
    return table


def pointed_at(text: str, place: tuple[int, int]) -> str:
    """A text in one line, and under it marks where it is talked about: `place` is where that begins and its length."""
    line = "".join(" " if each.isspace() else each for each in text)
    start, end = place[0], place[0] + place[1]
    return f"  {line}\n  {' ' * cell_len(line[:start])}{'^' * max(1, cell_len(line[start:end]))}"


def neighbor_list(found: Iterable[dict[str, Any]]) -> Table:
    """The neighbours of one model, one a row."""
    table = table_of("model", "cosine", "kind", "base", "revision")
    for each in found:
        row = (each["repo_id"], f"{each['similarity']:.4f}", each["kind"] or "", each["base"] or "")
        table.add_row(*row, (each["sha"] or "")[:12])
    return table


def model(found: dict[str, Any]) -> RenderableType:
    """A model, and for each space how far it moved its base and which tokens that promotes and suppresses."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("model", f"{found['repo_id']} {state(found['state'])}")
    if revision := found["revision"]:
        base = revision["base"]
        facts.add_row("revision", f"{revision['sha'][:12]} ({revision['kind']})")
        evidence = base["evidence"]
        facts.add_row("base", f"{base['repo_id']} @ {base['sha'][:12]}, found by: {evidence.get('source')}")
        facts.add_row("declared", escape(str(evidence.get("declared"))))
        told = found["metadata"]
        for title in ("licence", "downloads", "likes"):
            if told[title] is not None:
                facts.add_row(title, escape(str(told[title])))
        for title in ("tags", "datasets", "languages"):
            if told[title]:
                facts.add_row(title, escape(" ".join(told[title])))
        for each in evidence.get("tried", []):
            facts.add_row("tried", escape(f"{each.get('candidate')}: {each.get('outcome')}"))
    shifts = table_of("feature", "norm", "noise floor")
    tokens = Table.grid(padding=(0, 2))
    for each in found["embeddings"]:
        mark = " [yellow]no shift[/]" if each["no_shift"] else ""
        shifts.add_row(each["space"]["feature"], f"{each['norm']:.4g}{mark}", f"{each['noise_floor']:.2g}")
        for side, title in (("promoted", "promotes"), ("suppressed", "suppresses")):
            if each["explanation"]:
                tokens.add_row(title, _tokens(each["explanation"][side]))
    return Group(facts, shifts, tokens)


def _tokens(scored: Iterable[dict[str, Any]]) -> str:
    return escape(" ".join(repr(each["token"]) for each in scored))
