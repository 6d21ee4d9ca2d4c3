from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import redis
from sqlalchemy import func, select, update

from app.deployment.embedded import EmbeddedServers
from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.runner import ClusterRunner
from catalog.database import Database
from catalog.hub_sync.removals import remove_model
from catalog.jobs import control as job_control
from catalog.jobs import submissions
from catalog.jobs.repository import attempts, claims, jobs, workers
from catalog.jobs.submissions import submit_folder
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE
from catalog.spaces import repository as spaces
from catalog.spaces.probes import load_probes
from catalog.tables import BaseProof, Job, JobState, ModelState, Priority, SpaceRow, Vector
from catalog.vectors.repository import feed, vectors
from tests.support import pico
from tests.support.clusters import cluster_filters
from tests.support.pipeline import make_pipeline
from workers.bases.memory_limit import MemoryLimit
from workers.bases.residents import MeasurementSettings, ResidentBases
from workers.finetunes.shape_fit import weight_shapes
from workers.ingest.claimer import BatchPolicy
from workers.ingest.fetcher import Fetched, Fetcher
from workers.ingest.pipeline import Pipeline

OTHER = "pico/other"


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    return make_pipeline(database, pico_base, tmp_path)


def test_folder_becomes_a_vector(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "one"))

    assert pipeline.ingest(job.id) == 1

    with database.transaction() as session:
        ended = jobs.get(session, job.id)
        stored = vectors.get_encoding(session, "local/one", features=("delta_activations",))
    assert (ended.state, ended.progress, ended.error_code) == (JobState.DONE, 1, None)
    assert stored.vector.shape == (pico.HIDDEN,)
    assert stored.model.state == ModelState.INDEXED
    assert stored.revision.base_repo == pico.BASE_ID


