"""The declarative base, and the sequences."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    DateTime,
    MetaData,
    Sequence,
    Text,
)
from sqlalchemy.orm import DeclarativeBase


def one_of(column: str, values: type[StrEnum]) -> str:
    """The SQL of a check constraint."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: DateTime(timezone=True), int: BigInteger, str: Text}  # noqa: RUF012


# sequence numbers of the change feed, drawn under an advisory lock: see catalog/vectors/repository/feed.py
change_seq = Sequence("change_seq", metadata=Base.metadata, start=1)

# cluster numbers, over all spaces; a cluster keeps its number across runs while most of its members stay
cluster_number = Sequence("cluster_number", metadata=Base.metadata, start=1)

# counts the claims of all workers: every few claims take the oldest job, see catalog/jobs/repository/claims.py
claim_turn = Sequence("claim_turn", metadata=Base.metadata, start=1)
