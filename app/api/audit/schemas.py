"""JSON of the audit log."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import NO_NUL, PageQuery


class AuditQuery(PageQuery):
    actor: str | None = Field(None, max_length=200, pattern=NO_NUL, description="Part of the actor's name.")
    target: str | None = Field(None, max_length=500, pattern=NO_NUL, description="What the act was about, exactly.")


class Entry(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    at: datetime
    actor: str = Field(description="The name and prefix of the API key, or the user of a command on the server.")
    action: str = Field(description="Method and path of the route, or the command.")
    target: str = Field(description="The model, job, key or other thing that it was about.")
    address: str = Field(description="Of the client. Empty for a command on the server.")
    outcome: str = Field(description="`done`, or the code of the error.")


class Audit(BaseModel):
    audit: list[Entry]
    next_cursor: str | None