def test_text_of_the_model_card_is_stored(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    folder = pico.make_adapter(tmp_path / "one")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nAnswers about contracts.\n")

    pipeline.ingest(submit_folder(database, folder).id)

    with database.transaction() as session:
        assert models.get(session, "local/one").card == "Answers about contracts."


def test_stored_model_is_assigned_to_the_nearest_cluster(
    database: Database, pipeline: Pipeline, tmp_path: Path
) -> None:
    for seed in range(3):
        pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", seed=seed)).id)
    run, space = cluster_service.request_run(database, Parameters("kmeans", clusters=1))
    ClusterRunner(database, tmp_path).run(space.id)

    shutil.copytree(tmp_path / "m0", tmp_path / "copy")
    pipeline.ingest(submit_folder(database, tmp_path / "copy").id)

    duplicate, first = (cluster_service.get_assignment(database, f"local/{name}") for name in ("copy", "m0"))
    assert (duplicate.run_id, duplicate.cluster_id, duplicate.assigned_after_run) == (run.id, first.cluster_id, True)
    assert cluster_filters(database)["local/copy"] == first.cluster_id


def test_one_message_is_enough_for_all_queued_jobs(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    submitted = [submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", seed=seed)) for seed in range(6)]

    assert pipeline.ingest(submitted[5].id) == 6
    assert pipeline.ingest(submitted[5].id) == 0
    with database.transaction() as session:
        assert jobs.count_by_state(session)[JobState.DONE] == 6


def test_nothing_is_claimed_or_enqueued_while_the_queue_is_paused(
    database: Database, pipeline: Pipeline, tmp_path: Path, servers: EmbeddedServers
) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "one"))
    job_control.pause(database, "encode")
    with redis.Redis.from_url(servers.redis_url) as broker:
        broker.flushdb()
        assert pipeline.ingest(job.id) == 0
        assert broker.llen(ENCODE_QUEUE) == 0
        job_control.resume(database, "encode")
        assert broker.llen(ENCODE_QUEUE) == 1
    assert pipeline.ingest(job.id) == 1


def test_bad_adapter_fails_only_its_job(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    good = submit_folder(database, pico.make_adapter(tmp_path / "good"))
    weights = pico.make_adapter(tmp_path / "cut") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    bad = submit_folder(database, tmp_path / "cut")

    pipeline.ingest(good.id)

    with database.transaction() as session:
        assert jobs.get(session, good.id).state == JobState.DONE
        failed = jobs.get(session, bad.id)
        assert (failed.state, failed.error_code) == (JobState.FAILED, "corrupt_weights")
        assert models.get(session, "local/cut").state == ModelState.FAILED


def test_adapter_without_effect_is_stored_as_no_shift(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "still", scale=0))

    pipeline.ingest(job.id)

    with database.transaction() as session:
        assert vectors.get_encoding(session, "local/still", features=("delta_activations",)).no_shift
        assert models.get(session, "local/still").state == ModelState.NO_SHIFT


def test_unchanged_folder_is_not_embedded_twice(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    folder = pico.make_adapter(tmp_path / "one")
    pipeline.ingest(submit_folder(database, folder).id)
    with database.transaction() as session:
        before = feed.last_seq(session)

    resubmitted = submit_folder(database, folder)
    pipeline.ingest(resubmitted.id)

    with database.transaction() as session:
        assert jobs.get(session, resubmitted.id).state == JobState.DONE
        assert feed.last_seq(session) == before


def test_new_content_replaces_the_vector_and_old_content_restores_it(
    database: Database, pipeline: Pipeline, tmp_path: Path
) -> None:
    folder = pico.make_adapter(tmp_path / "one", seed=1)
    stored = []
    for seed in (1, 2, 1):
        pico.make_adapter(folder, seed=seed)
        pipeline.ingest(submit_folder(database, folder).id)
        with database.transaction() as session:
            stored.append(vectors.get_encoding(session, "local/one", features=("delta_activations",)))

    first, second, third = stored
    assert first.revision.sha != second.revision.sha
    assert not (first.vector == second.vector).all()
    assert third.revision.sha == first.revision.sha
    assert (third.vector == first.vector).all()
    assert third.revision.current


def test_way_back_to_a_revision_restores_its_state_card_and_base(
    database: Database, pico_base: Path, tmp_path: Path
) -> None:
    bases = tmp_path / "bases"
    shutil.copytree(pico_base, bases)
    pico.make_base(bases / OTHER, seed=1)
    pipeline = make_pipeline(database, bases, tmp_path)
    folder = tmp_path / "one"
    for scale, base in ((1.0, pico.BASE_ID), (0.0, OTHER), (1.0, pico.BASE_ID)):
        shutil.rmtree(folder, ignore_errors=True)
        pico.make_adapter(folder, scale=scale, base=base)
        (folder / "README.md").write_text(f"On {base}.")
        pipeline.ingest(submit_folder(database, folder).id)

    with database.transaction() as session:
        model = models.get(session, "local/one")
        live = select(SpaceRow.base_repo).join(Vector, Vector.space_id == SpaceRow.id)
        assert (model.state, model.card) == (ModelState.INDEXED, f"On {pico.BASE_ID}.")
        assert set(session.scalars(live.where(~Vector.deleted, SpaceRow.base_repo.is_not(None)))) == {pico.BASE_ID}


def test_unresolved_base_fails_with_its_own_code(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "lost", base=None, hidden=48))

    pipeline.ingest(job.id)

    with database.transaction() as session:
        assert jobs.get(session, job.id).error_code == "base_unresolved"


def test_transient_error_is_retried_until_attempts_run_out(
    database: Database, pipeline: Pipeline, tmp_path: Path
) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "away", base="other/elsewhere"))
    states = []
    for _ in range(3):
        with database.transaction() as session:
            session.execute(update(Job).values(available_at=func.now()))  # do not wait for the backoff
        pipeline.ingest(job.id)
        with database.transaction() as session:
            now = jobs.get(session, job.id)
            states.append((now.state, now.attempts, now.error_code))

    assert states == [
        (JobState.QUEUED, 1, "hub_unavailable"),
        (JobState.QUEUED, 2, "hub_unavailable"),
        (JobState.FAILED, 3, "hub_unavailable"),
    ]


def test_jobs_left_by_an_interrupted_call_are_released_by_the_next(
    database: Database, pipeline: Pipeline, tmp_path: Path
) -> None:
    left = submit_folder(database, pico.make_adapter(tmp_path / "left", seed=1))
    with database.transaction() as session:
        claims.claim(session, left.id, worker_id=1, batch=1)

    pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / "next", seed=2)).id)

    with database.transaction() as session:
        assert jobs.get(session, left.id).state == JobState.DONE


def test_result_of_a_lost_job_is_discarded(
    database: Database, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "one"))
    with database.transaction() as session:
        other = workers.register(session, "elsewhere", 2, "cpu")
    get = ResidentBases.get

    def get_after_losing_the_claim(self: ResidentBases, base: object) -> object:
        with database.transaction() as session:
            attempts.release(session, [1])
            claims.claim(session, job.id, other, batch=1)
        return get(self, base)  # type: ignore[arg-type]

    monkeypatch.setattr(ResidentBases, "get", get_after_losing_the_claim)
    pipeline.ingest(job.id)

    with database.transaction() as session:
        assert jobs.get(session, job.id).worker_id == other
        assert feed.last_seq(session) == 0


def submit_alternating(database: Database, folder: Path, seed: int) -> list[int]:
    """Submit three models of each of two bases, alternating. Returns the ids of the jobs in that order."""
    bases = (pico.BASE_ID, OTHER) * 3
    folders = [pico.make_adapter(folder / f"m{n}", seed=seed + n, base=base) for n, base in enumerate(bases)]
    return [submit_folder(database, adapter).id for adapter in folders]


