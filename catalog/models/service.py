"""Lists of models."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.repository import models
from catalog.tables import Model, ModelState
from catalog.tables.model_words import query as words_query

Position = int | tuple[float, int]  # of a list by id, and of one by rank


@dataclass(frozen=True)
class ModelFilter:
    """Which models a list holds; `words` are those of the name, the tags or the card."""

    base: str | None = None
    owner: str | None = None
    state: ModelState | None = None
    words: str | None = None


@dataclass(frozen=True)
class ListedModel:
    model: Model
    position: Position  # in its list, to go on behind


def page(
    database: Database, filters: ModelFilter, *, after: Position | None, limit: int, viewer: Viewer = PUBLIC
) -> list[ListedModel]:
    """Up to `limit` models behind a position: with words by rank, the best first, and the oldest first without."""
    base, owner, state = filters.base, filters.owner, filters.state
    if filters.words is None:
        assert after is None or isinstance(after, int)
        with database.transaction() as session:
            listed = models.page(
                session, base=base, owner=owner, state=state, after=after or 0, limit=limit, viewer=viewer
            )
        return [ListedModel(model, model.id) for model in listed]
    assert after is None or isinstance(after, tuple)
    words = words_query(filters.words)
    if words is None:
        return []
    with database.transaction() as session:
        ranked = models.containing(
            session, words, base=base, owner=owner, state=state, after=after, limit=limit, viewer=viewer
        )
    return [ListedModel(model, (rank, model.id)) for model, rank in ranked]
