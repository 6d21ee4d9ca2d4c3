"""Renames on the Hub, and the other names of models: former ones and aliases."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ScalarSelect, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.models.repo_ref import ALIAS_OWNER
from catalog.models.repository import aliases
from catalog.tables import FormerName, Model, change_seq

ALIAS_PREFIX = f"{ALIAS_OWNER}/"


def current_names(session: Session, repo_ids: Sequence[str], viewer: Viewer = PUBLIC) -> dict[str, str]:
    """The current names of the models that formerly had these names, or have them as aliases (`alias/NAME`) that the
    viewer knows, by these names.
    """
    statement = select(FormerName.repo_id, Model.repo_id).join(Model, Model.id == FormerName.model_id)
    current = {former: name for former, name in session.execute(statement.where(FormerName.repo_id.in_(repo_ids)))}
    alias_names = [repo_id.removeprefix(ALIAS_PREFIX) for repo_id in repo_ids if repo_id.startswith(ALIAS_PREFIX)]
    if alias_names:
        current |= {
            ALIAS_PREFIX + name: target for name, target in aliases.targets(session, alias_names, viewer).items()
        }
    return current


def current_name_query(former: str) -> ScalarSelect[str]:
    """Scalar subquery: the current name of the model that was formerly called `former`; null if there is none."""
    statement = select(Model.repo_id).join(FormerName, FormerName.model_id == Model.id)
    return statement.where(FormerName.repo_id == former).scalar_subquery()


def list_renamed(session: Session, hub_ids: dict[str, str]) -> list[tuple[Model, str]]:
    """The public models that have another name on the Hub now, with their new names.

    `hub_ids` are the current names, by the Hub's id of the repo.
    """
    stored = session.scalars(select(Model).where(Model.hub_id.in_(hub_ids), ~Model.private).order_by(Model.id))
    return [
        (model, hub_ids[model.hub_id]) for model in stored if model.hub_id and model.repo_id != hub_ids[model.hub_id]
    ]


def rename(session: Session, model: Model, repo_id: str) -> None:
    """Rename a model to a name that no other model has. The caller holds `feed.lock_feed`."""
    former = model.repo_id
    values = {"repo_id": repo_id, "owner": repo_id.split("/", maxsplit=1)[0], "seq": change_seq.next_value()}
    session.execute(update(Model).where(Model.id == model.id).values(**values))
    session.refresh(model)
    release_former_names(session, [repo_id])
    add_former_name(session, former, model.id)


def add_former_name(session: Session, former: str, model_id: int) -> None:
    """Make a former name refer to a model."""
    statement = insert(FormerName).values(repo_id=former, model_id=model_id)
    session.execute(statement.on_conflict_do_update(index_elements=["repo_id"], set_={"model_id": model_id}))


def release_former_names(session: Session, repo_ids: Sequence[str]) -> None:
    """Stop these names from referring to renamed models, because other repos have them now."""
    session.execute(delete(FormerName).where(FormerName.repo_id.in_(repo_ids)))


def delete_empty(session: Session, model: Model) -> None:
    """Delete a model without vectors, and its jobs."""
    session.execute(delete(Model).where(Model.id == model.id))
    session.expunge(model)
