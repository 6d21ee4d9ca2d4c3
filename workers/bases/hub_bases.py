"""Bases on the Hub: the commit that is used, and what repos say of the models that they were made from."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from catalog.errors import GatedRepo, HubTokenInvalid, InvalidModelConfig, Refused, RepoNotFound, RevisionNotFound
from workers.bases.mirrors import same_files
from workers.bases.names import Candidate, read_revision
from workers.finetunes.repo_files import ADAPTER_CONFIG, MAX_DESCRIPTION_BYTES, Choice
from workers.hub.client import FetchOptions, Hub, RepoSnapshot
from workers.process.keyed_locks import KeyedLocks

COMMIT_CACHE_SECONDS = 60.0  # a batch of jobs requests the commit of its base once
MAX_CACHED_COMMITS = 64  # each with a listing of up to `max_repo_files` files

NOT_THERE = (RevisionNotFound, RepoNotFound)  # a revision of a repo that was found; some mirrors answer with the latter
# the file that names the base of an adapter or a full model, and its key there
_ADAPTER_CLAIM = (ADAPTER_CONFIG, "base_model_name_or_path")
_CONFIG_CLAIM = ("config.json", "_name_or_path")  # where transformers before 4.50 loaded a model's weights from

PinnedCommit = Callable[[str], str | None]  # from a repo to the commit at which it is used (None: its newest)


@dataclass(frozen=True)
class HubBase:
    """A base on the Hub, readable through `hub`.

    `snapshot` is the commit to use, and `usual` the one that fine-tunes use that declare no revision. `private` says
    whether it was read with a job's token. `notes` are sentences for users.
    """

    hub: Hub
    snapshot: RepoSnapshot
    usual: RepoSnapshot
    private: bool = False
    notes: tuple[str, ...] = ()

    @property
    def at_revision(self) -> bool:
        return self.snapshot.sha != self.usual.sha


class HubBases:
    """Finds the commits of bases on the Hub."""

    def __init__(self, hub: Hub, pinned_commit: PinnedCommit) -> None:
        self._hub = hub
        self.pinned_commit = pinned_commit
        self._commits: OrderedDict[tuple[str, str | None], tuple[float, RepoSnapshot]] = OrderedDict()
        self._locks = KeyedLocks()

    def locate(self, candidate: Candidate, job_hub: Hub | None, newest: bool) -> HubBase:
        """A candidate at its revision, or else at its pinned commit, or at its newest one. The job's own Hub is asked
        if this Hub may not read the repo. Raises what `Hub.resolve` raises.
        """
        try:
            return self._locate(self._hub, self._commit, candidate, newest)
        except (GatedRepo, RepoNotFound, HubTokenInvalid) as error:
            if job_hub is None:
                raise
            try:  # not cached: only this job may read it
                return self._locate(job_hub, job_hub.resolve, candidate, newest)
            except Refused:
                if isinstance(error, HubTokenInvalid):  # the service may read it once its token is valid
                    raise error from None
                raise

    def _locate(
        self, hub: Hub, resolve_repo: Callable[[str, str | None], RepoSnapshot], candidate: Candidate, newest: bool
    ) -> HubBase:
        snapshot = usual = self._usual_snapshot(resolve_repo, candidate.repo, newest)
        revision, problem = read_revision(candidate.revision)
        if revision is not None:
            try:
                declared = resolve_repo(usual.repo_id, revision)
                # a commit that only changed the card is the same base
                snapshot = usual if same_files(declared, usual) else declared
            except NOT_THERE:
                problem = f"{usual.repo_id} has no revision {revision[:80]!r}"
        notes = (
            (f"The base's revision in the fine-tune was not used: {problem}. Its commit {usual.sha[:12]} was used.",)
            if problem
            else ()
        )
        return HubBase(hub, snapshot, usual, hub is not self._hub and not usual.public, notes)

    def _usual_snapshot(
        self, resolve_repo: Callable[[str, str | None], RepoSnapshot], repo: str, newest: bool
    ) -> RepoSnapshot:
        newest_snapshot = resolve_repo(repo, None)
        pinned_commit = None if newest else self.pinned_commit(newest_snapshot.repo_id)
        if pinned_commit is None or pinned_commit == newest_snapshot.sha:
            return newest_snapshot
        try:
            return resolve_repo(newest_snapshot.repo_id, pinned_commit)
        except NOT_THERE:  # its history was rewritten, or the base was a folder before
            return newest_snapshot

    def _commit(self, repo: str, revision: str | None = None) -> RepoSnapshot:
        key = (repo, revision)
        with self._locks.hold(key):
            requested_at, snapshot = self._commits.get(key, (0.0, None))
            if snapshot is None or time.monotonic() - requested_at > COMMIT_CACHE_SECONDS:
                snapshot = self._hub.resolve(repo, revision)
                self._commits[key] = (time.monotonic(), snapshot)
                while len(self._commits) > MAX_CACHED_COMMITS:
                    self._commits.popitem(last=False)
            return snapshot


def bases_of(hub: Hub, snapshot: RepoSnapshot, options: FetchOptions) -> Sequence[str]:
    """The bases that a repo names in its card, or else the one in its config. Raises what `Hub.fetch` raises."""
    paths = {file.path for file in snapshot.files}
    name, key = _ADAPTER_CLAIM if ADAPTER_CONFIG in paths else _CONFIG_CLAIM
    if snapshot.card_bases or name not in paths:
        return snapshot.card_bases
    folder = hub.fetch(snapshot, Choice("", (name,)), options)
    try:
        base = hub.read_object(
            snapshot.repo_id, folder / name, InvalidModelConfig, max_bytes=MAX_DESCRIPTION_BYTES
        ).get(key)
    except Refused:
        return ()
    return (base,) if isinstance(base, str) and base else ()
