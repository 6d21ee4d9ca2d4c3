"""What the repositories share: whose rows a viewer sees, the order of lists, and how rows and their jobs are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, TypeVarTuple

from sqlalchemy import ColumnElement, Select, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from catalog.auth.viewer import Viewer
from catalog.tables import Job, Merge, Task

Columns = TypeVarTuple("Columns")
Named = TypeVar("Named", Merge, Task)

DIGITS = 18  # of an id: more do not fit into the column


def newest_first(
    statement: Select[*Columns], ids: InstrumentedAttribute[int], before: int | None, limit: int
) -> Select[*Columns]:
    """Up to `limit` of the rows with an id below `before`, the newest first."""
    if before is not None:
        statement = statement.where(ids < before)
    return statement.order_by(ids.desc()).limit(limit)


def owned_by(owners: InstrumentedAttribute[str | None], viewer: Viewer) -> ColumnElement[bool]:
    """Everybody's rows, and the viewer's own."""
    return true() if viewer.everything else or_(owners.is_(None), owners == viewer.submitter)


def by_id_or_name(session: Session, table: type[Named], name: str, viewer: Viewer) -> Named | None:
    """The row of that id; or the viewer's own of that name, or else everybody's."""
    if name.isascii() and name.isdigit():
        row = session.get(table, int(name)) if len(name) <= DIGITS else None
        return row if row is not None and viewer.sees(row.viewer) else None
    named = select(table).where(table.name == name, owned_by(table.viewer, viewer))
    return session.scalars(named.order_by(table.viewer.is_(None), table.id)).first()


def jobs_of(session: Session, owners: Mapping[int, int]) -> dict[int, Job]:
    """The jobs of models that stand for something else, by the id of that; `owners` has it by the model's."""
    return {owners[job.model_id]: job for job in session.scalars(select(Job).where(Job.model_id.in_(owners)))}
