"""The modules that are proposed for a task, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catalog.database import Database
from catalog.errors import NoCandidates, Refused
from catalog.models.repository import models
from catalog.selections.strategies import Arm, Candidates, propose
from catalog.tables import Model
from workers.encoding.resident_base import ResidentBase
from workers.ingest.fetcher import Fetcher
from workers.process.cancellation import check
from workers.process.file_locks import Hold
from workers.selections.weights import Part, part_of

MAX_REFUSED = 20  # that cannot be had, before a selection is given up


@dataclass(frozen=True, eq=False)
class Module:
    """A part, and its cosine to the task."""

    part: Part
    similarity: float


class Modules:
    """Proposes of the candidates those that can be had; the others are `left_out`, with the codes of what stood in the
    way, and others are proposed in their places.
    """

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        base: ResidentBase,
        candidates: Candidates,
        *,
        max_refused: int = MAX_REFUSED,
    ) -> None:
        self._database = database
        self._fetcher = fetcher
        self._base = base
        self._candidates = candidates
        self._max_refused = max_refused
        self._held: dict[int, Part] = {}
        self.left_out: dict[str, str] = {}

    def __len__(self) -> int:
        """Candidates that are left."""
        return len(self._candidates)

    def propose(self, arms: Sequence[Arm], count: int, seed: int) -> dict[Arm, list[Module]]:
        """Each arm's set. Raises `NoCandidates`, `Stopped`, and what fetching raises when it may pass."""
        while True:
            if not len(self) or len(self.left_out) > self._max_refused:
                raise NoCandidates(self._reason())
            wanted = {arm: propose(arm, self._candidates, count, seed) for arm in arms}
            refused = self._hold({model_id for ids in wanted.values() for model_id in ids})
            if not refused:
                similar = dict(zip(self._candidates.ids.tolist(), self._candidates.cosines.tolist(), strict=True))
                return {
                    arm: [Module(self._held[model_id], similar[model_id]) for model_id in ids]
                    for arm, ids in wanted.items()
                }
            self._candidates = self._candidates.without(refused)

    def _hold(self, wanted: set[int]) -> set[int]:
        """Have those in memory, and no others; returns those that cannot be had."""
        self._held = {model_id: part for model_id, part in self._held.items() if model_id in wanted}
        missing = sorted(wanted - set(self._held))
        with self._database.transaction() as session:
            named: Mapping[int, Model] = models.by_ids(session, missing)
        refused = set(missing) - set(named)  # deleted meanwhile
        for model_id, model in named.items():
            check()
            try:
                with Hold() as hold:
                    finetune = self._fetcher.again(model, hold)
                self._held[model_id] = part_of(model.repo_id, finetune, self._base)
            except Refused as error:
                self.left_out[model.repo_id] = error.code
                refused.add(model_id)
        return refused

    def _reason(self) -> str:
        if self.left_out:
            return f"Of the models that were proposed {len(self.left_out)} cannot be had: add or refresh some."
        return "There is no plain LoRA adapter on this base that everybody may see: add some, or ask the task again."
