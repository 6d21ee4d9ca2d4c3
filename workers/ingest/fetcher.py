"""Fetching, the first half of an ingest: from a job to a verified fine-tune and its base model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from catalog.auth.hub_tokens import TokenBox
from catalog.blocks import repository as blocks
from catalog.database import Database
from catalog.errors import (
    BaseUnresolved,
    FileTooLarge,
    FolderUnreadable,
    MergeIncompatible,
    RevisionNotFound,
)
from catalog.jobs.admission import Admission, Visibility, admit
from catalog.jobs.repository import attempts
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.tables import Job, JobState, Model, Revision, Source
from workers.bases.memory_limit import NO_LIMIT, MemoryLimit
from workers.bases.residents import MeasurementSettings
from workers.bases.resolver import BaseResolver, Claims, ResolvedBase
from workers.finetunes.content import content_sha
from workers.finetunes.reading import FineTune, choose_checked, find_finetune
from workers.hub.client import MAIN_BRANCH, FetchOptions, Hub, Progress, RepoSnapshot
from workers.hub.rate_limits import Stop
from workers.hub.remote_headers import screen
from workers.ingest.pickled_adapters import read_pickled
from workers.process.cancellation import is_cancelled, raise_if_cancelled
from workers.process.file_locks import FileLocks
from workers.process.stages import Stage, Stages
from workers.readers.in_process import IN_PROCESS
from workers.readers.interface import Readers

SUBMITTED = "submitted"  # the source of the claim of a submission
FETCH_SHARE = 0.5  # of a job's progress
PROGRESS_STEP = 0.05  # progress is stored in steps of this size


@dataclass(frozen=True)
class Fetched:
    """A job with everything that is needed to encode it."""

    job: Job
    sha: str
    finetune: FineTune
    base: ResolvedBase
    metadata: Metadata | None = None  # None for a folder
    card: str | None = None  # the text of the model card
    is_head: bool = True  # the head of the repo's main branch, or the content of a folder
    locks: FileLocks = field(default_factory=FileLocks)  # on the downloaded files, to be released once they are read


class Fetcher:
    """Resolves, downloads and verifies fine-tunes. Thread-safe."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        resolver: BaseResolver,
        measurement: MeasurementSettings,
        *,
        max_file_bytes: int,
        tokens: TokenBox | None = None,
        memory_limit: MemoryLimit = NO_LIMIT,
        stages: Stages | None = None,
        readers: Readers = IN_PROCESS,
        pickled_adapters: bool = False,
    ) -> None:
        self._readers = readers
        self._pickled_adapters = pickled_adapters
        self._database = database
        self._hub = hub
        self._resolver = resolver
        self._measurement = measurement
        self._max_file_bytes = max_file_bytes
        self._tokens = tokens or TokenBox()
        self._memory_limit = memory_limit
        self._stages = stages or Stages()

    def fetch(self, job: Job, worker_id: int, stop: Stop | None = None) -> Fetched | None:
        """Fetch the fine-tune of a job. Returns None if there is nothing to measure: then the job has ended
        (`catalog.jobs.admission`). The caller releases the result's `locks`. Raises any `CatalogError`, `ModelBlocked`
        before anything is downloaded, and `DownloadStopped` if `stop` returned true.
        """
        locks = FileLocks()
        try:
            return self._fetch(job, worker_id, FetchOptions(stop=stop, locks=locks), locks)
        except BaseException:
            locks.release()
            raise

    def _fetch(self, job: Job, worker_id: int, options: FetchOptions, locks: FileLocks) -> Fetched | None:
        if job.model.source == Source.HUB:
            return self._fetch_repo(job, worker_id, options, locks)
        folder = self._local_folder(job)
        sha = content_sha(folder)
        if not self._admit(job, worker_id, sha).proceeds:
            return None
        finetune = self._read(job.model.repo_id, folder)
        self._memory_limit.check(finetune.shapes, job.model.repo_id)
        base = self._resolve(finetune, sha, options, job)
        return Fetched(job, sha, finetune, base, None, finetune.card, locks=locks)

    def _fetch_repo(self, job: Job, worker_id: int, options: FetchOptions, locks: FileLocks) -> Fetched | None:
        job_hub = self._hub.with_token(self._tokens.open(job.token, job.viewer)) if job.viewer is not None else None
        hub = job_hub or self._hub
        snapshot = hub.resolve(job.model.repo_id, job.requested_revision)
        visibility = _visibility(snapshot, with_token=job_hub is not None)
        is_head = job.remeasures or _is_head(hub, snapshot, job.requested_revision)
        admission = self._admit(job, worker_id, snapshot.sha, is_head, visibility, snapshot.metadata)
        if not admission.proceeds:
            return None
        pickled = hub.choose(snapshot).is_pickled
        if pickled:  # it has no header that could be read before
            screened = self._download(hub, snapshot, options, admission.job, worker_id)
        else:  # configs and safetensors headers are checked before the weights are downloaded
            screened = screen(hub, snapshot, options, partial(self._readers.screen_finetune, snapshot.repo_id))
        self._memory_limit.check(screened.shapes, snapshot.repo_id)
        screened = replace(screened, card_bases=snapshot.card_bases or screened.card_bases)
        base = self._resolve(screened, snapshot.sha, options, admission.job, job_hub)
        if visibility is Visibility.UNDECIDED and base.public:
            admission = self._admit(
                admission.job, worker_id, snapshot.sha, is_head, Visibility.PUBLIC, snapshot.metadata
            )
            if not admission.proceeds:
                return None
        finetune = screened if pickled else self._download(hub, snapshot, options, admission.job, worker_id)
        return Fetched(admission.job, snapshot.sha, finetune, base, snapshot.metadata, finetune.card, is_head, locks)

    def _download(self, hub: Hub, snapshot: RepoSnapshot, options: FetchOptions, job: Job, worker_id: int) -> FineTune:
        options = replace(options, progress=self._progress_callback(job, worker_id))
        return self._read(snapshot.repo_id, hub.fetch_finetune(snapshot, options))

    def _read(self, repo: str, folder: Path) -> FineTune:
        if self._pickled_adapters and (choice := choose_checked(folder, pickled=True)).is_pickled:
            return read_pickled(self._readers, repo, folder, choice, max_file_bytes=self._max_file_bytes)
        return self._readers.read_finetune(repo, folder, max_file_bytes=self._max_file_bytes)

    def _admit(
        self,
        job: Job,
        worker_id: int,
        sha: str,
        is_head: bool = True,
        visibility: Visibility = Visibility.UNCHANGED,
        metadata: Metadata | None = None,
    ) -> Admission:
        spaces = self._measurement.spaces()
        with self._database.transaction() as session:
            blocks.check(session, job.model.repo_id, metadata.license if metadata else None)
            return admit(
                session, job, worker_id, sha, spaces, is_head=is_head, visibility=visibility, metadata=metadata
            )

    def _resolve(
        self, finetune: FineTune, sha: str, options: FetchOptions, job: Job, job_hub: Hub | None = None
    ) -> ResolvedBase:
        claims = self._base_claims(job, sha, finetune)
        base = self._resolver.resolve(
            claims,
            revision=finetune.declared_revision,
            own_repo=job.model.repo_id,
            shapes=finetune.shapes,
            options=options,
            job_hub=job_hub,
            newest=job.remeasures,
        )
        if job.requested_base is None or base.evidence.get("claim") == SUBMITTED:
            return base
        note = f"The submission names the base {job.requested_base}, which could not be used (see what was tried)."
        return replace(base, notes=(note, *base.notes))

    def _base_claims(self, job: Job, sha: str, finetune: FineTune) -> Claims:
        """The claims about the base of the commit `sha`: those of its files, and that of the submission before them.

        A job without one inherits that of the model's current revision, if that was measured on it: before the claims
        of the files for the same commit, after them for another, whose author may name the right base by now.
        """
        submitted, same_commit = job.requested_base, True
        if submitted is None:
            with self._database.transaction() as session:
                current = models.find_current_revision(session, job.model_id)
            if current is None or current.submitted_base is None:
                return finetune.base_claims
            submitted, same_commit = current.submitted_base, current.sha == sha
        claims = dict(finetune.base_claims)
        return {SUBMITTED: submitted, **claims} if same_commit else {**claims, SUBMITTED: submitted}

    def resolve_base(self, repo: str, sha: str) -> ResolvedBase:
        """Resolve a base at the commit that indexed models were measured at. Raises `BaseUnresolved` if it is at
        another commit now, and what the resolver raises.
        """
        with self._stages.run(Stage.FETCH):
            options = FetchOptions(stop=is_cancelled)
            base = self._resolver.resolve({"declared": repo}, revision=sha, options=options)
        if (base.repo, base.sha) != (repo, sha):
            raise BaseUnresolved(
                f"{repo} is at commit {base.sha[:12]} here, but its indexed models were measured at {sha[:12]}. "
                "Reindex its models."
            )
        return base

    def fetch_current(self, model: Model, locks: FileLocks, *, public: bool = False) -> FineTune:
        """Read the current revision of an indexed model, downloading it if it is no longer in the cache. The caller
        releases `locks`. Raises what fetching raises; with `public`, for weights that will be given to users,
        `MergeIncompatible` if the repo is not public on the Hub.
        """
        revision = model.revision
        if revision is None:
            raise RevisionNotFound(f"{model.repo_id} has no indexed revision.")
        with self._stages.run(Stage.FETCH):
            folder = self._current_folder(model, revision, locks, public=public)
        return self._read(model.repo_id, folder)

    def _current_folder(self, model: Model, revision: Revision, locks: FileLocks, *, public: bool) -> Path:
        if model.source == Source.FOLDER:
            return Path(model.folder or "")
        snapshot = self._hub.resolve(model.repo_id, revision.sha)
        if public and not snapshot.public:
            raise MergeIncompatible(
                f"{model.repo_id} is gated or private on the Hub, and only this server's own token can read it. "
                "Merge it on a machine with your own access to it."
            )
        return self._hub.fetch_finetune(snapshot, FetchOptions(stop=is_cancelled, locks=locks))

    def _local_folder(self, job: Job) -> Path:
        """The folder of the fine-tune within the folder of a job, with all file sizes checked."""
        root = Path(job.model.folder or "")
        if not root.is_dir():
            raise FolderUnreadable(f"{root} is not a folder that this worker can read.")
        folder = find_finetune(root, pickled=self._pickled_adapters)
        for file in folder.iterdir():
            if file.is_file() and (size := file.stat().st_size) > self._max_file_bytes:
                raise FileTooLarge(f"{file.name} has {size:,} bytes; the limit is {self._max_file_bytes:,}.")
        return folder

    def _progress_callback(self, job: Job, worker_id: int) -> Progress:
        """A callback that stores the progress of a download; it raises `Cancelled` if the job was cancelled."""
        stored = 0.0

        def store(done: int, total: int) -> None:
            nonlocal stored
            raise_if_cancelled()
            progress = FETCH_SHARE * done / max(total, 1)
            if progress - stored >= PROGRESS_STEP:
                stored = progress
                progress = min(progress, FETCH_SHARE)
                with self._database.transaction() as session:
                    attempts.update_progress(session, [job.id], worker_id, JobState.FETCHING, progress)

        return store


def _visibility(snapshot: RepoSnapshot, *, with_token: bool) -> Visibility:
    if not with_token:
        return Visibility.UNCHANGED
    return Visibility.UNDECIDED if snapshot.public else Visibility.PRIVATE


def _is_head(hub: Hub, snapshot: RepoSnapshot, revision: str | None) -> bool:
    """Whether a snapshot is the head of the repo's main branch. Asks the Hub if another revision was requested."""
    return revision in (None, MAIN_BRANCH) or hub.find_head(snapshot.repo_id) == snapshot.sha
