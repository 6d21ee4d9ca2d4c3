"""Team tags and notes, and everything that a team says about the models of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, false, func, literal, select, union_all, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from catalog.errors import TooManyTags
from catalog.tables import Alias, Model, TeamNote, TeamTag

MAX_TAGS = 100  # of one model


@dataclass(frozen=True)
class Written:
    """A tag, note or alias. `author` is the hash of an API key, or `admin`."""

    text: str
    author: str
    written_at: datetime


@dataclass
class Curation:
    """What a team says about a model: its tags and aliases in the order of the alphabet, and its note."""

    team_tags: list[Written] = field(default_factory=list)
    note: Written | None = None
    aliases: list[Written] = field(default_factory=list)


def get_by_ids(session: Session, model_ids: Sequence[int]) -> dict[int, Curation]:
    """What the team says about each of these models, by model id. One statement."""
    curations = {model_id: Curation() for model_id in model_ids}
    if not curations:
        return {}
    parts = (("tag", TeamTag, TeamTag.tag), ("note", TeamNote, TeamNote.text), ("alias", Alias, Alias.name))
    rows = union_all(*(
        select(literal(kind), table.model_id, text.label("text"), table.author, table.written_at).where(
            table.model_id.in_(model_ids)
        )
        for kind, table, text in parts
    )).order_by("text")  # fmt: skip
    for kind, model_id, said, author, written_at in session.execute(rows):
        curation, entry = curations[model_id], Written(said, author, written_at)
        if kind == "note":
            curation.note = entry
        else:
            (curation.team_tags if kind == "tag" else curation.aliases).append(entry)
    return curations


def add_tags(session: Session, model: Model, tags: Sequence[str], author: str) -> bool:
    """Add team tags to a model; a tag that it has keeps its author. Returns whether one was added. The caller holds
    `feed.lock_feed`. Raises `TooManyTags`.
    """
    if not tags:
        return False
    values = [{"model_id": model.id, "tag": tag, "author": author} for tag in dict.fromkeys(tags)]
    statement = insert(TeamTag).values(values).on_conflict_do_nothing()
    added = session.scalars(statement.returning(TeamTag.tag)).all()
    count = session.execute(select(func.count()).select_from(TeamTag).where(TeamTag.model_id == model.id)).scalar_one()
    if count > MAX_TAGS:
        raise TooManyTags(
            f"{model.repo_id} would have {count} team tags; the maximum is {MAX_TAGS}. Remove some first."
        )
    return bool(added)


def remove_tags(session: Session, model_id: int, tags: Sequence[str]) -> bool:
    """Remove team tags from a model. Returns whether it had one of them. The caller holds `feed.lock_feed`."""
    statement = delete(TeamTag).where(TeamTag.model_id == model_id, TeamTag.tag.in_(tags))
    return bool(session.scalars(statement.returning(TeamTag.tag)).all())


def set_note(session: Session, model_id: int, text: str, author: str) -> None:
    """Set the note on a model, in place of an earlier one."""
    values = {"text": text, "author": author, "written_at": func.now()}
    statement = insert(TeamNote).values(model_id=model_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["model_id"], set_=values))


def delete_note(session: Session, model_id: int) -> None:
    """Delete the note on a model, if it has one."""
    session.execute(delete(TeamNote).where(TeamNote.model_id == model_id))


def move(session: Session, source_id: int, target_id: int) -> None:
    """Move the tags, the aliases and the note of a model to another one, which keeps its own. The caller holds
    `feed.lock_feed`, and bumps the `seq` of the target in the same transaction.
    """
    tag, note = aliased(TeamTag), aliased(TeamNote)
    has_tag = select(tag.tag).where(tag.model_id == target_id, tag.tag == TeamTag.tag).exists()
    has_note = select(note.model_id).where(note.model_id == target_id).exists()
    for table, kept in ((TeamTag, has_tag), (TeamNote, has_note), (Alias, false())):
        session.execute(update(table).where(table.model_id == source_id, ~kept).values(model_id=target_id))
