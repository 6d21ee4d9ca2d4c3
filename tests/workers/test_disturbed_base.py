"""An adapter that leaves traces in the base: its result is thrown away, the base loaded again, the job run again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy import func, update
from torch import nn

from catalog.database import Database
from catalog.probes import load_probes
from catalog.repository import jobs, vectors, workers
from catalog.submissions import submit_folder
from catalog.tables import Job, JobState
from tests import pico
from workers.bases import Contract, ResidentBases
from workers.encoding import Encoder, ResidentBase, read_finetune
from workers.fetching import Fetcher
from workers.hub import Hub
from workers.pipeline import Pace, Pipeline, RetryPolicy
from workers.resolver import BaseResolver


def with_trained_norm(folder: Path) -> Path:
    """An adapter that cannot go through the hooks of plain LoRA."""
    weights = pico.make_adapter(folder) / "adapter_model.safetensors"
    norm = {"base_model.model.model.norm.weight": torch.linspace(0.5, 1.5, pico.HIDDEN)}
    save_file(load_file(weights) | norm, weights)
    return folder


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
        assert vectors.last_seq(session) == 0
        session.execute(update(Job).values(available_at=func.now()))  # do not wait for the backoff

    pipeline.ingest(job.id)
    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.DONE
        stored = vectors.newest(session, "local/one", features=("delta_activations",)).vector
    alone = Encoder(ResidentBase.load(pico_base / pico.BASE_ID, pico.BASE_ID, "0"), load_probes())
    np.testing.assert_allclose(stored, alone.encode([read_finetune(folder)])[0].vectors["delta_activations"], atol=1e-6)
