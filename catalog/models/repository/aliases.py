"""Aliases: a team's own names for models.

An alias of a private model is known to the viewers with access to the model, and they see it instead of a public alias
with the same name. Admins know the aliases of private models that admins set: those of users are the users' own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, delete, false, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.auth.repository.access import visible_models
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import AliasNotFound, TooManyAliases
from catalog.tables import ADMIN_AUTHOR, Alias, Model

MAX_ALIASES = 100  # of one model


def targets(session: Session, names: Sequence[str], viewer: Viewer) -> dict[str, str]:
    """The current names of the models with these aliases, by alias. Aliases that the viewer does not know are left
    out.
    """
    statement = _known(viewer).where(Alias.name.in_(names)).order_by(Alias.private, Alias.id)  # the last one counts
    return {alias.name: model.repo_id for alias, model in session.execute(statement)}


def set_alias(session: Session, name: str, model: Model, author: str, viewer: Viewer) -> Alias:
    """Make an alias refer to a model, in place of the model that it referred to for the viewer. The caller holds
    `feed.lock_feed`. A public alias stays for others if the viewer gives its name to a private model.

    Raises `TooManyAliases`.
    """
    _delete_private(session, name, viewer)
    if not model.private:
        session.execute(delete(Alias).where(Alias.name == name, ~Alias.private))
    count = select(func.count()).select_from(Alias).where(Alias.model_id == model.id)
    if session.execute(count).scalar_one() >= MAX_ALIASES:
        raise TooManyAliases(f"{model.repo_id} has {MAX_ALIASES} aliases, the most a model can have. Delete one first.")
    statement = insert(Alias).values(name=name, model_id=model.id, private=model.private, author=author)
    return session.scalars(statement.returning(Alias)).one()


def delete_alias(session: Session, name: str, viewer: Viewer) -> tuple[Alias, Model]:
    """Delete the alias that the viewer knows by this name, and return it with its model. The caller holds
    `feed.lock_feed`. Raises `AliasNotFound`.

    If the alias is of a private model, a public alias with the same name stays.
    """
    statement = _known(viewer).where(Alias.name == name).order_by(Alias.private.desc(), Alias.id.desc())
    row = session.execute(statement).first()
    if row is None:
        raise AliasNotFound(f"There is no alias {name}. GET /v1/aliases lists the aliases.")
    alias, model = row
    session.expunge(alias)
    if alias.private:
        _delete_private(session, name, viewer)
    else:
        session.execute(delete(Alias).where(Alias.id == alias.id))
    return alias, model


def list_page(session: Session, viewer: Viewer, *, after: int, limit: int) -> list[tuple[Alias, Model]]:
    """Up to `limit` aliases with an id above `after` that the viewer knows, oldest first, and their models."""
    statement = _known(viewer).where(Alias.id > after).order_by(Alias.id).limit(limit)
    return [(alias, model) for alias, model in session.execute(statement)]


def _known(viewer: Viewer) -> Select[Alias, Model]:
    """Selects the aliases that the viewer knows, with their models."""
    models = select(Alias, Model).join(Model, Model.id == Alias.model_id)
    return models.where(~Alias.private | _known_private(viewer))


def _delete_private(session: Session, name: str, viewer: Viewer) -> bool:
    """Delete the aliases of private models that the viewer knows by this name. False if there are none."""
    known = select(Alias.id).join(Model, Model.id == Alias.model_id).where(Alias.name == name, _known_private(viewer))
    return bool(session.scalars(delete(Alias).where(Alias.id.in_(known)).returning(Alias.id)).all())


def _known_private(viewer: Viewer) -> ColumnElement[bool]:
    """Condition on an alias and its model: the model is private, and the viewer knows the alias."""
    if viewer == PUBLIC:
        return false()
    known = Alias.private & visible_models(viewer)
    return known & (Alias.author == (viewer.submitter or ADMIN_AUTHOR)) if viewer.is_admin else known