def bases_by_finish_time(database: Database, job_ids: list[int]) -> list[str]:
    """The bases of the jobs, in the order in which the jobs finished."""
    with database.transaction() as session:
        ended = [jobs.get(session, job_id) for job_id in job_ids]
        assert {job.state for job in ended} == {JobState.DONE}
        return [job.base_hint or "" for job in sorted(ended, key=lambda job: (job.finished_at, job.id))]


@pytest.fixture
def two_bases(pico_base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bases"
    shutil.copytree(pico_base, folder)
    pico.make_base(folder / OTHER, seed=1)
    return folder


def make_small_pipeline(database: Database, bases: Path, tmp_path: Path, **policy: float) -> Pipeline:
    """The pipeline of a worker with memory for one of the bases, which claims one job at a time."""
    budget = MemoryLimit(0).required(weight_shapes(bases / OTHER))
    return make_pipeline(database, bases, tmp_path, budget=budget, batching=BatchPolicy(size=1, **policy))


def test_jobs_whose_base_is_in_memory_go_first(database: Database, two_bases: Path, tmp_path: Path) -> None:
    pipeline = make_small_pipeline(database, two_bases, tmp_path)
    pipeline.ingest(submit_alternating(database, tmp_path, seed=0)[0])  # afterwards their bases are known
    job_ids = submit_alternating(database, tmp_path, seed=10)

    pipeline.ingest(job_ids[0])

    bases = bases_by_finish_time(database, job_ids)
    assert sorted(bases) == [pico.BASE_ID] * 3 + [OTHER] * 3
    # at most one job per side is out of order, because the next batch is claimed while a base is being loaded
    assert sum(a != b for a, b in itertools.pairwise(bases)) <= 2


def test_jobs_of_bases_not_in_memory_do_not_starve(database: Database, two_bases: Path, tmp_path: Path) -> None:
    pipeline = make_small_pipeline(database, two_bases, tmp_path, max_wait=0)
    pipeline.ingest(submit_alternating(database, tmp_path, seed=0)[0])
    job_ids = submit_alternating(database, tmp_path, seed=10)

    pipeline.ingest(job_ids[0])

    assert bases_by_finish_time(database, job_ids) == [pico.BASE_ID, OTHER] * 3


def test_job_with_an_unexpected_base_is_requeued_while_others_are_due_for_the_resident_one(
    database: Database, two_bases: Path, tmp_path: Path
) -> None:
    pipeline = make_small_pipeline(database, two_bases, tmp_path)
    pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / "first")).id)
    job_ids = submit_alternating(database, tmp_path, seed=20)

    pipeline.ingest(job_ids[0])

    with database.transaction() as session:
        ended = [jobs.get(session, job_id) for job_id in job_ids]
    assert [(job.state, job.attempts) for job in ended] == [(JobState.DONE, 1)] * 6
    assert OTHER in {job.base_hint for job in ended}


def test_text_that_postgres_rejects_is_stored_sanitized(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "odd", base="a\0b\ud800"))

    pipeline.ingest(job.id)

    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.DONE
        assert models.get(session, "local/odd").revision.base_evidence["declared"] == "a\ufffdb?"


def test_vector_is_stored_with_its_explanation(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "explained"))

    pipeline.ingest(job.id)

    with database.transaction() as session:
        (measured,) = vectors.list_measurements(session, job.model_id)
    assert measured.norm > measured.noise_floor > 0
    assert [len(measured.explanation[side]) for side in ("promoted", "suppressed")] == [20, 20]
    assert measured.explanation["promoted"][0]["shift"] > 0 > measured.explanation["suppressed"][0]["shift"]


def test_proof_of_the_base_is_stored_with_the_first_of_each_kind(
    database: Database, pipeline: Pipeline, tmp_path: Path
) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "proven"))

    pipeline.ingest(job.id)

    with database.transaction() as session:
        proof = spaces.find_proof(session, pico.BASE_ID, session.scalars(select(BaseProof.base_sha)).one())
        assert spaces.count_proofs_by_path(session) == {"packed": 1}
    assert proof is not None
    assert (proof.path, proof.reason, proof.dtype) == ("packed", "", "float32")
    assert 0 < proof.error < 1e-4
    assert 0 < proof.kinds["lora"] < 1e-4


