"""Keeps a process's indexes in step with the change feed and with the main segments that builders publish."""

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
from catalog.index.loader import PAGE, Loaded, Loader, brought_up
from catalog.index.mapped_segment import MappedSegment
from catalog.index.space_index import SpaceIndex
from catalog.models.repository import attributes
from catalog.tables import IndexSnapshot
from catalog.vectors.repository import feed

MEMORY = 4 * 2**30  # bytes
ATTRIBUTES_PAGE = 10_000  # models whose attributes are read at once
PATIENCE = 30.0  # seconds that a search waits for the index of its space

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpaceReport:
    """A loaded index: its main segment's generation (0: none), vectors in all and beside it, bytes, last change."""

    space_id: int
    generation: int
    vectors: int
    fresh: int
    memory: int
    covered_seq: int
    problem: str | None


class Follower:
    """The indexes of a process. One thread reads the feed every `interval` seconds and is the only one that changes
    them; what takes longer (loading, opening, checking) happens in others. A space is loaded by its first search and
    leaves, the least used first, when more than `memory` bytes are loaded.

    Searches go on while the database is away; they answer from what was read last.
    """

    def __init__(
        self, database: Database, interval: float, folder: Path | None = None, *, memory: int = MEMORY
    ) -> None:
        self._database = database
        self._interval = interval
        self._memory = memory
        self._loader = Loader(database, folder)
        self._indexes: OrderedDict[int, SpaceIndex] = OrderedDict()  # the most used last
        self._loading: dict[int, Future[SpaceIndex]] = {}
        self._busy: dict[int, int] = {}  # generation that is being opened or could not be
        self._problems: dict[int, str] = {}
        self._lock = threading.Lock()  # of those above
        self._attributes = AttributeColumns()
        self._attributes_loaded = threading.Event()
        self._results: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._work = ThreadPoolExecutor(2, "index")
        self._loaded = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._work.shutdown(cancel_futures=True)

    @property
    def loaded(self) -> bool:
        """Whether the feed has been read: from then on spaces are loaded when they are asked for."""
        return self._loaded.is_set()

    @property
    def damages(self) -> int:
        """How many segments were found damaged so far."""
        return self._loader.damages

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
        """The index of a space, loaded if it is not. The caller must hold no connection to the database: loading
        needs one. Raises `IndexNotLoaded` before the first look at the feed, and when loading takes too long.
        """
        if not self.loaded:
            raise IndexNotLoaded("The index is still being read from Postgres; try again in a moment.", retry_after=1)
        with self._lock:
            if space_id in self._indexes:
                self._indexes.move_to_end(space_id)
                return self._indexes[space_id]
            if space_id not in self._loading:
                self._loading[space_id] = self._work.submit(self._load, space_id, dimension)
            loading = self._loading[space_id]
        try:
            return loading.result(PATIENCE)
        except TimeoutError:
            raise IndexNotLoaded("The index of this space is still being loaded.", retry_after=5) from None

    def allowed(self, filters: Filters, viewer: Viewer = PUBLIC) -> np.ndarray | None:
        """The models that pass and that the viewer may see, for `SpaceIndex.search`; None: all that there are.

        Raises `IndexNotLoaded` while attributes are being read.
        """
        if not self._attributes_loaded.wait(PATIENCE):
            raise IndexNotLoaded("What models are filtered by is still being read from Postgres.", retry_after=5)
        return self._attributes.mask(filters, viewer)

    def catch_up(self) -> int:
        """Take in what is new: the feed to its end, and what other threads have opened. Returns the entries read."""
        self._take_results()
        total = 0
        while True:
            with self._lock:
                indexes = dict(self._indexes)
            with self._database.transaction() as session:
                page = feed.changes_of(session, {each: index.covered_seq for each, index in indexes.items()}, PAGE)
                published = snapshots.newest(session, indexes)
                for space_id, numbers in geometries.newest(session, indexes).items():
                    index = indexes[space_id]
                    index.geometries = brought_up(session, index.geometries, numbers)
                # read after the vectors and taken in before them: a model is never found before it can be filtered
                changed = attributes.changes(session, self._attributes.seq, ATTRIBUTES_PAGE)
            self._loaded.set()
            if changed:
                self._attributes.apply(changed)
            if len(changed) < ATTRIBUTES_PAGE:
                self._attributes_loaded.set()
            by_space = sorted(page, key=lambda change: (change.space_id, change.seq))
            for space_id, changes in groupby(by_space, key=lambda change: change.space_id):
                indexes[space_id].apply(list(changes))
            total += len(page)
            if len(page) < PAGE and len(changed) < ATTRIBUTES_PAGE:
                break
        for space_id, index in indexes.items():
            self._look_after(space_id, index, published.get(space_id, []))
        self._forget_the_least_used()
        return total

    def _load(self, space_id: int, dimension: int) -> SpaceIndex:
        try:
            loaded = self._loader.load(space_id, dimension)
            self._keep(space_id, loaded)
            return loaded.index
        finally:
            with self._lock:
                self._loading.pop(space_id, None)

    def _keep(self, space_id: int, loaded: Loaded) -> None:
        with self._lock:
            self._indexes[space_id] = loaded.index
            self._indexes.move_to_end(space_id)
            self._problems.pop(space_id, None)
            if loaded.problems:
                self._problems[space_id] = " ".join(loaded.problems)
        self._forget_the_least_used()

    def _forget_the_least_used(self) -> None:
        with self._lock:
            total = sum(index.memory for index in self._indexes.values())
            while total > self._memory and len(self._indexes) > 1:
                _, forgotten = self._indexes.popitem(last=False)
                total -= forgotten.memory

    def _look_after(self, space_id: int, index: SpaceIndex, published: list[IndexSnapshot]) -> None:
        """Go over to what a builder has published, and away from what somebody found broken."""
        generations = [snapshot.generation for snapshot in published]
        if index.main is not None and index.generation in generations:
            try:
                index.main.check_sizes()
            except IndexDamaged as error:
                self._give_up(space_id, index.main, error)
        if generations and generations[0] > index.generation:
            newest = published[0]
            self._once(space_id, newest.generation, lambda: self._open(space_id, index, newest))
        elif index.generation and index.generation not in generations:
            self._once(space_id, -index.generation, lambda: self._reload(space_id, index))

    def _once(self, space_id: int, generation: int, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception:
                log.exception("space %s: the index could not be brought up to date; trying again", space_id)
                self._busy.pop(space_id, None)

        if self._busy.get(space_id) != generation:
            self._busy[space_id] = generation
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
                with self._lock:  # a report tells either of the old generation and its problem, or of the new one
                    index.swap(main)
                    self._problems.pop(space_id, None)

        self._results.put(swap)
        return None

    def _reload(self, space_id: int, index: SpaceIndex) -> None:
        loaded = self._loader.load(space_id, index.dimension)
        self._results.put(lambda: self._keep(space_id, loaded))

    def _give_up(self, space_id: int, main: MappedSegment, error: IndexDamaged) -> None:
        """The next look finds the generation among the broken ones and loads another, while this one still answers."""
        log.error("space %s: %s", space_id, error)
        self._loader.damages += 1
        if main.folder.is_dir():
            self._loader.report_broken(space_id, main.manifest.generation, str(error))

    def _take_results(self) -> None:
        while True:
            try:
                self._results.get_nowait()()
            except Empty:
                return

    def _run(self) -> None:
        while not self._stopping.wait(self._interval if self.loaded else 0):
            try:
                self.catch_up()
            except DatabaseUnavailable as error:
                log.warning("the change feed cannot be read: %s", error)
                self._stopping.wait(1)
            except Exception:
                log.exception("the change feed could not be applied; loading the indexes anew")
                with self._lock:
                    self._indexes.clear()  # better loaded again than half there
                self._stopping.wait(1)
