"""Lists of models."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.curation import CuratedModel
from catalog.models.repository import curation, models
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
    team_tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListedModel(CuratedModel):
    position: Position  # the `after` of the next page


def list_page(
    database: Database, filters: ModelFilter, *, after: Position | None, limit: int, viewer: Viewer = PUBLIC
) -> list[ListedModel]:
    """Up to `limit` models after a position: best match first if there are `words`, else oldest first."""
    with database.transaction() as session:
        page = _list_models(session, filters, after, limit, viewer)
        curations = curation.get_by_ids(session, [model.id for model, _ in page])
    return [ListedModel(model, curations[model.id], position) for model, position in page]


def _list_models(
    session: Session, filters: ModelFilter, after: Position | None, limit: int, viewer: Viewer
) -> list[tuple[Model, Position]]:
    conditions = asdict(filters)
    words = conditions.pop("words")
    if words is None:
        assert after is None or isinstance(after, int)
        page = models.list_page(session, **conditions, after=after or 0, limit=limit, viewer=viewer)
        return [(model, model.id) for model in page]
    assert after is None or isinstance(after, tuple)
    query = words_query(words)
    if query is None:
        return []
    matches = models.search_text(session, query, **conditions, after=after, limit=limit, viewer=viewer)
    return [(model, (rank, model.id)) for model, rank in matches]
