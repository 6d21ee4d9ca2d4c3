"""Rows that belong to a user (tasks, selections, merges): lists, lookups by name, and their jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from catalog.auth.viewer import Viewer
from catalog.database import newest_first
from catalog.tables import Job, Merge, Selection, Task

Named = TypeVar("Named", Merge, Task)
Owned = TypeVar("Owned", Merge, Selection, Task)

MAX_ID_DIGITS = 18  # longer numbers do not fit into a bigint


def list_page(session: Session, table: type[Owned], viewer: Viewer, *, before: int | None, limit: int) -> list[Owned]:
    """Up to `limit` rows that the viewer may see, with an id below `before`, newest first."""
    statement = select(table).where(visible_to(table.viewer, viewer))
    return list(session.scalars(newest_first(statement, table.id, before, limit)))


def list_names(session: Session, table: type[Named], viewer: Viewer, limit: int) -> list[str]:
    """The names of the newest rows that have one and that the viewer may see."""
    statement = select(table.name).where(table.name.is_not(None), visible_to(table.viewer, viewer))
    names = session.scalars(statement.order_by(table.id.desc()).limit(limit))
    return [name for name in names if name is not None]


def count(session: Session, owner: str) -> int:
    """The number of tasks, selections and merges that belong to a submitter."""
    counts = [select(func.count()).where(table.viewer == owner).scalar_subquery() for table in (Merge, Selection, Task)]
    return sum(session.execute(select(*counts)).one())


def visible_to(owners: InstrumentedAttribute[str | None], viewer: Viewer) -> ColumnElement[bool]:
    """The condition for public rows, which have no owner, and the viewer's own rows."""
    return true() if viewer.is_admin else or_(owners.is_(None), owners == viewer.submitter)


def find_by_id_or_name(session: Session, table: type[Named], name: str, viewer: Viewer) -> Named | None:
    """The row with this id, if the viewer may see it. For a name, the viewer's own row, or else the public one."""
    if name.isascii() and name.isdigit():
        row = session.get(table, int(name)) if len(name) <= MAX_ID_DIGITS else None
        return row if row is not None and viewer.can_see(row.viewer) else None
    statement = select(table).where(table.name == name, visible_to(table.viewer, viewer))
    return session.scalars(statement.order_by(table.viewer.is_(None), table.id)).first()


def jobs_by_owner(session: Session, owners: Mapping[int, int]) -> dict[int, Job]:
    """The jobs of hidden models by the id of the row that owns the model; `owners` maps model ids to owner ids."""
    return {owners[job.model_id]: job for job in session.scalars(select(Job).where(Job.model_id.in_(owners)))}
