"""Where an encoded fine-tune goes in the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from sqlalchemy.orm import Session

from catalog.clusters.assignment import Placer
from catalog.jobs import private_models
from catalog.models.repository import models
from catalog.reindexes.repository import reindexes
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.tables import ACTIVE_REINDEX, ModelState, Revision, SpaceRow
from catalog.vectors.repository import feed
from workers.bases.residents import Resident
from workers.encoding.encoder import Encoding
from workers.ingest.fetcher import Fetched

EXPLAINED = "delta_activations"  # the feature whose shift the output head can read

Where = Callable[[Space, int], SpaceRow]


class Shelf:
    """Writes what was measured of a fine-tune, for those who may see it. The caller holds `vectors.lock_feed`."""

    def __init__(self) -> None:
        self._placer = Placer()

    def put(self, session: Session, resident: Resident, each: Fetched, encoding: Encoding) -> None:
        """The revision becomes the model's current one, with its vectors at home; what a reindex measured anew goes
        beside what there is, and nothing else changes before its switch.
        """
        if each.job.measures_anew:
            self._put_beside(session, resident, each, encoding)
            return
        revision = models.make_current(
            session,
            each.job.model_id,
            each.sha,
            kind=each.finetune.kind,
            base_repo=each.base.repo,
            base_sha=each.base.sha,
            evidence=each.base.evidence,
            facts=each.finetune.facts,
        )
        feed.retire(session, each.job.model_id, each.base.repo)
        if each.metadata is not None:
            models.describe(session, each.job.model_id, each.metadata)
        if each.card is not None:
            models.set_card(session, each.job.model_id, each.card)

        def home(space: Space, dimension: int) -> SpaceRow:
            return spaces.home(session, space, dimension)

        moved = self._store(session, resident, revision, encoding, home, private=each.job.model.private)
        private_models.settle(session, each.job)
        models.set_state(session, each.job.model_id, ModelState.INDEXED if moved else ModelState.NO_SHIFT)

    def _put_beside(self, session: Session, resident: Resident, each: Fetched, encoding: Encoding) -> None:
        """Nothing where the reindex is over, or where the model has another revision by now: that is carried over."""
        reindex = reindexes.get(session, each.job.reindex_id or 0)
        revision = models.current_revision(session, each.job.model_id)
        if reindex.state not in ACTIVE_REINDEX or revision is None or revision.sha != each.sha:
            return
        if (revision.base_repo, revision.base_sha) != (each.base.repo, each.base.sha):
            reindexes.note_move(
                session,
                reindex.id,
                revision,
                kind=each.finetune.kind,
                base_repo=each.base.repo,
                base_sha=each.base.sha,
                evidence=each.base.evidence,
            )

        def beside(space: Space, dimension: int) -> SpaceRow:
            return spaces.ensure(session, replace(space, edition=reindex.id), dimension)

        self._store(session, resident, revision, encoding, beside)

    def _store(
        self,
        session: Session,
        resident: Resident,
        revision: Revision,
        encoding: Encoding,
        where: Where,
        *,
        private: bool = False,
    ) -> bool:
        """Whether it moves its base."""
        moved = False
        base = resident.encoder.base
        for feature, vector in encoding.vectors.items():
            norm = encoding.norms[feature]
            no_shift = norm <= resident.noise_floor[feature]
            moved = moved or not no_shift
            contract = resident.encoder.space(feature)
            space = where(contract, vector.size)
            spaces.share_base_table(session, contract, space, base.repo, base.sha)
            told = asdict(encoding.explanation) if encoding.explanation and feature == EXPLAINED else None
            feed.store(session, space, revision, vector, norm=norm, no_shift=no_shift, explanation=told)
            if not private:  # of these nothing is made that all share
                self._placer.place(session, space, revision.model_id, None if no_shift else vector)
        return moved
