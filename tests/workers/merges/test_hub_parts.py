"""Parts from the Hub: what of it may be handed on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.merges import service as merge_service
from catalog.merges.methods import Blend
from catalog.tables import Job, JobState
from tests.support.hub_server import ScriptedHub
from tests.support.private_repos import GATED, PRIVATE, Worker, make_worker, publish


@pytest.fixture
def worker(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Worker:
    return make_worker(database, pico_base, tmp_path, scripted_hub)


def merged(worker: Worker, hub: ScriptedHub, tmp_path: Path, told: Mapping[str, object]) -> Job:
    """The job of a merge of two repos that the service reads, the second of which the Hub describes so."""
    for number, (repo_id, more) in enumerate({"o/open": {}, "o/some": told}.items()):
        publish(hub, repo_id, tmp_path / repo_id, more, seed=number)
        assert worker.read(repo_id).state == JobState.DONE
    blend = Blend({"o/open": 1.0, "o/some": 1e-6})
    return worker.ingest(merge_service.ask(worker.database, blend, None, Quota("anonymous", 100), PUBLIC)[1])


def test_public_repos_are_merged(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    assert merged(worker, scripted_hub, tmp_path, {}).state == JobState.DONE


@pytest.mark.parametrize("told", [PRIVATE, GATED])
def test_what_the_service_alone_may_read_is_not_handed_on(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path, told: Mapping[str, object]
):
    job = merged(worker, scripted_hub, tmp_path, told)
    assert (job.state, job.error_code) == (JobState.FAILED, "merge_incompatible")
    assert (job.error_message or "").startswith("The files of o/some are gated or private on the Hub")
