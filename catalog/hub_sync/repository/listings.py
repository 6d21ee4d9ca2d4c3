"""The repos in the Hub's lists, and the models that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from catalog.models.repository.models import Metadata
from catalog.tables import Model, ModelState, Source, change_seq

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


def is_new(repo: ListedRepo, model: Model | None) -> bool:
    """Whether a repo has a commit that was neither measured nor queued before."""
    if model is None or model.state == ModelState.REMOVED:
        return True
    if repo.sha is None:  # some mirrors do not provide commits
        return model.hub_updated_at != repo.metadata.hub_updated_at
    return repo.sha not in (model.hub_sha, model.revision.sha if model.revision else None)


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
