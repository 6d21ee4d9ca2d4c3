"""Parts from the Hub: only public ones may be merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.merges import service as merge_service
from catalog.merges.methods import MergeSpec
from catalog.tables import Job, JobState
from tests.support.hub_server import ScriptedHub
from tests.support.private_repos import GATED, PRIVATE, Worker, make_worker, publish


@pytest.fixture
def worker(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Worker:
    return make_worker(database, pico_base, tmp_path, scripted_hub)


def merged(worker: Worker, hub: ScriptedHub, tmp_path: Path, metadata: Mapping[str, object]) -> Job:
    """The job of a merge of two repos that the service can read; `metadata` is that of the second on the Hub."""
    for number, (repo_id, fields) in enumerate({"o/open": {}, "o/some": metadata}.items()):
        publish(hub, repo_id, tmp_path / repo_id, fields, seed=number)
        assert worker.submit_and_ingest(repo_id).state == JobState.DONE
    spec = MergeSpec({"o/open": 1.0, "o/some": 1e-6})
    return worker.ingest(merge_service.create(worker.database, spec, None, Quota("anonymous", 100), PUBLIC)[1])


def test_public_repos_are_merged(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    assert merged(worker, scripted_hub, tmp_path, {}).state == JobState.DONE


@pytest.mark.parametrize("metadata", [PRIVATE, GATED])
def test_gated_and_private_parts_are_refused(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path, metadata: Mapping[str, object]
):
    job = merged(worker, scripted_hub, tmp_path, metadata)
    assert (job.state, job.error_code) == (JobState.FAILED, "merge_incompatible")
    assert (job.error_message or "").startswith("o/some is gated or private on the Hub")
