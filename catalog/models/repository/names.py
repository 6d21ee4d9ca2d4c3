"""The names of models: those that they have, and those that they had before a rename on the Hub."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ScalarSelect, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.tables import FormerName, Model, change_seq


def current(session: Session, repo_ids: Sequence[str]) -> dict[str, str]:
    """Of names that models had before: the name that each has now."""
    statement = select(FormerName.repo_id, Model.repo_id).join(Model, Model.id == FormerName.model_id)
    return {former: name for former, name in session.execute(statement.where(FormerName.repo_id.in_(repo_ids)))}


def now(former: str) -> ScalarSelect[str]:
    """For a statement: the name that the model has now which had that one before; null where there is none."""
    statement = select(Model.repo_id).join(FormerName, FormerName.model_id == Model.id)
    return statement.where(FormerName.repo_id == former).scalar_subquery()


def moved(session: Session, hub_ids: dict[str, str]) -> list[tuple[Model, str]]:
    """Public models that have another name than the one (by the Hub's own id) that the Hub gives them now; with that
    one.
    """
    known = session.scalars(select(Model).where(Model.hub_id.in_(hub_ids), ~Model.private).order_by(Model.id))
    return [
        (model, hub_ids[model.hub_id]) for model in known if model.hub_id and model.repo_id != hub_ids[model.hub_id]
    ]


def rename(session: Session, model: Model, repo_id: str) -> None:
    """Give a model another name that no model has. The caller holds `vectors.lock_feed`."""
    former = model.repo_id
    values = {"repo_id": repo_id, "owner": repo_id.split("/", maxsplit=1)[0], "seq": change_seq.next_value()}
    session.execute(update(Model).where(Model.id == model.id).values(**values))
    session.refresh(model)
    take(session, [repo_id])
    lead(session, former, model.id)


def lead(session: Session, former: str, model_id: int) -> None:
    """Have a name that no model has any more stand for that one."""
    statement = insert(FormerName).values(repo_id=former, model_id=model_id)
    session.execute(statement.on_conflict_do_update(index_elements=["repo_id"], set_={"model_id": model_id}))


def take(session: Session, repo_ids: Sequence[str]) -> None:
    """These names belong to repos of their own: they lead to no other any more."""
    session.execute(delete(FormerName).where(FormerName.repo_id.in_(repo_ids)))


def discard(session: Session, model: Model) -> None:
    """Take away a model of which no vector was ever stored, and its jobs."""
    session.execute(delete(Model).where(Model.id == model.id))
    session.expunge(model)