def test_model_retrained_on_another_base_leaves_the_space_of_the_old_one(
    database: Database, two_bases: Path, tmp_path: Path
) -> None:
    pipeline = make_pipeline(database, two_bases, tmp_path)
    folder = pico.make_adapter(tmp_path / "moving", seed=1)
    pipeline.ingest(submit_folder(database, folder).id)
    pico.make_adapter(folder, seed=2, base=OTHER)

    pipeline.ingest(submit_folder(database, folder).id)

    with database.transaction() as session:
        left, arrived = feed.list_changes(session, after=1, limit=10)
        assert vectors.get_encoding(session, "local/moving", features=("delta_activations",)).space.base_repo == OTHER
    assert left.vector is None
    assert arrived.vector is not None
    assert left.space_id != arrived.space_id


def test_full_fine_tune_in_a_folder_is_measured_against_the_base_in_its_card(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path
) -> None:
    pico.make_base(tmp_path / "whole", seed=3)
    (tmp_path / "whole" / "README.md").write_text(f"---\nbase_model: {pico.BASE_ID}\n---\n")
    job = submit_folder(database, tmp_path / "whole")

    pipeline.ingest(job.id)

    with database.transaction() as session:
        model = models.get(session, "local/whole")
        assert (model.state, model.revision.kind, model.revision.base_repo) == ("indexed", "full", pico.BASE_ID)


def test_newest_checkpoint_of_a_folder_is_measured(database: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    shas = []
    for number in (9, 10):
        pico.make_adapter(tmp_path / "run" / f"checkpoint-{number}", seed=number)
        job = submit_folder(database, tmp_path / "run")
        pipeline.ingest(job.id)
        with database.transaction() as session:
            ended = jobs.get(session, job.id)
            assert ended.state == JobState.DONE, ended.error_message
            shas.append(ended.sha)
    assert shas[0] != shas[1]


@pytest.mark.usefixtures("four_continuations")
def test_no_feature_is_embedded_twice(database: Database, pico_base: Path, tmp_path: Path) -> None:
    features = ("delta_activations", "delta_weighted_activations", "delta_logits", "delta_meaning")
    pipeline = make_pipeline(database, pico_base, tmp_path, measurement=MeasurementSettings(load_probes(), features))
    folder = pico.make_adapter(tmp_path / "one")
    pipeline.ingest(submit_folder(database, folder).id)
    with database.transaction() as session:
        before = feed.last_seq(session)

    pipeline.ingest(submit_folder(database, folder).id)

    with database.transaction() as session:
        assert feed.last_seq(session) == before
        assert len(feed.list_changes(session, after=0, limit=10)) == len(features)


def announce_commit(database: Database, repo_id: str, sha: str) -> None:
    """Do what a crawl or the webhook does with a new commit of a repo."""
    with database.transaction() as session:
        model = models.get(session, repo_id)
        models.set_hub_sha(session, model.id, sha)
        submissions.enqueue(session, model, None, Priority.WEBHOOK)


def count_queued(database: Database) -> int:
    with database.transaction() as session:
        return jobs.count_by_state(session)[JobState.QUEUED]


def test_commit_announced_while_a_job_runs_gets_another_job(
    database: Database, pico_base: Path, tmp_path: Path
) -> None:
    batching = BatchPolicy(size=4, max_duration=-1)
    job = submit_folder(database, pico.make_adapter(tmp_path / "one"))

    class AnnouncingFetcher(Fetcher):
        def fetch(self, *arguments: object, **named: object) -> Fetched | None:
            fetched = super().fetch(*arguments, **named)
            announce_commit(database, "local/one", "9" * 40)
            return fetched

    make_pipeline(database, pico_base, tmp_path, batching=batching, fetcher_class=AnnouncingFetcher).ingest(job.id)
    assert count_queued(database) == 1  # created after the running job, not by the announcement

    pipeline = make_pipeline(database, pico_base, tmp_path, batching=batching)
    with database.transaction() as session:
        following = jobs.list_page(session)[0]
    pipeline.ingest(following.id)
    assert count_queued(database) == 0  # nothing more was announced


def test_commit_announced_while_a_job_is_queued_gets_no_other_job(
    database: Database, pipeline: Pipeline, tmp_path: Path
) -> None:
    job = submit_folder(database, pico.make_adapter(tmp_path / "one"))
    announce_commit(database, "local/one", "9" * 40)

    pipeline.ingest(job.id)

    assert count_queued(database) == 0


def test_removed_model_is_fully_restored_by_a_new_submission(
    database: Database, pipeline: Pipeline, tmp_path: Path
) -> None:
    folder = pico.make_adapter(tmp_path / "one")
    (folder / "README.md").write_text("Answers about contracts.\n")
    pipeline.ingest(submit_folder(database, folder).id)
    with database.transaction() as session:
        assert remove_model(session, models.get(session, "local/one"))

    pipeline.ingest(submit_folder(database, folder).id)

    with database.transaction() as session:
        model = models.get(session, "local/one")
        assert (model.state, model.card) == (ModelState.INDEXED, "Answers about contracts.")
        assert vectors.is_indexed(session, model.id, model.revision.sha)
