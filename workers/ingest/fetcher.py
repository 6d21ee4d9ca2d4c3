"""The first half of an ingest: from a job to a verified fine-tune and the folder of its base."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from catalog.auth.hub_tokens import TokenBox
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
from catalog.models.repository.models import Metadata
from catalog.tables import Job, JobState, Model, Source
from workers.bases.residents import Contract
from workers.bases.resolver import BaseResolver, ResolvedBase
from workers.finetunes.card import words_of_card
from workers.finetunes.content import content_sha
from workers.finetunes.reading import FineTune, find_finetune, read_finetune
from workers.hub.client import Hub, Progress, RepoSnapshot, Taking
from workers.hub.rate_limits import Stop
from workers.hub.remote_headers import screen
from workers.process.cancellation import check, given_up
from workers.process.file_locks import Hold

SHARE = 0.5  # of a job's progress


@dataclass(frozen=True)
class Fetched:
    """A job with everything that encoding needs."""

    job: Job
    sha: str
    finetune: FineTune
    base: ResolvedBase
    metadata: Metadata | None = None  # a folder has none
    card: str | None = None  # its words
    hold: Hold = field(default_factory=Hold)  # on the downloaded files, until they have been read


class Fetcher:
    """Resolves, downloads and verifies; called from several threads."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        resolver: BaseResolver,
        contract: Contract,
        *,
        max_file_bytes: int,
        tokens: TokenBox | None = None,
    ) -> None:
        self._database = database
        self._hub = hub
        self._resolver = resolver
        self._contract = contract
        self._max_file_bytes = max_file_bytes
        self._tokens = tokens or TokenBox()
        self._resolving = threading.Lock()

    def fetch(self, job: Job, worker_id: int, stop: Stop | None = None) -> Fetched | None:
        """None when there is nothing to measure (`catalog.jobs.admission`): then the job has ended. Raises
        `CatalogError`s of every kind, `DownloadStopped` among them where `stop` said so. The result's `hold` is the
        caller's to release.
        """
        hold = Hold()
        try:
            return self._fetch(job, worker_id, Taking(stop=stop, hold=hold), hold)
        except BaseException:
            hold.release()
            raise

    def _fetch(self, job: Job, worker_id: int, taking: Taking, hold: Hold) -> Fetched | None:
        if job.model.source == Source.HUB:
            return self._fetch_repo(job, worker_id, taking, hold)
        folder = self._local_folder(job)
        sha = content_sha(folder)
        if not self._admit(job, worker_id, sha).proceeds:
            return None
        finetune = read_finetune(folder, max_file_bytes=self._max_file_bytes)
        base = self._resolve(finetune, None, taking, job)
        return Fetched(job, sha, finetune, base, None, words_of_card(folder / "README.md"), hold)

    def _fetch_repo(self, job: Job, worker_id: int, taking: Taking, hold: Hold) -> Fetched | None:
        own = self._hub.seen_with(self._tokens.open(job.token, job.viewer)) if job.viewer is not None else None
        hub = own or self._hub
        snapshot = hub.resolve(job.model.repo_id, job.requested_revision)
        visibility = _visibility(snapshot, with_token=own is not None)
        admission = self._admit(job, worker_id, snapshot.sha, visibility, snapshot.metadata)
        if not admission.proceeds:
            return None
        # whatever its configs and headers can tell against it is found before its weights are fetched
        base = self._resolve(screen(hub, snapshot, taking), snapshot.card_base, taking, admission.job, own)
        if visibility is Visibility.UNDECIDED and base.public:
            admission = self._admit(admission.job, worker_id, snapshot.sha, Visibility.PUBLIC, snapshot.metadata)
            if not admission.proceeds:
                return None
        folder = hub.fetch_finetune(snapshot, replace(taking, progress=self._shower(admission.job, worker_id)))
        finetune = read_finetune(folder, max_file_bytes=self._max_file_bytes)
        card = words_of_card(folder / "README.md")
        return Fetched(admission.job, snapshot.sha, finetune, base, snapshot.metadata, card, hold)

    def _admit(
        self,
        job: Job,
        worker_id: int,
        sha: str,
        visibility: Visibility = Visibility.UNCHANGED,
        metadata: Metadata | None = None,
    ) -> Admission:
        contract = self._contract.spaces()
        with self._database.transaction() as session:
            return admit(session, job, worker_id, sha, contract, visibility=visibility, metadata=metadata)

    def _resolve(
        self, finetune: FineTune, card_base: str | None, taking: Taking, job: Job, own: Hub | None = None
    ) -> ResolvedBase:
        with self._resolving:  # eight adapters of one new base would each download it
            return self._resolver.resolve(
                declared=finetune.declared_base,
                card_base=card_base or finetune.card_base,
                shapes=finetune.shapes,
                taking=taking,
                own=own,
                newest=job.measures_anew,
            )

    def base(self, repo: str, sha: str) -> ResolvedBase:
        """A base at the commit at which it is indexed. Raises `BaseUnresolved` where it is at another by now, and what
        resolving raises.
        """
        with self._resolving:
            found = self._resolver.resolve(declared=repo, card_base=None, taking=Taking(stop=given_up))
        if (found.repo, found.sha) != (repo, sha):
            raise BaseUnresolved(
                f"{repo} is at {found.sha[:12]} here, and what is indexed was measured at {sha[:12]}: reindex it."
            )
        return found

    def again(self, model: Model, hold: Hold, *, public: bool = False) -> FineTune:
        """An indexed model's current revision, downloaded if it is not here any more. `hold` is the caller's to
        release. Raises what fetching raises; with `public`, for weights that are handed on, `MergeIncompatible` where
        the Hub does not show them to everybody.
        """
        revision = model.revision
        if revision is None:
            raise RevisionNotFound(f"{model.repo_id} has no revision that is indexed.")
        if model.source == Source.FOLDER:
            folder = Path(model.folder or "")
        else:
            snapshot = self._hub.resolve(model.repo_id, revision.sha)
            if public and not snapshot.public:
                raise MergeIncompatible(
                    f"The files of {model.repo_id} are gated or private on the Hub, and only the service's own token "
                    "reads them: merge it where you may read it."
                )
            folder = self._hub.fetch_finetune(snapshot, Taking(stop=given_up, hold=hold))
        return read_finetune(folder, max_file_bytes=self._max_file_bytes)

    def _local_folder(self, job: Job) -> Path:
        """The part of a folder on this machine that counts, its sizes checked before a byte is read."""
        top = Path(job.model.folder or "")
        if not top.is_dir():
            raise FolderUnreadable(f"{top} is not a folder that this worker can read.")
        folder = find_finetune(top)
        for file in folder.iterdir():
            if file.is_file() and (size := file.stat().st_size) > self._max_file_bytes:
                raise FileTooLarge(f"{file.name} has {size:,} bytes; the limit is {self._max_file_bytes:,}.")
        return folder

    def _shower(self, job: Job, worker_id: int) -> Progress:
        shown = 0.0

        def show(done: int, total: int) -> None:
            nonlocal shown
            check()
            progress = SHARE * done / max(total, 1)
            if progress - shown >= 0.05:
                shown = progress
                with self._database.transaction() as session:
                    attempts.advance(session, [job.id], worker_id, JobState.FETCHING, min(progress, SHARE))

        return show


def _visibility(snapshot: RepoSnapshot, *, with_token: bool) -> Visibility:
    if not with_token:
        return Visibility.UNCHANGED
    return Visibility.UNDECIDED if snapshot.public else Visibility.PRIVATE
