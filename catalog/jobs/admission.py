"""Decides whether a claimed job still has to be measured, once the worker knows the commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from catalog.errors import EncoderContractMismatch, RevisionNotFound
from catalog.jobs import private_models
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.submissions import follow_up
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.spaces.contract import Space, describe_contract
from catalog.tables import ACTIVE_REINDEX, Job, Model, ModelState, Reindex
from catalog.vectors.repository import feed, vectors


class Visibility(StrEnum):
    """Who may see the model that a job measures."""

    UNCHANGED = "unchanged"  # read without a user's token: the viewers of the job's model stay the same
    PRIVATE = "private"  # the repo is readable only with the user's token
    UNDECIDED = "undecided"  # the repo is public, but its base is not known yet: private until it is
    PUBLIC = "public"  # read with a token, but the repo and its base are both public


class Outcome(StrEnum):
    PROCEED = "proceed"
    DONE = "done"  # the commit already has vectors; the job is finished
    OBSOLETE = "obsolete"  # the result is no longer needed; the job is finished or cancelled
    LOST = "lost"  # this worker no longer has the claim


@dataclass(frozen=True)
class Admission:
    """The outcome and the job, which may have been reassigned to the private or the public model of its repo."""

    outcome: Outcome
    job: Job

    @property
    def proceeds(self) -> bool:
        return self.outcome is Outcome.PROCEED


def becomes_current(model: Model, *, is_head: bool) -> bool:
    """Whether a measured revision becomes the model's current one: of a public repo only the head of its main branch,
    since anyone may name a revision; of a private model, which only keys with access can submit, any.
    """
    return is_head or model.private


def admit(
    session: Session,
    job: Job,
    worker_id: int,
    sha: str,
    contract: Sequence[Space],
    *,
    is_head: bool = True,
    visibility: Visibility = Visibility.UNCHANGED,
    metadata: Metadata | None = None,
) -> Admission:
    """Decide whether a worker has to measure the commit `sha` in the spaces `contract` for its job, and end the job if
    it does not. `is_head`: the commit is the head of the repo's main branch, or the content of a folder. `metadata` is
    the Hub's current metadata of the repo.

    Raises `Quarantined` if it proceeds and the commit is quarantined. For the job of a reindex, raises
    `EncoderContractMismatch`, and `RevisionNotFound` if the content of a folder has changed.
    """
    admission = _decide(session, job, worker_id, sha, contract, is_head, visibility, metadata)
    if admission.proceeds:
        key = QuarantineKey.of_repo(job.model.repo_id, sha, job.requested_base)
        quarantine.check(session, key, job.model.repo_id)
        attempts.record_sha(session, job.id, worker_id, sha)
    return admission


def _decide(
    session: Session,
    job: Job,
    worker_id: int,
    sha: str,
    contract: Sequence[Space],
    is_head: bool,
    visibility: Visibility,
    metadata: Metadata | None,
) -> Admission:
    if visibility is not Visibility.UNCHANGED:
        feed.lock_feed(session)  # before any row of the model, in the same order as when vectors are stored
        if visibility is not Visibility.PUBLIC and _finish_if_public(session, job, worker_id, sha, contract):
            return Admission(Outcome.DONE, job)
        private = visibility is not Visibility.PUBLIC  # regardless of what an earlier attempt decided
        reassigned = private_models.reassign_job(session, job, worker_id, private=private)
        if reassigned is None:
            return Admission(Outcome.LOST, job)
        job = reassigned
    if job.remeasures:
        obsolete = _finish_if_obsolete(session, job, worker_id, sha, contract)
        return Admission(Outcome.OBSOLETE if obsolete else Outcome.PROCEED, job)
    done = visibility is not Visibility.UNDECIDED and _finish_if_measured(
        session, job, worker_id, sha, contract, becomes_current(job.model, is_head=is_head), metadata
    )
    return Admission(Outcome.DONE if done else Outcome.PROCEED, job)


def _finish_if_public(session: Session, job: Job, worker_id: int, sha: str, contract: Sequence[Space]) -> bool:
    """Finish the job if its commit is already indexed as a public model: reading it with a token hides nothing."""
    model = models.find(session, job.model.repo_id)
    if model is None or model.state == ModelState.REMOVED:
        return False
    revision = vectors.find_embedded_revision(session, model.id, sha, contract, job.requested_base)
    if revision is None or not revision.current:
        return False
    reassigned = private_models.reassign_job(session, job, worker_id, private=False)
    if reassigned is not None and attempts.finish(session, job.id, worker_id, sha):
        private_models.finish_private_job(session, reassigned)
    return True


def _finish_if_obsolete(session: Session, job: Job, worker_id: int, sha: str, contract: Sequence[Space]) -> bool:
    """End the job if its reindex no longer needs the result."""
    reindex = session.get_one(Reindex, job.reindex_id)
    if reindex.state not in ACTIVE_REINDEX:
        jobs.cancel(session, job.id)
        return True
    revision = models.find_current_revision(session, job.model_id)
    if revision is None or revision.sha != job.requested_revision:  # the newer revision will be backfilled
        attempts.finish(session, job.id, worker_id, job.requested_revision or sha)
        return True
    if reindex.contract != describe_contract(contract):
        raise EncoderContractMismatch(
            f"The contract of reindex {reindex.id} differs from this worker's. Run all workers with the same version "
            "and settings, then retry the job."
        )
    if sha != job.requested_revision:
        raise RevisionNotFound(
            f"The files in {job.model.folder} have changed since it was indexed. Add it again with `deltadex add`."
        )
    return False


def _finish_if_measured(
    session: Session,
    job: Job,
    worker_id: int,
    sha: str,
    contract: Sequence[Space],
    current: bool,
    metadata: Metadata | None,
) -> bool:
    """Finish the job if its commit already has vectors under this contract, on the base that the job names. A commit
    that is to become `current` again is measured again, so that its state, card and clusters follow, too.
    """
    if job.model.state == ModelState.REMOVED:  # its metadata is cleared and its vectors are tombstones: measure again
        return False
    revision = vectors.find_embedded_revision(session, job.model_id, sha, contract, job.requested_base)
    if revision is None or (current and not revision.current):
        return False
    feed.lock_feed(session)
    if not attempts.finish(session, job.id, worker_id, sha):
        return True
    private_models.finish_private_job(session, job)
    if current and metadata is not None:
        models.update_metadata(session, job.model_id, metadata)
    follow_up(session, job, sha)
    return True
