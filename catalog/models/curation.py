"""Curation: a team's own tags, notes and aliases on models. No crawl, webhook or measurement changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog import locks
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database, storable
from catalog.errors import InvalidName, InvalidRepoId, KeyRequired
from catalog.locks import Lock
from catalog.models.repo_ref import ALIAS_OWNER, RepoRef
from catalog.models.repository import aliases, curation, models
from catalog.models.repository.curation import Curation
from catalog.tables import ADMIN_AUTHOR, Alias, Model

MAX_TAG = 100  # characters


@dataclass(frozen=True)
class CuratedModel:
    """A model, and what a team says about it."""

    model: Model
    curation: Curation


def change_tags(
    database: Database, repo_id: str, *, add: Sequence[str], remove: Sequence[str], viewer: Viewer
) -> CuratedModel:
    """Remove team tags from a model, then add others.

    Raises `KeyRequired`, `InvalidName`, `ModelNotFound`, `TooManyTags`.
    """
    for tag in add:
        _check_tag(tag)

    def change(session: Session, model: Model, author: str) -> None:
        removed = curation.remove_tags(session, model.id, [storable(tag) for tag in remove])
        added = curation.add_tags(session, model, add, author)
        if removed or added:
            models.bump_seq(session, model.id)

    return _change(database, repo_id, viewer, change)


def set_note(database: Database, repo_id: str, text: str, viewer: Viewer) -> CuratedModel:
    """Set the note on a model, in place of an earlier one. Raises `KeyRequired`, `ModelNotFound`."""
    return _change(
        database,
        repo_id,
        viewer,
        lambda session, model, author: curation.set_note(session, model.id, storable(text), author),
    )


def delete_note(database: Database, repo_id: str, viewer: Viewer) -> CuratedModel:
    """Delete the note on a model, if it has one. Raises `KeyRequired`, `ModelNotFound`."""
    return _change(database, repo_id, viewer, lambda session, model, _author: curation.delete_note(session, model.id))


def set_alias(database: Database, name: str, repo_id: str, viewer: Viewer) -> tuple[Alias, Model]:
    """Make an alias refer to a model, in place of the model that it referred to for the viewer, in one transaction.

    Raises `KeyRequired`, `InvalidName`, `ModelNotFound`, `TooManyAliases`.
    """
    _check_alias(name)
    author = _author(viewer)
    with database.transaction() as session:
        locks.acquire(session, Lock.FEED)
        model = models.get(session, repo_id, viewer)
        return aliases.set_alias(session, name, model, author, viewer), model


def delete_alias(database: Database, name: str, viewer: Viewer) -> tuple[Alias, Model]:
    """Delete an alias that the viewer knows, and return it with its model.

    Raises `KeyRequired`, `InvalidName`, `AliasNotFound`.
    """
    _check_alias(name)
    _author(viewer)
    with database.transaction() as session:
        locks.acquire(session, Lock.FEED)
        return aliases.delete_alias(session, name, viewer)


def list_aliases(
    database: Database, *, after: int | None, limit: int, viewer: Viewer = PUBLIC
) -> list[tuple[Alias, Model]]:
    """Up to `limit` aliases with an id above `after` that the viewer knows, oldest first, and their models."""
    with database.transaction() as session:
        return aliases.list_page(session, viewer, after=after or 0, limit=limit)


def _change(
    database: Database, repo_id: str, viewer: Viewer, change: Callable[[Session, Model, str], None]
) -> CuratedModel:
    author = _author(viewer)
    with database.transaction() as session:
        locks.acquire(session, Lock.FEED)
        model = models.get(session, repo_id, viewer)
        change(session, model, author)
        return CuratedModel(model, curation.get_by_ids(session, [model.id])[model.id])


def _author(viewer: Viewer) -> str:
    """The author of what a viewer writes. Raises `KeyRequired` for the public."""
    if viewer.submitter is None and not viewer.is_admin:
        raise KeyRequired("Tags, notes and aliases have an author. Send an API key in the header X-API-Key.")
    return viewer.submitter or ADMIN_AUTHOR


def _check_tag(tag: str) -> None:
    """Raises `InvalidName`."""
    if not tag or tag != tag.strip() or not tag.isprintable() or len(tag) > MAX_TAG:
        raise InvalidName(
            f"{tag[:200]!r} is not a tag. Use 1 to {MAX_TAG} printable characters, without spaces at the ends."
        )


def _check_alias(name: str) -> None:
    """Raises `InvalidName`."""
    try:
        RepoRef(f"{ALIAS_OWNER}/{name}")
    except InvalidRepoId as error:
        raise InvalidName(
            f"{name[:200]!r} is not an alias. Use 1 to 96 letters, digits and . _ - only, such as prod-summarizer."
        ) from error
