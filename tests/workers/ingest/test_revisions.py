"""Revisions of repos on a Hub: the head of the main branch is current, others are history."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.jobs import submissions
from catalog.jobs.quotas import Quota
from catalog.models import history
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.tables import Job, JobState, ModelState, Vector
from catalog.vectors.repository import feed
from tests.support import pico
from tests.support.hub_server import Answer, HubServer, ScriptedHub
from tests.support.pipeline import make_pipeline
from tests.support.private_repos import PRIVATE, make_worker, publish
from workers.hub.client import Hub
from workers.ingest.pipeline import Pipeline

REPO = "maker/branches"


@pytest.fixture
def pipeline(database: Database, pico_base: Path, hub_server: HubServer, tmp_path: Path) -> Pipeline:
    return make_pipeline(database, pico_base, tmp_path, endpoint=hub_server.url)


@pytest.fixture
def commits(hub_server: HubServer, tmp_path: Path) -> dict[str, str]:
    """The heads of `main` and of a branch of another seed, and the commit before that of main."""
    shas = {}
    for name, branch, seed in (("old", "main", 1), ("main", "main", 2), ("branch", "trial", 3)):
        folder = pico.make_adapter(tmp_path / name, seed=seed)
        (folder / "README.md").write_text(f"From {name}.")
        files = {path.name: path for path in folder.iterdir()}
        shas[name] = hub_server.commit(REPO, files, branch=branch)
    return shas


def ingest(database: Database, pipeline: Pipeline, revision: str | None) -> Job:
    job = submissions.submit_repo(database, RepoRef(REPO, revision))
    pipeline.ingest(job.id)
    with database.transaction() as session:
        return session.get_one(Job, job.id)


def current(database: Database) -> tuple[str | None, str, str | None]:
    """The commit, the state and the card of the model."""
    with database.transaction() as session:
        model = models.get(session, REPO)
        return model.revision.sha if model.revision else None, model.state, model.card


@pytest.mark.parametrize("name", ["old", "branch"])
def test_revision_that_is_not_the_head_is_stored_as_history(
    database: Database, pipeline: Pipeline, commits: dict[str, str], name: str
):
    ingest(database, pipeline, None)
    before = current(database)
    with database.transaction() as session:
        seq = feed.last_seq(session)

    job = ingest(database, pipeline, "trial" if name == "branch" else commits[name])

    assert (job.state, job.sha) == (JobState.DONE, commits[name])
    assert current(database) == before == (commits["main"], ModelState.INDEXED, "From main.")
    with database.transaction() as session:
        assert feed.last_seq(session) == seq
    _, [past, main] = history.list_revisions(database, REPO, before=None, limit=10)
    assert [(revision.revision.sha, revision.revision.current) for revision in (past, main)] == [
        (commits[name], False), (commits["main"], True),
    ]  # fmt: skip
    assert all(-1 <= (measured.cosine or -2) < 0.999 for measured in past.measurements)
    assert len(past.measurements) == len(main.measurements)


def test_head_of_main_becomes_current_by_its_sha(database: Database, pipeline: Pipeline, commits: dict[str, str]):
    ingest(database, pipeline, commits["main"])
    assert current(database)[0] == commits["main"]


def test_model_of_which_only_a_branch_was_submitted_is_not_in_the_index(
    database: Database, pipeline: Pipeline, commits: dict[str, str]
):
    assert ingest(database, pipeline, "trial").state == JobState.DONE
    assert current(database) == (None, ModelState.PENDING, None)
    with database.transaction() as session:
        assert feed.last_seq(session) == 0

    ingest(database, pipeline, None)

    assert current(database)[0] == commits["main"]
    _, [main, _] = history.list_revisions(database, REPO, before=None, limit=10)
    assert all(measured.cosine is None for measured in main.measurements)  # a branch precedes nothing


def test_history_is_not_measured_again(database: Database, pipeline: Pipeline, commits: dict[str, str]):
    ingest(database, pipeline, "trial")
    with database.transaction() as session:
        written = session.scalars(select(func.array_agg(Vector.created_at))).one()
    assert ingest(database, pipeline, commits["branch"]).state == JobState.DONE
    with database.transaction() as session:
        assert session.scalars(select(func.array_agg(Vector.created_at))).one() == written


def test_branch_that_main_moves_to_becomes_current(
    database: Database, pipeline: Pipeline, commits: dict[str, str], hub_server: HubServer
):
    ingest(database, pipeline, None)
    ingest(database, pipeline, "trial")
    hub_server._git(
        "--git-dir", str(hub_server.root / "models" / REPO), "update-ref", "refs/heads/main", commits["branch"]
    )

    ingest(database, pipeline, None)

    assert current(database) == (commits["branch"], ModelState.INDEXED, "From branch.")


def test_every_revision_of_a_private_model_becomes_current(
    database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub
):
    worker = make_worker(database, pico_base, tmp_path, scripted_hub)
    publish(scripted_hub, REPO, tmp_path / "mine", PRIVATE)
    scripted_hub.restrict(REPO, "hf_mine")
    quota = Quota("me", 10)
    sealed = worker.tokens.seal(SecretStr("hf_mine"), quota.submitter)

    job = worker.ingest(submissions.submit_repo(database, RepoRef(REPO, "trial"), quota, sealed))

    assert job.state == JobState.DONE
    model = worker.find_model(REPO, Viewer("me"))
    assert model is not None
    assert model.revision is not None
    assert model.revision.sha == scripted_hub.sha


def test_repo_without_a_main_branch_has_no_head(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = Hub(scripted_hub.url, None, tmp_path, timeout=5, max_file_bytes=10**9, max_repo_files=100)
    scripted_hub.answer("/api/models/o/headless/revision/main", Answer(404, {"X-Error-Code": "RevisionNotFound"}))
    assert hub.find_head("o/headless") is None
