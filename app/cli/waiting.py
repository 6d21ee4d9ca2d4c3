"""Waiting for jobs, with a progress bar for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cli.console import notes
from app.cli.render import progress_bar
from app.client import FINISHED, Client


def wait_for_jobs(client: Client, labels: Mapping[int, str]) -> None:
    """Wait until all jobs have ended, showing the progress of each under its label."""
    with progress_bar(notes) as bar:
        lines = {job_id: bar.add_task(f"{label} queued", total=100) for job_id, label in labels.items()}

        def show(job: dict[str, Any]) -> None:
            percent = 100 if job["state"] in FINISHED else 100 * job["progress"]
            bar.update(lines[job["id"]], completed=percent, description=f"{labels[job['id']]} {job['state']}")

        client.wait_for(labels, show)
