"""A base modified by an adapter: the result is discarded, the base is loaded again, and the job is retried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sqlalchemy import func, update
from torch import nn

from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_folder
from catalog.spaces.probes import load_probes
from catalog.tables import Job, JobState
from catalog.vectors.repository import feed, vectors
from tests.support import pico
from tests.support.pipeline import assemble
from tests.support.trained_norm import with_trained_norm
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune


def test_modified_base_is_loaded_again_and_the_job_retried(database: Database, pico_base: Path, tmp_path: Path):
    worker = assemble(database, pico_base, tmp_path)
    folder = with_trained_norm(tmp_path / "one")
    first = worker.bases.get(worker.resolver.resolve({"declared": pico.BASE_ID})).encoder

    def add_in_place(module: nn.Module, args: object) -> None:
        with torch.no_grad():
            module.up_proj.weight[3] += 1e-3

    first.base.model.layers[0].mlp.register_forward_pre_hook(add_in_place)
    job = submit_folder(database, folder)
    worker.pipeline.ingest(job.id)
    with database.transaction() as session:
        waiting = jobs.get(session, job.id)
        assert (waiting.state, waiting.error_code) == (JobState.QUEUED, "base_model_corrupted")
        assert feed.last_seq(session) == 0
        session.execute(update(Job).values(available_at=func.now()))  # without the retry delay

    worker.pipeline.ingest(job.id)
    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.DONE
        stored = vectors.get_encoding(session, "local/one", features=("delta_activations",)).vector
    fresh_encoder = Encoder(ResidentBase.load(pico_base / pico.BASE_ID, pico.BASE_ID, "0"), load_probes())
    np.testing.assert_allclose(
        stored, fresh_encoder.encode([read_finetune(folder)])[0].vectors["delta_activations"], atol=1e-6
    )
