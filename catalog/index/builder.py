"""Builds the main segment of a space from Postgres, in a process of its own (`workers.maintenance index`): its
memory goes with it, and whoever asked for it goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.error_record import ErrorRecord
from catalog.errors import CatalogError, DiskFull
from catalog.index import manifest as index_manifest
from catalog.index import repository as snapshots
from catalog.index import schedule as index_schedule
from catalog.index import training
from catalog.index.ivf import Lists
from catalog.index.manifest import IDS, LISTS, FileRecord, Manifest
from catalog.settings import settings
from catalog.tables import IndexSnapshot, SpaceRow
from catalog.vectors.numeric import normalized
from catalog.vectors.repository import stream as vector_stream

KEPT = 2  # generations
RETRY_AFTER = 60.0  # seconds before a build that failed, died or was not called for is thought of again
REST = 2.0  # times what a build took before the next one of that space

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Builder:
    """Makes new generations in `folder`. At most one builder works on a space at a time, on any machine."""

    database: Database
    folder: Path
    policy: index_schedule.Policy

    def build(self, space_id: int, *, force: bool = False) -> int | None:
        """The new generation; None when another builder is at work, or nothing calls for a build (`force` does).

        Raises `DiskFull` and what the database raises; what went wrong is stored with the space.
        """
        with self.database.transaction() as lock:
            if not snapshots.try_lock(lock, space_id):
                return None
            with self.database.transaction() as session:
                space = session.get_one(SpaceRow, space_id)
                wanted = force or index_schedule.due(session, self.policy, self.folder, space_id)
                snapshots.postpone(session, space_id, RETRY_AFTER)
            if not wanted:
                return None
            try:
                return self._build(space)
            except Exception as error:
                known = as_disk_full(error)
                with self.database.transaction() as session:
                    failure = ErrorRecord.from_error(known or error)
                    snapshots.postpone(session, space_id, RETRY_AFTER, str(failure))
                if known is not None:
                    raise known from error
                raise

    def _build(self, space: SpaceRow) -> int | None:
        started = time.monotonic()
        with index_manifest.unfinished(self.folder / space.key) as work:
            with self.database.transaction() as session:
                covered_seq = vector_stream.covered(session, space.id)
                loaded = _load(session, space, work)
            if loaded is None:
                return None
            model_ids, vectors = loaded
            built = training.build(vectors)
            built.lists.write(work / LISTS)
            model_ids.tofile(work / IDS)
            generation = self._publish(space, work, built, covered_seq, len(model_ids))
        seconds = time.monotonic() - started
        with self.database.transaction() as session:
            snapshots.postpone(session, space.id, REST * seconds)
        log.info("space %s: generation %s of %s vectors in %.1f s", space.id, generation, len(model_ids), seconds)
        return generation

    def _publish(self, space: SpaceRow, work: Path, built: training.Built, covered_seq: int, count: int) -> int:
        with self.database.transaction() as session:
            manifest = Manifest(
                space_key=space.key,
                generation=index_manifest.next_generation(work.parent, snapshots.last_generation(session, space.id)),
                covered_seq=covered_seq,
                vectors=count,
                dimension=space.dimension,
                lists=built.lists.count,
                tuned=built.tuned,
                files={name: FileRecord.of(work / name) for name in (LISTS, IDS)},
            )
            Lists.open(work / LISTS)  # faiss may leave a file short and say nothing
            final, sha256 = index_manifest.publish(work, manifest)
            row = IndexSnapshot(
                space_id=space.id,
                generation=manifest.generation,
                covered_seq=covered_seq,
                vectors=count,
                kind=built.lists.kind,
                path=f"{space.key}/{manifest.generation}",
                sha256=sha256,
                recall=built.tuned[0].recall,
            )
            snapshots.publish(session, row)
            kept = snapshots.forget_all_but(session, space.id, KEPT)
        index_manifest.remove_all_but(final.parent, kept)
        return manifest.generation


def _load(session: Session, space: SpaceRow, work: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The models (n,) and normalised vectors (n, d) of a space, these mapped from a file without a name; None for fewer
    than two.
    """
    count = vector_stream.count(session, space.id, space.dimension)
    if count < 2:
        return None
    room = count + count // 100 + 1_000  # others may come in between the count and the stream
    model_ids, filled = np.empty(room, np.int64), 0
    with tempfile.TemporaryFile(dir=work) as file:
        os.posix_fallocate(file.fileno(), 0, 4 * space.dimension * room)  # a full disk is an error here, not a signal
        vectors = np.memmap(file, np.float32, "r+", shape=(room, space.dimension))
    for ids, block in _unhurried(vector_stream.stream(session, space.id, space.dimension)):
        taken = min(len(ids), room - filled)  # what does not fit any more is in the feed
        model_ids[filled : filled + taken] = ids[:taken]
        vectors[filled : filled + taken] = normalized(block[:taken])
        filled += taken
    return model_ids[:filled].copy(), np.asarray(vectors)[:filled]


def _unhurried(blocks: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rests as long as each block took: Postgres sends it with the priority of a search."""
    started = time.monotonic()
    for each in blocks:
        yield each
        time.sleep(time.monotonic() - started)
        started = time.monotonic()


def as_disk_full(error: Exception) -> DiskFull | None:
    """FAISS tells of a failed write in words alone."""
    if isinstance(error, DiskFull):
        return error
    numbers = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    full = isinstance(error, OSError) and error.errno in numbers
    failed_write = isinstance(error, RuntimeError) and "write" in str(error)
    return DiskFull(f"The index could not be written: {error}") if full or failed_write else None


def main(space_id: int) -> int:
    """Build and say how it went: the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    conf = settings()
    database = Database(conf.require_database_url())
    builder = Builder(database, conf.index_dir, index_schedule.Policy(conf.index_exact_bytes))
    try:
        builder.build(space_id)
    except CatalogError as error:
        log.error("the index of space %s was not built: %s: %s", space_id, error.code, error)
        return 1
    finally:
        database.close()
    return 0
