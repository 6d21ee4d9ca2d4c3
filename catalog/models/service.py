"""Lists of models."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.repository import models
from catalog.tables import Model, ModelState
from catalog.tables.model_words import query as words_query

Position = int | tuple[float, int]  # an id, or (rank, id) in a text search


@dataclass(frozen=True)
class ModelFilter:
    """Filters for a list of models; `words` are searched for in names, tags and cards."""

    base: str | None = None
    owner: str | None = None
    state: ModelState | None = None
    words: str | None = None


@dataclass(frozen=True)
class ListedModel:
    model: Model
    position: Position  # the `after` of the next page


def list_page(
    database: Database, filters: ModelFilter, *, after: Position | None, limit: int, viewer: Viewer = PUBLIC
) -> list[ListedModel]:
    """Up to `limit` models after a position: best match first if there are `words`, else oldest first."""
    base, owner, state = filters.base, filters.owner, filters.state
    if filters.words is None:
        assert after is None or isinstance(after, int)
        with database.transaction() as session:
            page = models.list_page(
                session, base=base, owner=owner, state=state, after=after or 0, limit=limit, viewer=viewer
            )
        return [ListedModel(model, model.id) for model in page]
    assert after is None or isinstance(after, tuple)
    words = words_query(filters.words)
    if words is None:
        return []
    with database.transaction() as session:
        matches = models.search_text(
            session, words, base=base, owner=owner, state=state, after=after, limit=limit, viewer=viewer
        )
    return [ListedModel(model, (rank, model.id)) for model, rank in matches]
