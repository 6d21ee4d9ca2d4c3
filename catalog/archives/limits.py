"""Limits on the bytes of archives."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.errors import ArchiveQuotaExceeded


@dataclass(frozen=True)
class ArchiveLimits:
    """Bytes of the archives of one API key, and of all archives. 0: no limit."""

    per_key: int = 0
    total: int = 0

    def check_key(self, size: int) -> None:
        """Raise `ArchiveQuotaExceeded` if the archives of a key would have this size."""
        if size > self.per_key:
            raise ArchiveQuotaExceeded(
                f"The adapters of this API key's tasks and merges would take {size:,} bytes, and its limit is "
                f"{self.per_key:,} (DELTADEX_ARCHIVE_BYTES_PER_KEY). Delete tasks or merges that are not needed."
            )

    def check_total(self, size: int) -> None:
        """Raise `ArchiveQuotaExceeded` if all archives together would have this size."""
        if size > self.total:
            raise ArchiveQuotaExceeded(
                f"The adapters of all tasks and merges would take {size:,} bytes, and the limit is {self.total:,} "
                "(DELTADEX_ARCHIVE_BYTES). Delete tasks or merges that are not needed, or ask an admin."
            )


NO_LIMITS = ArchiveLimits()
