"""Waiting for jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cli.console import notes
from app.cli.render import progress_bar
from app.client import OVER, Client


def wait_for_jobs(client: Client, labels: Mapping[int, str]) -> None:
    """Wait until each job is over, showing its progress in a line that begins with its label."""
    with progress_bar(notes) as bar:
        lines = {job: bar.add_task(f"{label} queued", total=100) for job, label in labels.items()}

        def show(job: dict[str, Any]) -> None:
            done = 100 if job["state"] in OVER else 100 * job["progress"]
            bar.update(lines[job["id"]], completed=done, description=f"{labels[job['id']]} {job['state']}")

        client.wait_for(labels, show)
