"""Private and gated repos, and a worker that ingests them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import func, select, update

from catalog.auth.hub_tokens import TokenBox
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.tables import Job, Model
from tests.support import pico
from tests.support.hub_server import ScriptedHub
from tests.support.pipeline import assemble
from workers.ingest.claimer import BatchPolicy
from workers.ingest.fetcher import Fetcher
from workers.ingest.pipeline import Pipeline

PRIVATE, GATED = {"private": True, "gated": False}, {"private": False, "gated": "auto"}


@dataclass
class Worker:
    database: Database
    pipeline: Pipeline
    tokens: TokenBox
    fetcher: Fetcher
    worker_id: int

    def submit(self, repo_id: str, quota: Quota | None = None, token: str | None = None) -> Job:
        sealed = self.tokens.seal(SecretStr(token), quota.submitter) if token and quota else None
        return submit_repo(self.database, RepoRef(repo_id), quota, sealed)

    def ingest(self, job: Job) -> Job:
        """Run one attempt of the job, and return the job."""
        with self.database.transaction() as session:
            session.execute(update(Job).values(available_at=func.now()))  # skip the delay after a failed attempt
        self.pipeline.ingest(job.id)
        return self.get_job(job.id)

    def get_job(self, job_id: int) -> Job:
        with self.database.transaction() as session:
            return jobs.get(session, job_id, ADMIN)

    def submit_and_ingest(self, repo_id: str, quota: Quota | None = None, token: str | None = None) -> Job:
        return self.ingest(self.submit(repo_id, quota, token))

    def find_model(self, repo_id: str, viewer: Viewer = PUBLIC) -> Model | None:
        with self.database.transaction() as session:
            return models.find(session, repo_id, viewer)

    def private_flags(self, repo_id: str) -> list[bool]:
        """The `private` columns of the rows of a repo, in order."""
        with self.database.transaction() as session:
            return sorted(session.scalars(select(Model.private).where(Model.repo_id == repo_id)))


def make_worker(
    database: Database, bases: Path, tmp_path: Path, scripted_hub: ScriptedHub, hub_token: str | None = None
) -> Worker:
    tokens = TokenBox(SecretStr(Fernet.generate_key().decode()))
    hub = {"endpoint": scripted_hub.url, "hub_token": hub_token, "timeout": 5}
    parts = assemble(database, bases, tmp_path, **hub, tokens=tokens, batching=BatchPolicy())
    return Worker(database, parts.pipeline, tokens, parts.fetcher, parts.worker_id)


def publish(hub: ScriptedHub, repo_id: str, folder: Path, info: Mapping[str, object], **options) -> None:
    """Publish an adapter. `info` are fields of the repo's listing, `options` those of `make_adapter`."""
    adapter = pico.make_adapter(folder, **options)
    hub.publish(repo_id, {path.name: path.read_bytes() for path in adapter.iterdir()}, info=info)
