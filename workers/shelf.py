"""Where an encoded fine-tune goes in the catalog."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy.orm import Session

from catalog import privacy
from catalog.groups import Placer
from catalog.repository import models, spaces, vectors
from catalog.tables import ModelState
from workers.bases import Resident
from workers.encoding import Encoding
from workers.fetching import Fetched

EXPLAINED = "delta_activations"  # the feature whose shift the output head can read


class Shelf:
    """Writes what was measured of a fine-tune, for those who may see it. The caller holds `vectors.lock_feed`."""

    def __init__(self) -> None:
        self._placer = Placer()

    def put(self, session: Session, resident: Resident, each: Fetched, encoding: Encoding) -> None:
        """The revision becomes the model's current one, with its vectors in their spaces."""
        revision = models.make_current(
            session,
            each.job.model_id,
            each.sha,
            kind=each.finetune.kind,
            base_repo=each.base.repo,
            base_sha=each.base.sha,
            evidence=each.base.evidence,
        )
        vectors.retire(session, each.job.model_id, each.base.repo, each.base.sha)
        if each.metadata is not None:
            models.describe(session, each.job.model_id, each.metadata)
        if each.card is not None:
            models.set_card(session, each.job.model_id, each.card)
        moved = False
        for feature, vector in encoding.vectors.items():
            norm = encoding.norms[feature]
            no_shift = norm <= resident.noise_floor[feature]
            moved = moved or not no_shift
            space = spaces.ensure(session, resident.encoder.space(feature), vector.size)
            told = asdict(encoding.explanation) if encoding.explanation and feature == EXPLAINED else None
            vectors.store(session, space, revision, vector, norm=norm, no_shift=no_shift, explanation=told)
            if not each.job.model.private:  # of these nothing is made that all share
                self._placer.place(session, space, each.job.model_id, None if no_shift else vector)
        privacy.settle(session, each.job)
        models.set_state(session, each.job.model_id, ModelState.INDEXED if moved else ModelState.NO_SHIFT)
