"""An adapter that leaves traces in the base: its result is thrown away, the base loaded again, the job run again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sqlalchemy import func, update
from torch import nn

from catalog.database import Database
from catalog.jobs.repository import jobs, workers
from catalog.jobs.submissions import submit_folder
from catalog.spaces.probes import load_probes
from catalog.tables import Job, JobState
from catalog.vectors.repository import feed, vectors
from tests.support import pico
from tests.support.trained_norm import with_trained_norm
from workers.bases.residents import Contract, ResidentBases
from workers.bases.resolver import BaseResolver
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune
from workers.hub.client import Hub
from workers.ingest.fetcher import Fetcher
from workers.ingest.pipeline import Pace, Pipeline, RetryPolicy


def test_the_base_is_loaded_again_and_the_job_run_again(database: Database, pico_base: Path, tmp_path: Path):
    with database.transaction() as session:
        worker_id = workers.register(session, "here", 1, "cpu")
    hub = Hub("http://127.0.0.1:9", None, tmp_path / "downloads", timeout=30, max_file_bytes=10**9, max_repo_files=100)
    contract, resolver = Contract(load_probes()), BaseResolver(hub, pico_base)
    bases = ResidentBases(database, contract, 10**9)
    fetcher = Fetcher(database, hub, resolver, contract, max_file_bytes=10**9)
    pipeline = Pipeline(database, fetcher, bases, worker_id, pace=Pace(batch=4), retries=RetryPolicy(3, 100))
    folder = with_trained_norm(tmp_path / "one")
    first = bases.get(resolver.resolve(declared=pico.BASE_ID, card_base=None)).encoder

    def add_in_place(module: nn.Module, args: object) -> None:
        with torch.no_grad():
            module.up_proj.weight[3] += 1e-3

    first.base.model.layers[0].mlp.register_forward_pre_hook(add_in_place)
    job = submit_folder(database, folder)
    pipeline.ingest(job.id)
    with database.transaction() as session:
        waiting = jobs.get(session, job.id)
        assert (waiting.state, waiting.error_code) == (JobState.QUEUED, "base_disturbed")
        assert feed.last_seq(session) == 0
        session.execute(update(Job).values(available_at=func.now()))  # do not wait for the backoff

    pipeline.ingest(job.id)
    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.DONE
        stored = vectors.newest(session, "local/one", features=("delta_activations",)).vector
    alone = Encoder(ResidentBase.load(pico_base / pico.BASE_ID, pico.BASE_ID, "0"), load_probes())
    np.testing.assert_allclose(stored, alone.encode([read_finetune(folder)])[0].vectors["delta_activations"], atol=1e-6)
