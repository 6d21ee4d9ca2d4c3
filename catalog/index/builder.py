"""Builds the main segment of a space from the vectors in Postgres.

A build runs in a separate process (`workers.maintenance index`), so that its memory is freed when it ends and the
worker can continue with other tasks.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from catalog.database import Database, ErrorRecord
from catalog.errors import CatalogError, DiskFull
from catalog.index import manifest as index_manifest
from catalog.index import repository as snapshots
from catalog.index import schedule as index_schedule
from catalog.index import training
from catalog.index.ivf import InvertedLists
from catalog.index.manifest import IDS_FILE, LISTS_FILE, FileRecord, Manifest
from catalog.settings import settings
from catalog.tables import IndexSnapshot, SpaceRow
from catalog.threads.throttling import throttled
from catalog.vectors.numeric import normalize
from catalog.vectors.repository import stream as vector_stream

KEPT_GENERATIONS = 2
RETRY_DELAY = 60.0  # seconds until a space is considered again after a build that failed, died or was not due
COOLDOWN_FACTOR = 2.0  # the next build of a space waits this many times the duration of the last one

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexBuilder:
    """Builds new generations in `folder`. At most one builder works on a space at a time, across all machines."""

    database: Database
    folder: Path
    policy: index_schedule.BuildPolicy

    def build(self, space_id: int, *, force: bool = False) -> int | None:
        """Build and publish a main segment. Returns its generation, or None if another builder holds the lock or no
        build is due. `force` builds even if none is due.

        Raises `DiskFull` and the errors of the database. The error is stored with the space.
        """
        with self.database.transaction() as lock:
            if not snapshots.try_lock(lock, space_id):
                return None
            with self.database.transaction() as session:
                space = session.get_one(SpaceRow, space_id)
                build_due = force or index_schedule.list_due(session, self.policy, self.folder, space_id)
                snapshots.postpone(session, space_id, RETRY_DELAY)
            if not build_due:
                return None
            try:
                return self._build(space)
            except Exception as error:
                disk_full = as_disk_full(error)
                with self.database.transaction() as session:
                    failure = ErrorRecord.from_error(disk_full or error)
                    snapshots.postpone(session, space_id, RETRY_DELAY, str(failure))
                if disk_full is not None:
                    raise disk_full from error
                raise

    def _build(self, space: SpaceRow) -> int | None:
        started = time.monotonic()
        with index_manifest.build_folder(self.folder / space.key) as work:
            with self.database.snapshot() as session:
                covered_seq = vector_stream.last_seq_of_space(session, space.id)
                loaded = _load(session, space, work)
            if loaded is None:
                return None
            model_ids, vectors = loaded
            trained = training.train(vectors)
            trained.lists.write(work / LISTS_FILE)
            model_ids.tofile(work / IDS_FILE)
            generation = self._publish(space, work, trained, covered_seq, len(model_ids))
        seconds = time.monotonic() - started
        with self.database.transaction() as session:
            snapshots.postpone(session, space.id, COOLDOWN_FACTOR * seconds)
        log.info("space %s: generation %s of %s vectors in %.1f s", space.id, generation, len(model_ids), seconds)
        return generation

    def _publish(
        self, space: SpaceRow, work: Path, trained: training.TrainedLists, covered_seq: int, count: int
    ) -> int:
        with self.database.transaction() as session:
            manifest = Manifest(
                space_key=space.key,
                generation=index_manifest.next_generation(work.parent, snapshots.last_generation(session, space.id)),
                covered_seq=covered_seq,
                vectors=count,
                dimension=space.dimension,
                lists=trained.lists.count,
                tuned=trained.tuned,
                files={name: FileRecord.from_file(work / name) for name in (LISTS_FILE, IDS_FILE)},
            )
            InvertedLists.open(work / LISTS_FILE)  # FAISS may write a short file without an error
            final, sha256 = index_manifest.publish(work, manifest)
            row = IndexSnapshot(
                space_id=space.id,
                generation=manifest.generation,
                covered_seq=covered_seq,
                vectors=count,
                kind=trained.lists.kind,
                path=f"{space.key}/{manifest.generation}",
                sha256=sha256,
                recall=trained.tuned[0].recall,
            )
            snapshots.publish(session, row)
            generations = snapshots.delete_all_but(session, space.id, KEPT_GENERATIONS)
        index_manifest.remove_all_but(final.parent, generations)
        return manifest.generation


def _load(session: Session, space: SpaceRow, work: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The model ids (n,) and normalized vectors (n, d) of a space, or None if there are fewer than two. The vectors are
    mapped from an unnamed temporary file. The session is a `Database.snapshot`.
    """
    count = vector_stream.count(session, space.id, space.dimension)
    if count < 2:
        return None
    model_ids, filled = np.empty(count, np.int64), 0
    with tempfile.TemporaryFile(dir=work) as file:
        # a full disk raises here; a write to the mapping would end the process with a signal
        os.posix_fallocate(file.fileno(), 0, 4 * space.dimension * count)
        vectors = np.memmap(file, np.float32, "r+", shape=(count, space.dimension))
    for ids, block in throttled(vector_stream.stream(session, space.id, space.dimension)):
        model_ids[filled : filled + len(ids)] = ids
        vectors[filled : filled + len(ids)] = normalize(block)
        filled += len(ids)
    return model_ids, np.asarray(vectors)


def as_disk_full(error: Exception) -> DiskFull | None:
    """The error as `DiskFull`, or None if it is another one. FAISS reports a failed write as a plain `RuntimeError`."""
    if isinstance(error, DiskFull):
        return error
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    failed_write = isinstance(error, RuntimeError) and "write" in str(error)
    if not full and not failed_write:
        return None
    return DiskFull(f"The index could not be written: {error}. Free space in the data directory of the workers.")


def main(space_id: int) -> int:
    """Build the index of a space if it is due. Returns the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    conf = settings()
    database = Database(conf.require_database_url())
    builder = IndexBuilder(database, conf.index_dir, index_schedule.BuildPolicy(conf.index_exact_bytes))
    try:
        builder.build(space_id)
    except CatalogError as error:
        log.error("the index of space %s was not built: %s: %s", space_id, error.code, error)
        return 1
    finally:
        database.close()
    return 0
