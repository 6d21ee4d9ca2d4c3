"""What the Hub's lists tell of repos, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from catalog.models.repository.models import Metadata
from catalog.tables import Model, ModelState, Source, change_seq

_TOLD = (*Metadata().columns(), "hub_sha")


@dataclass(frozen=True)
class Listed:
    """A repo in a list of the Hub's: its newest commit, the base that its card names where that is one, its size in
    bytes. None is what the Hub does not tell. `hidden`: private or disabled.
    """

    repo_id: str
    sha: str | None = None
    metadata: Metadata = field(default_factory=Metadata)
    base: str | None = None
    size: int | None = None
    hidden: bool = False


def known(session: Session, repo_ids: Sequence[str]) -> dict[str, Model]:
    """The public models of those names with their current revisions, in one statement."""
    statement = select(Model).where(Model.repo_id.in_(repo_ids), ~Model.private).options(joinedload(Model.revision))
    found = session.scalars(statement, execution_options={"populate_existing": True})
    return {model.repo_id: model for model in found}


def is_new(listed: Listed, model: Model | None) -> bool:
    """Whether the Hub has something of a repo that was neither embedded nor asked for."""
    if model is None or model.state == ModelState.REMOVED:
        return True
    if listed.sha is None:  # a mirror that tells no commit
        return model.hub_updated_at != listed.metadata.hub_updated_at
    return listed.sha not in (model.hub_sha, model.revision.sha if model.revision else None)


def store(session: Session, repos: Sequence[Listed]) -> dict[str, Model]:
    """Write what the Hub tells over what is stored, in one statement; returns the models as they are now. Of those
    that changed every process reads its filters anew. The caller holds `vectors.lock_feed`.
    """
    rows = [
        {
            "repo_id": each.repo_id,
            "owner": each.repo_id.split("/", maxsplit=1)[0],
            "source": Source.HUB,
            "hub_sha": each.sha,
            **each.metadata.columns(),
        }
        for each in sorted(repos, key=lambda each: each.repo_id)  # in one order, so that no two wait for each other
    ]
    if not rows:
        return {}
    statement = insert(Model).values(rows)
    told = {name: statement.excluded[name] for name in _TOLD}
    before = tuple_(*(getattr(Model, name) for name in _TOLD))
    statement = statement.on_conflict_do_update(
        index_elements=["repo_id", "private"],
        set_={**told, "seq": change_seq.next_value(), "updated_at": func.now()},
        where=before.is_distinct_from(tuple_(*told.values())),
    )
    session.execute(statement)
    return known(session, [each.repo_id for each in repos])
