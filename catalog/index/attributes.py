"""What a process knows of the models that it may be asked to filter by, in columns, kept in step with Postgres."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.index.columns import NumberColumn, TagColumn, TextColumn
from catalog.index.filters import NO_FILTERS, Filters
from catalog.index.private import PrivateModels
from catalog.models.repository.attributes import Attributes

REMEMBERED = 64  # masks


class AttributeColumns:
    """Attributes of all models by model id; may be changed and asked by several threads."""

    def __init__(self) -> None:
        self.seq = 0  # the last change taken in
        self._size = 0  # one more than the greatest model id
        self._texts = {name: TextColumn() for name in ("owner", "base", "kind", "licence")}
        self._numbers = {name: NumberColumn() for name in ("downloads", "likes", "updated", "cluster")}
        self._tags = TagColumn()
        self._private = PrivateModels()
        self._masks: OrderedDict[tuple[Filters, Viewer], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def apply(self, changes: Sequence[Attributes]) -> None:
        """Take in the next changes, in their order."""
        newest = list({change.model_id: change for change in changes}.values())
        models = np.array([each.model_id for each in newest], np.int64)
        with self._lock:
            for name, text in self._texts.items():
                text.put(models, [getattr(each, name) for each in newest])
            for name, number in self._numbers.items():
                number.put(models, [getattr(each, name) for each in newest])
            self._tags.put(models, [sorted(set(each.tags)) for each in newest])
            self._private.put(newest)
            self._size = max(self._size, int(models.max()) + 1)
            self._masks.clear()
            self.seq = changes[-1].seq

    def mask(self, filters: Filters, viewer: Viewer = PUBLIC) -> np.ndarray | None:
        """The models that pass and that the viewer may see: bool (n + 1,), the last one false, for whoever is not
        known. Not to be changed. None where that is every model that there is.
        """
        with self._lock:
            if filters == NO_FILTERS and not self._private:
                return None
            seen = self._private.seen_by(viewer)
            asked = (filters, viewer if seen else PUBLIC)  # whoever sees no more than everybody shares one mask
            if asked in self._masks:
                self._masks.move_to_end(asked)
                return self._masks[asked]
            passing = self._passing(filters)
            self._private.hide(passing, seen)
            self._masks[asked] = mask = np.append(passing, False)
            if len(self._masks) > REMEMBERED:
                self._masks.popitem(last=False)
            return mask

    def _passing(self, filters: Filters) -> np.ndarray:
        size = self._size
        passing = self._texts["owner"].given(size)  # every model that is known has one
        texts = (("base", filters.bases), ("owner", filters.owners), ("kind", filters.kinds))
        for name, wanted in (*texts, ("licence", filters.licences)):
            if wanted:
                passing &= self._texts[name].any_of(wanted, size)
        if filters.not_owners:
            passing &= ~self._texts["owner"].any_of(filters.not_owners, size)
        if filters.clusters:
            passing &= self._numbers["cluster"].any_of(filters.clusters, size)
        since = filters.updated_since.timestamp() if filters.updated_since else None
        for name, least in (("downloads", filters.min_downloads), ("likes", filters.min_likes), ("updated", since)):
            if least is not None:
                passing &= self._numbers[name].at_least(least, size)
        if filters.tags:
            passing &= self._tags.all_of(filters.tags, size)
        return passing
