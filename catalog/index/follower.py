"""Keeps the indexes of a process up to date with the change feed and with the main segments that builders publish."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import DatabaseUnavailable, IndexDamaged, IndexNotLoaded
from catalog.geometry import repository as geometries
from catalog.index import repository as snapshots
from catalog.index.attributes import AttributeColumns
from catalog.index.filters import Filters
from catalog.index.loader import FEED_PAGE_SIZE, IndexLoader, LoadedIndex, refresh_geometries
from catalog.index.mapped_segment import MappedSegment
from catalog.index.space_index import SpaceIndex
from catalog.models.repository import attributes
from catalog.spaces import repository as spaces
from catalog.tables import IndexSnapshot
from catalog.threads.periodic_thread import PeriodicThread
from catalog.vectors.repository import feed

DEFAULT_MEMORY = 4 * 2**30  # bytes
ATTRIBUTE_PAGE_SIZE = 10_000  # models
LOAD_TIMEOUT = 30.0  # seconds that a search waits for the index of its space
RETRY_INTERVAL = 1.0  # seconds until the next sync after one that failed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpaceReport:
    """The state of a loaded index: the generation of its main segment (0: none), the number of vectors, how many of
    them are in fresh segments, the memory in bytes, the last change that it covers, and why its newest main segment
    could not be used.
    """

    space_id: int
    generation: int
    vectors: int
    fresh: int
    memory: int
    covered_seq: int
    problem: str | None


class IndexFollower:
    """The indexes of a process. One thread reads the feed every `interval` seconds, and only that thread changes an
    index; other threads load indexes and open segments, which takes longer. The first search in a space loads its
    index. When more than `memory` bytes are loaded, the least recently used index is evicted.

    While the database is unreachable, searches are answered from the changes that were read before. Searches read the
    vectors of main segments from `reader`, by default the same database.
    """

    def __init__(
        self,
        database: Database,
        interval: float,
        folder: Path | None = None,
        *,
        memory: int = DEFAULT_MEMORY,
        reader: Database | None = None,
    ) -> None:
        self._database = database
        self._interval = interval
        self._synced = False  # whether the last sync succeeded
        self._memory = memory
        self._loader = IndexLoader(database, folder, reader)
        self._indexes: OrderedDict[int, SpaceIndex] = OrderedDict()  # the most recently used last
        self._loading: dict[int, Future[SpaceIndex]] = {}
        self._attempted: dict[int, int] = {}  # the generation that is being opened or could not be opened
        self._problems: dict[int, str] = {}
        self._lock = threading.Lock()  # guards the indexes, the loads and the problems
        self._attributes = AttributeColumns()
        self._attributes_loaded = threading.Event()
        self._results: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._work = ThreadPoolExecutor(2, "index")
        self._loaded = threading.Event()
        self._thread = PeriodicThread("index-follower", self._sync_or_reload, self._pause)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()
        self._work.shutdown(cancel_futures=True)

    @property
    def loaded(self) -> bool:
        """Whether the feed has been read once. From then on `index` loads spaces."""
        return self._loaded.is_set()

    @property
    def damaged_segments(self) -> int:
        """The number of segments that were found damaged so far."""
        return self._loader.damaged_segments

    def report(self) -> list[SpaceReport]:
        with self._lock:
            return [
                SpaceReport(
                    space_id,
                    index.generation,
                    len(index),
                    index.fresh_vectors,
                    index.memory,
                    index.covered_seq,
                    self._problems.get(space_id),
                )
                for space_id, index in self._indexes.items()
            ]

    def index(self, space_id: int, dimension: int) -> SpaceIndex:
        """The index of a space, loaded if necessary. The caller must not hold a database connection, because loading
        needs one. Raises `IndexNotLoaded` until the feed has been read once, and if loading takes too long.
        """
        if not self.loaded:
            raise IndexNotLoaded("The index is still being read from Postgres. Try again in a moment.", retry_after=1)
        with self._lock:
            if space_id in self._indexes:
                self._indexes.move_to_end(space_id)
                return self._indexes[space_id]
            if space_id not in self._loading:
                self._loading[space_id] = self._work.submit(self._load, space_id, dimension)
            loading = self._loading[space_id]
        try:
            return loading.result(LOAD_TIMEOUT)
        except TimeoutError:
            raise IndexNotLoaded(
                "The index of this space is still being loaded. Try again in a moment.", retry_after=5
            ) from None

    def allowed(self, filters: Filters, viewer: Viewer = PUBLIC) -> np.ndarray | None:
        """The models that pass the filters and that the viewer may see, as `SpaceIndex.search` takes them; None: all.

        Raises `IndexNotLoaded` while attributes are being read.
        """
        if not self._attributes_loaded.wait(LOAD_TIMEOUT):
            raise IndexNotLoaded(
                "Model attributes are still being read from Postgres. Try again in a moment.", retry_after=5
            )
        return self._attributes.mask(filters, viewer)

    def sync(self) -> int:
        """Apply the feed up to its end, and the results of other threads. Returns the number of feed entries read."""
        self._apply_results()
        total = 0
        while True:
            with self._lock:
                indexes = dict(self._indexes)
            with self._database.transaction() as session:
                page = feed.list_space_changes(
                    session, {space_id: index.covered_seq for space_id, index in indexes.items()}, FEED_PAGE_SIZE
                )
                published = snapshots.list_newest(session, indexes)
                dropped = set(indexes) - snapshots.existing_spaces(session, indexes)
                for space_id, current in geometries.current_ids(session, indexes).items():
                    index = indexes[space_id]
                    index.geometries = refresh_geometries(session, index.geometries, current)
                # read after the vectors and applied before them, so that no model is found before it can be filtered
                runs = spaces.list_filter_runs(session)
                new_runs = set(runs) - self._attributes.runs
                members = {run: attributes.list_members(session, run) for run in new_runs}
                changed = attributes.list_changes(session, self._attributes.seq, ATTRIBUTE_PAGE_SIZE, runs)
            self._loaded.set()
            self._evict(dropped)
            if self._attributes.runs != set(runs):
                self._attributes.show_runs(runs, members)
            if changed:
                self._attributes.apply(changed)
            if len(changed) < ATTRIBUTE_PAGE_SIZE:
                self._attributes_loaded.set()
            by_space = sorted(page, key=lambda change: (change.space_id, change.seq))
            for space_id, changes in groupby(by_space, key=lambda change: change.space_id):
                indexes[space_id].apply(list(changes))
            total += len(page)
            if len(page) < FEED_PAGE_SIZE and len(changed) < ATTRIBUTE_PAGE_SIZE:
                break
        for space_id, index in indexes.items():
            self._refresh_main_segment(space_id, index, published.get(space_id, []))
        self._evict_least_used()
        return total

    def _load(self, space_id: int, dimension: int) -> SpaceIndex:
        try:
            loaded = self._loader.load(space_id, dimension)
            self._install(space_id, loaded)
            return loaded.index
        finally:
            with self._lock:
                self._loading.pop(space_id, None)

    def _install(self, space_id: int, loaded: LoadedIndex) -> None:
        with self._lock:
            self._indexes[space_id] = loaded.index
            self._indexes.move_to_end(space_id)
            self._problems.pop(space_id, None)
            if loaded.problems:
                self._problems[space_id] = " ".join(loaded.problems)
        self._evict_least_used()

    def _evict(self, dropped: set[int]) -> None:
        """Evict the indexes of spaces that were dropped."""
        with self._lock:
            for space_id in dropped:
                self._indexes.pop(space_id, None)
                self._problems.pop(space_id, None)

    def _evict_least_used(self) -> None:
        with self._lock:
            total = sum(index.memory for index in self._indexes.values())
            while total > self._memory and len(self._indexes) > 1:
                _, evicted = self._indexes.popitem(last=False)
                total -= evicted.memory

    def _refresh_main_segment(self, space_id: int, index: SpaceIndex, published: list[IndexSnapshot]) -> None:
        """Switch to a newer published segment, and away from one that was marked broken."""
        generations = [snapshot.generation for snapshot in published]
        if index.main is not None and index.generation in generations:
            try:
                index.main.check_sizes()
            except IndexDamaged as error:
                self._mark_damaged(space_id, index.main, error)
        if generations and generations[0] > index.generation:
            newest = published[0]
            self._submit_once(space_id, newest.generation, lambda: self._open(space_id, index, newest))
        elif index.generation and index.generation not in generations:
            self._submit_once(space_id, -index.generation, lambda: self._reload(space_id, index))

    def _submit_once(self, space_id: int, generation: int, task: Callable[[], None]) -> None:
        def run() -> None:
            try:
                task()
            except Exception:
                log.exception("space %s: the index could not be updated; trying again", space_id)
                self._attempted.pop(space_id, None)

        if self._attempted.get(space_id) != generation:
            self._attempted[space_id] = generation
            self._work.submit(run)

    def _open(self, space_id: int, index: SpaceIndex, snapshot: IndexSnapshot) -> None:
        if not index.can_swap(snapshot.covered_seq):
            return self._reload(space_id, index)
        try:
            main = self._loader.open(snapshot)
        except IndexDamaged as error:
            with self._lock:
                self._problems[space_id] = str(error)
            return None

        def swap() -> None:
            if index.can_swap(snapshot.covered_seq):
                with self._lock:  # a report never pairs the new generation with the problem of the old one
                    index.swap(main)
                    self._problems.pop(space_id, None)

        self._results.put(swap)
        return None

    def _reload(self, space_id: int, index: SpaceIndex) -> None:
        loaded = self._loader.load(space_id, index.dimension)
        self._results.put(lambda: self._install(space_id, loaded))

    def _mark_damaged(self, space_id: int, main: MappedSegment, error: IndexDamaged) -> None:
        """Mark the segment broken. It answers searches until the next sync has loaded another one."""
        log.error("space %s: %s", space_id, error)
        self._loader.damaged_segments += 1
        if main.folder.is_dir():
            self._loader.report_broken(space_id, main.manifest.generation, str(error))

    def _apply_results(self) -> None:
        while True:
            try:
                self._results.get_nowait()()
            except Empty:
                return

    def _pause(self) -> float:
        """Seconds until the next sync."""
        return self._interval if self._synced else RETRY_INTERVAL

    def _sync_or_reload(self) -> None:
        """Sync. After an error, the indexes are loaded again, because they may have been updated in part."""
        self._synced = False
        try:
            self.sync()
        except DatabaseUnavailable:
            raise
        except BaseException:
            with self._lock:
                self._indexes.clear()
            raise
        self._synced = True
