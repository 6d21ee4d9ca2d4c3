"""Bases of fine-tunes on a Hub, from the submission to the stored vector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from catalog.database import Database
from catalog.jobs import submissions
from catalog.jobs.repository import jobs
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.reindexes import cutover
from catalog.reindexes.service import create
from catalog.spaces import repository as spaces
from catalog.spaces.probes import load_probes
from catalog.tables import Job, ReindexState
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import StoredEncoding
from tests.support import pico
from tests.support.hub_server import HubServer
from tests.support.pipeline import make_pipeline
from tests.support.reindexes import EVERYTHING, EXACT_BYTES, get_reindex, list_jobs
from workers.bases.residents import MeasurementSettings
from workers.ingest.pipeline import Pipeline
from workers.maintenance.reindexer import Reindexer

FEATURE = ("delta_activations",)


@pytest.fixture
def pipeline(database: Database, hub_server: HubServer, tmp_path: Path) -> Pipeline:
    return make_pipeline(database, tmp_path / "bases", tmp_path, endpoint=hub_server.url)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return pico.make_adapter(tmp_path / "adapter", base="revised/llama")


@pytest.fixture
def commits(hub_server: HubServer, tmp_path: Path) -> tuple[str, str]:
    """Two commits of `revised/llama`, of different weights."""
    old = hub_server.commit_folder("revised/llama", pico.make_base(tmp_path / "old", seed=1))
    return old, hub_server.commit_folder("revised/llama", pico.make_base(tmp_path / "new", seed=2))


def commit(hub: HubServer, repo: str, folder: Path, **settings: object) -> None:
    """Commit an adapter with other settings in its config."""
    config = json.loads((folder / "adapter_config.json").read_text()) | settings
    files = {"adapter_model.safetensors": folder / "adapter_model.safetensors"}
    hub.commit(repo, {**files, "adapter_config.json": json.dumps(config).encode()})


def ingest(database: Database, pipeline: Pipeline, repo: str) -> Job:
    job = submissions.submit_repo(database, RepoRef(repo))
    pipeline.ingest(job.id)
    with database.transaction() as session:
        return jobs.get(session, job.id)


def stored(database: Database, repo: str) -> StoredEncoding:
    with database.transaction() as session:
        return vectors.get_encoding(session, repo, features=FEATURE)


def test_declared_revision_has_its_own_space_and_leaves_the_serving_one_to_others(
    database: Database, pipeline: Pipeline, hub_server: HubServer, adapter: Path, commits: tuple[str, str]
):
    old, new = commits
    commit(hub_server, "tuned/at-revision", adapter, revision=old)
    commit(hub_server, "tuned/at-newest", adapter, revision=None)
    for repo in ("tuned/at-revision", "tuned/at-newest"):
        ingest(database, pipeline, repo)

    at_revision, at_newest = stored(database, "tuned/at-revision"), stored(database, "tuned/at-newest")

    assert (at_revision.revision.base_sha, at_revision.space.base_sha, at_revision.space.serving) == (old, old, False)
    assert (at_newest.revision.base_sha, at_newest.space.base_sha, at_newest.space.serving) == (new, new, True)
    assert not np.allclose(at_revision.vector, at_newest.vector, rtol=1e-2)
    with database.transaction() as session:
        assert spaces.pinned_commit(session, "revised/llama") == new


def test_reindex_measures_a_declared_revision_into_its_own_space(
    database: Database, pipeline: Pipeline, hub_server: HubServer, adapter: Path, commits: tuple[str, str]
):
    commit(hub_server, "tuned/at-revision", adapter, revision=commits[0])
    commit(hub_server, "tuned/at-newest", adapter, revision=None)
    for repo in ("tuned/at-revision", "tuned/at-newest"):
        ingest(database, pipeline, repo)
    before = stored(database, "tuned/at-revision")
    reindex_id = create(database, EVERYTHING).id
    contract = MeasurementSettings(load_probes()).spaces()
    reindexer = Reindexer(database, contract, max_queued=1_000, exact_bytes=EXACT_BYTES, readiness_interval=0)
    for _ in range(20):
        reindexer.step()
        for job in list_jobs(database, reindex_id):
            pipeline.ingest(job.id)
        if get_reindex(database, reindex_id).state == ReindexState.READY:
            break

    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)

    at_revision, at_newest = stored(database, "tuned/at-revision"), stored(database, "tuned/at-newest")
    assert (at_newest.space.edition, at_newest.space.serving) == (reindex_id, True)
    assert (at_revision.space.key, at_revision.revision.base_sha) == (before.space.key, commits[0])
    np.testing.assert_allclose(at_revision.vector, before.vector, rtol=1e-3, atol=1e-5)


def test_vector_at_a_declared_revision_is_that_of_the_same_base_in_a_folder(
    database: Database,
    pipeline: Pipeline,
    hub_server: HubServer,
    adapter: Path,
    commits: tuple[str, str],
    tmp_path: Path,
):
    commit(hub_server, "tuned/at-revision", adapter, revision=commits[0])
    ingest(database, pipeline, "tuned/at-revision")
    pico.make_base(tmp_path / "bases" / "revised/folder", seed=1)
    local = pico.make_adapter(tmp_path / "local", base="revised/folder")
    pipeline.ingest(submissions.submit_folder(database, local).id)
    expected = stored(database, "local/local").vector
    vector = stored(database, "tuned/at-revision").vector
    assert np.linalg.norm(vector - expected) <= 1e-4 * np.linalg.norm(expected)


def test_missing_revision_is_noted_with_the_model(
    database: Database, pipeline: Pipeline, hub_server: HubServer, adapter: Path, commits: tuple[str, str]
):
    commit(hub_server, "tuned/gone", adapter, revision="unsloth")
    ingest(database, pipeline, "tuned/gone")
    with database.transaction() as session:
        revision = models.get(session, "tuned/gone").revision
        assert revision is not None
        assert revision.base_sha == commits[1]
        assert revision.facts is not None
        assert "has no revision 'unsloth'" in revision.facts["notes"][0]


def test_base_of_a_full_model_is_read_from_its_config(
    database: Database, pipeline: Pipeline, hub_server: HubServer, commits: tuple[str, str], tmp_path: Path
):
    folder = pico.make_base(tmp_path / "full", seed=3)
    config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": "revised/llama"}
    (folder / "config.json").write_text(json.dumps(config))
    hub_server.commit_folder("tuned/full", folder)
    ingest(database, pipeline, "tuned/full")
    revision = stored(database, "tuned/full").revision
    assert (revision.base_repo, revision.base_evidence["source"]) == ("revised/llama", "config")


def test_error_for_a_full_model_without_a_base_says_what_to_do(
    database: Database, pipeline: Pipeline, hub_server: HubServer, tmp_path: Path
):
    folder = pico.make_base(tmp_path / "full", seed=3)
    hub_server.commit_folder("tuned/nameless", folder)
    job = ingest(database, pipeline, "tuned/nameless")
    assert job.error_code == "base_unresolved"
    assert "the model card names no base; config.json names no base" in (job.error_message or "")
    assert "Write `base_model: OWNER/NAME`" in (job.error_message or "")


def test_base_in_use_is_found_by_its_weights(
    database: Database, pipeline: Pipeline, hub_server: HubServer, adapter: Path, commits: tuple[str, str]
):
    commit(hub_server, "tuned/plain", adapter)
    ingest(database, pipeline, "tuned/plain")
    with database.transaction() as session:
        revision = models.get(session, "tuned/plain").revision
        assert revision is not None
        revision.base_evidence = {**revision.base_evidence, "weights": "f" * 64}
    with database.transaction() as session:
        assert spaces.find_base_by_weights(session, "f" * 64) == "revised/llama"
        assert spaces.find_base_by_weights(session, "e" * 64) is None
