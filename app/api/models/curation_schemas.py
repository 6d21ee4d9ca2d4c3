"""JSON of what a team says about models: tags, notes and aliases of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field

from app.api.schemas import NO_NUL, Strict, TeamTags
from catalog import tables
from catalog.models.curation import CuratedModel
from catalog.models.repo_ref import ALIAS_OWNER
from catalog.tables import ADMIN_AUTHOR

MAX_NOTE = 5_000  # characters
AUTHOR_DIGITS = 12  # of a key's hash

Author = Annotated[
    str,
    Field(description=f"`{ADMIN_AUTHOR}`, or the first {AUTHOR_DIGITS} hex digits of the SHA-256 of the API key."),
]


class TeamTagsChange(Strict):
    add: TeamTags = Field([], description="Tags that are added, unless the model has them.")
    remove: TeamTags = Field([], description="Tags that are removed, before others are added.")


class NoteText(Strict):
    text: str = Field(min_length=1, max_length=MAX_NOTE)


class AliasTarget(Strict):
    repo_id: str = Field(max_length=200, pattern=NO_NUL, description="Repo id of the model, or another of its names.")


class TeamTag(BaseModel):
    tag: str
    author: Author
    written_at: datetime


class Note(BaseModel):
    text: str
    author: Author
    written_at: datetime


class ModelAlias(BaseModel):
    alias: str = Field(description=f"Usable as `{ALIAS_OWNER}/NAME` wherever the name of a model is.")
    author: Author
    written_at: datetime


class Curation(BaseModel):
    """What the team says about a model. No crawl, webhook or measurement changes it."""

    team_tags: list[TeamTag]
    note: Note | None
    aliases: list[ModelAlias]

    @classmethod
    def from_curated(cls, curated: CuratedModel) -> Self:
        curation, note = curated.curation, curated.curation.note
        return cls(
            team_tags=[
                TeamTag(tag=tag.text, author=_shown(tag.author), written_at=tag.written_at)
                for tag in curation.team_tags
            ],
            note=Note(text=note.text, author=_shown(note.author), written_at=note.written_at) if note else None,
            aliases=[
                ModelAlias(alias=alias.text, author=_shown(alias.author), written_at=alias.written_at)
                for alias in curation.aliases
            ],
        )


class Alias(ModelAlias):
    repo_id: str = Field(description="The current name of the model.")

    @classmethod
    def from_row(cls, alias: tables.Alias, model: tables.Model) -> Self:
        return cls(alias=alias.name, author=_shown(alias.author), written_at=alias.written_at, repo_id=model.repo_id)


class Aliases(BaseModel):
    aliases: list[Alias]
    next_cursor: str | None


def _shown(author: str) -> str:
    """Enough of a key's hash to tell authors apart, and too little to stand for the key."""
    return author[:AUTHOR_DIGITS]
