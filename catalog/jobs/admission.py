"""Whether a running job still has something to measure, decided once a worker knows which commit it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from catalog.errors import ContractDiffers, RevisionNotFound
from catalog.jobs import private_models
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.submissions import follow_up
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.spaces.contract import Space, contract_told
from catalog.tables import ACTIVE_REINDEX, Job, ModelState, Reindex
from catalog.vectors.repository import feed, vectors


class Visibility(StrEnum):
    """Who may see what a job is about."""

    UNCHANGED = "unchanged"  # read without a user's token: whoever sees the job's model
    PRIVATE = "private"  # read with a token, and not for everybody
    UNDECIDED = "undecided"  # read with a token and for everybody, unless its base is not: private until that is known
    PUBLIC = "public"  # read with a token, which neither the repo nor its base needed


class Outcome(StrEnum):
    PROCEED = "proceed"
    DONE = "done"  # that commit has its vectors already, and the job has ended with it
    OBSOLETE = "obsolete"  # nobody wants the result any more, and the job has ended
    LOST = "lost"  # the job is not this worker's any more


@dataclass(frozen=True)
class Admission:
    """The outcome for a job, which may be about another model now: the private or the public one of its repo."""

    outcome: Outcome
    job: Job

    @property
    def proceeds(self) -> bool:
        return self.outcome is Outcome.PROCEED


def admit(
    session: Session,
    job: Job,
    worker_id: int,
    sha: str,
    contract: Sequence[Space],
    *,
    visibility: Visibility = Visibility.UNCHANGED,
    metadata: Metadata | None = None,
) -> Admission:
    """Decide whether a worker that measures the spaces `contract` is to measure the commit `sha` for its job; end the
    job where it is not. What the Hub says of the repo now is `metadata`.

    For a job of a reindex, raises `ContractDiffers`, and `RevisionNotFound` where a folder holds something else by now.
    """
    if visibility is not Visibility.UNCHANGED:
        feed.lock_feed(session)  # before any row of the model: whoever stores has it first, too
        if visibility is not Visibility.PUBLIC and _ends_as_public(session, job, worker_id, sha, contract):
            return Admission(Outcome.DONE, job)
        private = visibility is not Visibility.PUBLIC  # whatever an earlier attempt found
        assigned = private_models.assign(session, job, worker_id, private=private)
        if assigned is None:
            return Admission(Outcome.LOST, job)
        job = assigned
    if job.measures_anew:
        obsolete = _ends_as_obsolete(session, job, worker_id, sha, contract)
        return Admission(Outcome.OBSOLETE if obsolete else Outcome.PROCEED, job)
    done = visibility is not Visibility.UNDECIDED and _ends_as_done(session, job, worker_id, sha, contract, metadata)
    return Admission(Outcome.DONE if done else Outcome.PROCEED, job)


def _ends_as_public(session: Session, job: Job, worker_id: int, sha: str, contract: Sequence[Space]) -> bool:
    """A commit that everybody can see as it is stays so, whoever reads it again."""
    model = models.find(session, job.model.repo_id)
    if model is None or model.state == ModelState.REMOVED:
        return False
    revision = vectors.embedded(session, model.id, sha, contract)
    if revision is None or not revision.current:
        return False
    moved = private_models.assign(session, job, worker_id, private=False)
    if moved is not None and attempts.finish(session, job.id, worker_id, sha):
        private_models.settle(session, moved)
    return True


def _ends_as_obsolete(session: Session, job: Job, worker_id: int, sha: str, contract: Sequence[Space]) -> bool:
    """Whether a reindex has no use any more for what it asked for."""
    reindex = session.get_one(Reindex, job.reindex_id)
    if reindex.state not in ACTIVE_REINDEX:
        jobs.cancel(session, job.id)
        return True
    revision = models.current_revision(session, job.model_id)
    if revision is None or revision.sha != job.requested_revision:  # the newer one is carried over
        attempts.finish(session, job.id, worker_id, job.requested_revision or sha)
        return True
    if reindex.contract != contract_told(contract):
        raise ContractDiffers(
            f"Reindex {reindex.id} measures under another contract than this worker. Run all workers with the same "
            "version and settings, then retry the job."
        )
    if sha != job.requested_revision:
        raise RevisionNotFound(
            f"{job.model.folder} holds other files than those that are indexed. Add it again with `deltadex add`."
        )
    return False


def _ends_as_done(
    session: Session, job: Job, worker_id: int, sha: str, contract: Sequence[Space], metadata: Metadata | None
) -> bool:
    if job.model.state == ModelState.REMOVED:  # its card is gone, and its vectors are tombstones: all of it anew
        return False
    revision = vectors.embedded(session, job.model_id, sha, contract)
    if revision is None:
        return False
    feed.lock_feed(session)
    if not attempts.finish(session, job.id, worker_id, sha):
        return True
    private_models.settle(session, job)
    if metadata is not None:
        models.describe(session, job.model_id, metadata)
    if not revision.current:
        models.restore(session, revision)
        feed.republish(session, revision.id)
    follow_up(session, job, sha)
    return True
