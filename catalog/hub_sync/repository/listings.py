"""The repos in the Hub's lists, and the models that they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session, joinedload

from catalog.models.repository.models import Metadata
from catalog.tables import Job, JobState, Model, ModelState, Source, change_seq

_HUB_COLUMNS = (*Metadata().columns(), "hub_sha")


@dataclass(frozen=True)
class ListedRepo:
    """An entry in a list of the Hub: the repo's newest commit, the base model if there is exactly one, and its size in
    bytes. None: the Hub does not provide the value. `hidden` repos are private or disabled. The files of `gated` ones
    can only be read with a token of an account that has access.
    """

    repo_id: str
    sha: str | None = None
    metadata: Metadata = field(default_factory=Metadata)
    base: str | None = None
    size: int | None = None
    hidden: bool = False
    gated: bool = False


def find_models(session: Session, repo_ids: Sequence[str]) -> dict[str, Model]:
    """The public models with these names, by name, with their current revisions. One statement."""
    statement = select(Model).where(Model.repo_id.in_(repo_ids), ~Model.private).options(joinedload(Model.revision))
    models = session.scalars(statement, execution_options={"populate_existing": True})
    return {model.repo_id: model for model in models}


def select_new(session: Session, repos: Sequence[ListedRepo], models: Mapping[str, Model]) -> list[ListedRepo]:
    """The repos whose newest commit has to be measured: those with a commit that was neither measured nor queued, and
    those whose current revision is another commit, unless the last job for their main branch failed.
    """
    passed = [model.id for repo in repos if (model := models.get(repo.repo_id)) and _was_passed(repo, model)]
    failed = _find_failed(session, passed) if passed else set()
    return [repo for repo in repos if _is_new(repo, models.get(repo.repo_id), failed)]


def _is_new(repo: ListedRepo, model: Model | None, failed: set[int]) -> bool:
    if model is None or model.state == ModelState.REMOVED:
        return True
    if repo.sha is None:  # some mirrors do not provide commits
        return model.hub_updated_at != repo.metadata.hub_updated_at
    if _was_passed(repo, model):
        return model.id not in failed
    return repo.sha not in (model.hub_sha, model.revision.sha if model.revision else None)


def _was_passed(repo: ListedRepo, model: Model) -> bool:
    """Whether a commit was reported before, and another revision is current all the same: its job failed, was cancelled
    or is active, or the other revision was measured after it.
    """
    return (
        repo.sha is not None
        and repo.sha == model.hub_sha
        and model.revision is not None
        and (model.revision.sha != repo.sha)
    )


def _find_failed(session: Session, model_ids: Sequence[int]) -> set[int]:
    """The models whose newest job for the main branch failed."""
    newest = (
        select(Job.model_id, Job.state)
        .ext(distinct_on(Job.model_id))
        .where(Job.model_id.in_(model_ids), Job.requested_revision.is_(None))
        .order_by(Job.model_id, Job.id.desc())
        .subquery()
    )
    return set(session.scalars(select(newest.c.model_id).where(newest.c.state == JobState.FAILED)))


def store(session: Session, repos: Sequence[ListedRepo]) -> dict[str, Model]:
    """Create or update the models of these repos in one statement, and return them by name.

    The `seq` of changed models is bumped, so that every process reloads their attributes. The caller holds
    `feed.lock_feed`.
    """
    rows = [
        {
            "repo_id": repo.repo_id,
            "owner": repo.repo_id.split("/", maxsplit=1)[0],
            "source": Source.HUB,
            "hub_sha": repo.sha,
            **repo.metadata.columns(),
        }
        for repo in sorted(repos, key=lambda repo: repo.repo_id)  # a fixed order avoids deadlocks
    ]
    if not rows:
        return {}
    statement = insert(Model).values(rows)
    new = {name: statement.excluded[name] for name in _HUB_COLUMNS}
    old = tuple_(*(getattr(Model, name) for name in _HUB_COLUMNS))
    statement = statement.on_conflict_do_update(
        index_elements=["repo_id", "private"],
        set_={**new, "seq": change_seq.next_value(), "updated_at": func.now()},
        where=old.is_distinct_from(tuple_(*new.values())),
    )
    session.execute(statement)
    return find_models(session, [repo.repo_id for repo in repos])
