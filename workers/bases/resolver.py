"""Resolution of a fine-tune's base model: from the claims of its config and card to a folder of weights."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from catalog.errors import (
    BaseUnresolved,
    FolderUnreadable,
    GatedRepo,
    HubTokenInvalid,
    Refused,
    RepoNotFound,
    RevisionNotFound,
    ShapeMismatch,
    UnsupportedBase,
)
from workers.bases.names import AliasTable, Candidate, read_claim
from workers.finetunes.content import content_sha
from workers.finetunes.finetune import refuse_quantized
from workers.finetunes.shape_fit import Fit, Shape, compare, weight_shapes
from workers.hub.client import DEFAULT_OPTIONS, FetchOptions, Hub, RepoSnapshot, read_base_config
from workers.hub.remote_headers import remote_shapes

COMMIT_CACHE_SECONDS = 60.0  # a batch of jobs requests the commit of its base once


@dataclass(frozen=True)
class ResolvedBase:
    """A base model's identity and its files.

    `sha` is the commit of a base from the Hub, and the content's sha256 of one from `bases_dir`. `evidence` is JSON:
    `source` ("declared", "card", "alias" or "shapes"), `location` ("folder" or "hub"), `matched` (the number of modules
    that fit), the claims `declared` and `card_base` of the fine-tune and its card, and `tried`, the candidates with
    their outcomes, the accepted one last.
    """

    repo: str
    sha: str
    folder: Path
    evidence: dict[str, Any]
    public: bool = True  # false if this or an earlier candidate needed the job's token


@dataclass
class _Search:
    """State of one call of `resolve`."""

    shapes: Mapping[str, Shape] | None
    options: FetchOptions
    job_hub: Hub | None = None  # with the job's own token
    private: bool = False  # whether something was read with the job's token
    newest: bool = False
    tried: list[dict[str, str]] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)

    def record_failure(self, name: str, source: str, outcome: str) -> None:
        self.tried.append({"candidate": name, "source": source, "outcome": outcome})


class BaseResolver:
    """Finds bases in `bases_dir/OWNER/NAME`, then on the Hub. `aliases` extend the shipped table.

    `pinned_commit` returns the commit at which a base of the Hub is used (None: its newest), so that models that
    arrive after a new commit of their base stay comparable with earlier ones.
    """

    def __init__(
        self,
        hub: Hub,
        bases_dir: Path,
        aliases: Mapping[str, str] | None = None,
        pinned_commit: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._hub = hub
        self._bases_dir = bases_dir
        self._aliases = AliasTable(aliases or {})
        self._pinned_commit = pinned_commit
        self._commits: dict[tuple[str, str | None], tuple[float, RepoSnapshot]] = {}

    def resolve(
        self,
        *,
        declared: str | None,
        card_base: str | None,
        shapes: Mapping[str, Shape] | None = None,
        options: FetchOptions = DEFAULT_OPTIONS,
        job_hub: Hub | None = None,
        newest: bool = False,
    ) -> ResolvedBase:
        """The declared base, else the card's, if it exists and fits the tensor `shapes` (if given); else the only base
        in `bases_dir` that fits.

        Claims are looked up in the alias table first, so that mirrors of one base share a space. With `newest`, the
        pinned commit is ignored. `options` are those of downloads. `job_hub` is the Hub with the job's token, for bases
        that this resolver's Hub may not read.

        Raises `ShapeMismatch` (found, but does not fit), `UnsupportedBase` (found, but quantized) and `BaseUnresolved`,
        each with the candidates and the reasons; transient errors (`Unavailable`) are raised unchanged.
        """
        search = _Search(shapes, options, job_hub, newest=newest)
        base = self._by_claims({"declared": declared, "card": card_base}, search) or self._by_shapes(search)
        if base is None:
            raise _failure(search)
        evidence = {**base.evidence, "declared": declared, "card_base": card_base}
        return replace(base, evidence=evidence, public=not search.private)

    def _by_claims(self, claims: Mapping[str, str | None], search: _Search) -> ResolvedBase | None:
        tried_repos: set[str] = set()
        for source, claim in claims.items():
            candidates = self._candidates(claim, source, search)
            candidates = [candidate for candidate in candidates if candidate.repo not in tried_repos]
            tried_repos.update(candidate.repo for candidate in candidates)
            # a folder in bases_dir takes precedence over the Hub, under any of the names
            in_folders = [partial(self._folder_base, candidate, search) for candidate in candidates]
            on_hub = [partial(self._hub_base, candidate, search) for candidate in candidates]
            for attempt in (*in_folders, *on_hub):
                if base := attempt():
                    return base
        return None

    def _candidates(self, claim: object, source: str, search: _Search) -> list[Candidate]:
        if claim is None or claim == "":
            search.record_failure("null", source, "names no base")
            return []
        name, reason = read_claim(claim)
        if reason:
            search.record_failure(name, source, reason)
            return []
        return [*(Candidate(repo, "alias") for repo in self._aliases.originals(name)), Candidate(name, source)]

    def _folder_base(self, candidate: Candidate, search: _Search) -> ResolvedBase | None:
        folder = self._bases_dir / candidate.repo
        if not (folder / "config.json").is_file():
            return None
        try:
            _refuse_quantized(read_base_config(folder, candidate.repo), candidate.repo)
            return self._accepted(candidate, "folder", candidate.repo, self._content_sha(folder), folder, search)
        except Refused as error:
            search.record_failure(candidate.repo, candidate.source, str(error))
            search.refusals.append(error)
            return None

    def _hub_base(self, candidate: Candidate, search: _Search) -> ResolvedBase | None:
        if (self._bases_dir / candidate.repo / "config.json").is_file():
            return None  # already tried, and it takes precedence
        try:
            hub, snapshot = self._readable(candidate.repo, search)
            _refuse_quantized(hub.base_config(snapshot, search.options), snapshot.repo_id)
            if search.shapes:  # compares headers before the weights are downloaded
                _check_fit(compare(search.shapes, remote_shapes(hub, snapshot, search.options)), snapshot.repo_id)
            folder = hub.fetch_base(snapshot, search.options)
            return self._accepted(candidate, "hub", snapshot.repo_id, snapshot.sha, folder, search)
        except Refused as error:
            search.record_failure(candidate.repo, candidate.source, str(error))
            search.refusals.append(error)
            return None

    def _accepted(
        self, candidate: Candidate, location: str, repo: str, sha: str, folder: Path, search: _Search
    ) -> ResolvedBase:
        """The resolved base with its evidence. Raises `ShapeMismatch`."""
        fit = _fit(search.shapes, folder)
        if fit:
            _check_fit(fit, repo)
        matched = {"matched": fit.matched} if fit else {}
        used = {"candidate": candidate.repo, "source": candidate.source, "outcome": f"found ({location})"}
        tried = [*search.tried, used]
        return ResolvedBase(
            repo, sha, folder, {"source": candidate.source, "location": location, **matched, "tried": tried}
        )

    def _by_shapes(self, search: _Search) -> ResolvedBase | None:
        """The only base in `bases_dir` whose shapes fit; of several, the only one whose vocabulary fits too."""
        fits = {}
        for folder in self._local_folders() if search.shapes else ():
            try:
                fit = _fit(search.shapes, folder)
            except Refused:
                continue
            if fit and fit.matched and not fit.problems:
                fits[folder] = fit
        if len(fits) > 1:
            fits = {folder: fit for folder, fit in fits.items() if fit.same_vocabulary} or fits
        names = {f"{folder.parent.name}/{folder.name}": folder for folder in fits}
        if len(names) > 1:
            search.record_failure(
                "local bases", "shapes", f"several fit, so the base is ambiguous: {', '.join(sorted(names))}"
            )
            return None
        for name in names:
            return self._folder_base(Candidate(name, "shapes"), search)
        return None

    def _local_folders(self) -> Sequence[Path]:
        return sorted(config.parent for config in self._bases_dir.glob("[!.]*/*/config.json"))

    def _readable(self, repo: str, search: _Search) -> tuple[Hub, RepoSnapshot]:
        try:
            return self._hub, self._snapshot(self._commit, repo, search.newest)
        except (GatedRepo, RepoNotFound, HubTokenInvalid) as error:
            if search.job_hub is None:
                raise
            try:  # not cached: only this job may read it
                snapshot = self._snapshot(search.job_hub.resolve, repo, search.newest)
            except Refused:
                if isinstance(error, HubTokenInvalid):  # the service may read it once its token is valid
                    raise error from None
                raise
            search.private = search.private or not snapshot.public
            return search.job_hub, snapshot

    def _snapshot(
        self, resolve_repo: Callable[[str, str | None], RepoSnapshot], repo: str, newest: bool
    ) -> RepoSnapshot:
        newest_snapshot = resolve_repo(repo, None)
        pinned_commit = None if newest else self._pinned_commit(newest_snapshot.repo_id)
        if pinned_commit is None or pinned_commit == newest_snapshot.sha:
            return newest_snapshot
        try:
            return resolve_repo(newest_snapshot.repo_id, pinned_commit)
        except RevisionNotFound:  # its history was rewritten, or the base was a folder before
            return newest_snapshot

    def _commit(self, repo: str, revision: str | None = None) -> RepoSnapshot:
        requested_at, snapshot = self._commits.get((repo, revision), (0.0, None))
        if snapshot is None or time.monotonic() - requested_at > COMMIT_CACHE_SECONDS:
            snapshot = self._hub.resolve(repo, revision)
            self._commits[repo, revision] = (time.monotonic(), snapshot)
        return snapshot

    def _content_sha(self, folder: Path) -> str:
        """The folder's content sha256, cached in `bases_dir` until a file's size or modification time changes."""
        try:
            state = sorted([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in folder.iterdir())
        except OSError as error:
            raise FolderUnreadable(f"{folder} cannot be read: {error.strerror or error}.") from error
        cache_file = self._bases_dir / ".content" / f"{folder.parent.name}--{folder.name}.json"
        try:
            cached = json.loads(cache_file.read_text(encoding="utf-8"))
            if cached["files"] == state:
                return cached["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no cache entry, or a damaged one
        sha = content_sha(folder)
        _write_cache_file(cache_file, {"files": state, "sha256": sha})
        return sha


def _fit(shapes: Mapping[str, Shape] | None, folder: Path) -> Fit | None:
    return compare(shapes, weight_shapes(folder)) if shapes else None


def _check_fit(fit: Fit, name: str) -> None:
    if fit.problems:
        raise ShapeMismatch(f"{name} does not fit the fine-tune: {fit.summary()}.")


def _refuse_quantized(config: Mapping[str, object], name: str) -> None:
    instead = "the original. Name the original in the adapter's config or card, or add an alias from this repo to it."
    refuse_quantized(config, name, UnsupportedBase, instead)


def _failure(search: _Search) -> Refused:
    reasons = "; ".join(
        f"{tried['source']} {tried['candidate']}: {tried['outcome'].rstrip('.')}" for tried in search.tried
    )
    for kind in (ShapeMismatch, UnsupportedBase):
        if any(isinstance(refusal, kind) for refusal in search.refusals):
            return kind(f"No base can be used. Tried: {reasons}.")
    return BaseUnresolved(f"The base model cannot be found. Tried: {reasons}.")


def _write_cache_file(cache_file: Path, content: dict[str, Any]) -> None:
    temporary = cache_file.with_name(f"{cache_file.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        cache_file.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(cache_file)
    except OSError:
        pass  # bases_dir may be read-only; the hash is then computed each time
