"""What is stored of an error: on jobs, runs, crawls, reindexes, maps and index builds."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.database import storable
from catalog.errors import CatalogError

MAX_MESSAGE = 4_000  # characters


@dataclass(frozen=True)
class ErrorRecord:
    """The code of an error, and its message as Postgres takes it, cut to `MAX_MESSAGE` characters."""

    code: str
    message: str

    @classmethod
    def from_error(cls, error: Exception) -> ErrorRecord:
        """An error that was not raised on purpose has only its repr for a message."""
        if isinstance(error, CatalogError):
            return cls(error.code, storable(error.message)[:MAX_MESSAGE])
        return cls(CatalogError.code, storable(repr(error))[:MAX_MESSAGE])

    def columns(self) -> dict[str, str]:
        """As they are named in each table that stores errors."""
        return {"error_code": self.code, "error_message": self.message}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
