"""Functions that store in the catalog, without a worker, what a worker would have stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.repository import access
from catalog.database import Database
from catalog.jobs.repository import claims, jobs, workers
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.tables import Job, Model, ModelState, Revision, Source
from catalog.vectors.repository import feed

BASE = "tiny/base"
SPACE = Space("delta_activations", -1, BASE, "b" * 40, "c" * 64, "float32", "1")
MEANING = Space("delta_meaning", -1, None, None, "c" * 64, "float32", "1+continuations")


def sha(text: str) -> str:
    """The sha of a commit: 40 hexadecimal digits derived from a text."""
    return hashlib.sha1(text.encode()).hexdigest()


def put_revision(session: Session, repo_id: str, commit: str = "one", base: str = BASE) -> Revision:
    model = models.get_or_create(session, repo_id, Source.HUB)
    fields = {"kind": "lora", "base_repo": base, "base_sha": "b" * 40, "evidence": {"declared": base}}
    return models.store_revision(session, model.id, sha(commit), current=True, **fields)


def put(
    database: Database,
    repo_id: str,
    vector: Sequence[float] | np.ndarray,
    *,
    commit: str = "one",
    space: Space = SPACE,
    base: str = BASE,
    no_shift: bool = False,
) -> int:
    """Store a model with its vector; returns the id of the model."""
    values = np.asarray(vector, dtype=np.float32)
    with database.transaction() as session:
        feed.lock_feed(session)
        revision = put_revision(session, repo_id, commit, base)
        row = spaces.ensure(session, space, values.size)
        feed.store(session, row, revision, values, norm=float(np.linalg.norm(values)), no_shift=no_shift)
        models.set_state(session, revision.model_id, ModelState.NO_SHIFT if no_shift else ModelState.INDEXED)
        return revision.model_id


def put_private(
    database: Database,
    repo_id: str,
    vector: Sequence[float] | np.ndarray,
    *submitters: str,
    commit: str = "one",
    space: Space = SPACE,
) -> int:
    """Store a private model that only these submitters may see; returns its id."""
    values = np.asarray(vector, dtype=np.float32)
    with database.transaction() as session:
        feed.lock_feed(session)
        model = models.get_or_create(session, repo_id, Source.HUB, private=True)
        fields = {"kind": "lora", "base_repo": space.base_repo, "base_sha": "b" * 40, "evidence": {}}
        revision = models.store_revision(session, model.id, sha(commit), current=True, **fields)
        row = spaces.ensure(session, space, values.size)
        feed.store(session, row, revision, values, norm=float(np.linalg.norm(values)), no_shift=False)
        models.set_state(session, model.id, ModelState.INDEXED)
        for submitter in submitters:
            access.grant(session, model.id, submitter)
        return model.id


def put_private_job(database: Database, repo_id: str, submitter: str) -> Job:
    with database.transaction() as session:
        model = models.get_or_create(session, repo_id, Source.HUB, private=True)
        return jobs.submit_private(session, model, None, viewer=submitter, token=b"sealed")[0]


def remove(database: Database, model_id: int) -> None:
    with database.transaction() as session:
        feed.remove(session, model_id)


def put_model(database: Database, repo_id: str = "owner/model") -> Model:
    with database.transaction() as session:
        return models.get_or_create(session, repo_id, Source.HUB)


def put_job(database: Database, repo_id: str = "owner/model", hint: str | None = None, base: str | None = None) -> Job:
    with database.transaction() as session:
        model = models.get_or_create(session, repo_id, Source.HUB)
        return jobs.submit(session, model, None, base_hint=hint, base=base)[0]


def put_worker(database: Database) -> int:
    with database.transaction() as session:
        return workers.register(session, "here", 1, "cpu")


def claim(database: Database, job_id: int, worker_id: int, batch: int = 1) -> list[int]:
    with database.transaction() as session:
        return [job.id for job in claims.claim(session, job_id, worker_id, batch)]
