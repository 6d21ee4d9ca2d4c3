"""Which base is it really? The base that a fine-tune declares is a claim; here it becomes a folder of weights."""

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
    Refused,
    RepoGated,
    RepoNotFound,
    RevisionNotFound,
    ShapeMismatch,
    UnsupportedBase,
)
from workers.bases.names import AliasTable, Candidate, read_claim
from workers.finetunes.content import content_sha
from workers.finetunes.finetune import refuse_quantised
from workers.finetunes.shape_fit import Fit, Shape, compare, weight_shapes
from workers.hub.client import PLAIN, Hub, RepoSnapshot, Taking, read_base_config
from workers.hub.remote_headers import remote_shapes

REMEMBERED = 60.0  # seconds for which a base's commit is taken as known; a batch of jobs asks once


@dataclass(frozen=True)
class ResolvedBase:
    """A base model's identity and its files.

    `sha` is the commit of a base from the Hub and the sha256 of the content of one from `bases_dir`. `evidence` is
    JSON: `source` ("declared", "card", "alias" or "shapes"), what the fine-tune and its card claim, and `tried`, each
    candidate with its outcome, the accepted one last.
    """

    repo: str
    sha: str
    folder: Path
    evidence: dict[str, Any]
    public: bool = True  # neither it nor what was tried before it needed the job's own token


@dataclass
class _Search:
    """What one call of `resolve` has seen so far."""

    shapes: Mapping[str, Shape] | None
    taking: Taking
    own: Hub | None = None  # as the job's own token sees it
    private: bool = False  # something was read that this token alone may read
    newest: bool = False
    tried: list[dict[str, str]] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)

    def failed(self, name: str, source: str, outcome: str) -> None:
        self.tried.append({"candidate": name, "source": source, "outcome": outcome})


class BaseResolver:
    """Looks for bases in `bases_dir/OWNER/NAME` first and on the Hub after. `aliases` extend the shipped table.

    `pinned` gives the commit at which a base of the Hub is taken (None: its newest), so that a new commit of it parts
    no model from those that came before.
    """

    def __init__(
        self,
        hub: Hub,
        bases_dir: Path,
        aliases: Mapping[str, str] | None = None,
        pinned: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._hub = hub
        self._bases_dir = bases_dir
        self._aliases = AliasTable(aliases or {})
        self._pinned = pinned
        self._commits: dict[tuple[str, str | None], tuple[float, RepoSnapshot]] = {}

    def resolve(
        self,
        *,
        declared: str | None,
        card_base: str | None,
        shapes: Mapping[str, Shape] | None = None,
        taking: Taking = PLAIN,
        own: Hub | None = None,
        newest: bool = False,
    ) -> ResolvedBase:
        """The first of the declared base and the card's that exists and, where the fine-tune's tensor `shapes` are
        given, fits; failing these, the only base in `bases_dir` that fits.

        A claim is read through the alias table first, so that mirrors of one base land in one space. Raises
        `ShapeMismatch` (found, but does not fit), `UnsupportedBase` (found, but quantised), `BaseUnresolved`, each
        with what was tried and why; errors that may pass (`Unavailable`) are raised as they are. A base's files
        are taken from the Hub as `taking` says; at its `newest` commit, wherever it is pinned. What this resolver's Hub
        may not read, `own` is asked for, which is the Hub as the job's token sees it.
        """
        search = _Search(shapes, taking, own, newest=newest)
        found = self._by_claims({"declared": declared, "card": card_base}, search) or self._by_shapes(search)
        if found is None:
            raise _failure(search)
        evidence = {**found.evidence, "declared": declared, "card_base": card_base}
        return replace(found, evidence=evidence, public=not search.private)

    def _by_claims(self, claims: Mapping[str, str | None], search: _Search) -> ResolvedBase | None:
        seen: set[str] = set()
        for source, claim in claims.items():
            candidates = [each for each in self._candidates(claim, source, search) if each.repo not in seen]
            seen.update(each.repo for each in candidates)
            # a folder in bases_dir stands in place of the Hub, under whichever of the names it lies
            in_folders = [partial(self._folder_base, each, search) for each in candidates]
            on_hub = [partial(self._hub_base, each, search) for each in candidates]
            for attempt in (*in_folders, *on_hub):
                if found := attempt():
                    return found
        return None

    def _candidates(self, claim: object, source: str, search: _Search) -> list[Candidate]:
        if claim is None or claim == "":
            search.failed("null", source, "names no base")
            return []
        name, objection = read_claim(claim)
        if objection:
            search.failed(name, source, objection)
            return []
        return [*(Candidate(repo, "alias") for repo in self._aliases.originals(name)), Candidate(name, source)]

    def _folder_base(self, candidate: Candidate, search: _Search) -> ResolvedBase | None:
        folder = self._bases_dir / candidate.repo
        if not (folder / "config.json").is_file():
            return None
        try:
            _refuse_quantised(read_base_config(folder, candidate.repo), candidate.repo)
            return self._accepted(candidate, "folder", candidate.repo, self._content_sha(folder), folder, search)
        except Refused as error:
            search.failed(candidate.repo, candidate.source, str(error))
            search.refusals.append(error)
            return None

    def _hub_base(self, candidate: Candidate, search: _Search) -> ResolvedBase | None:
        if (self._bases_dir / candidate.repo / "config.json").is_file():
            return None  # tried already, and it is in the Hub's place
        try:
            hub, snapshot = self._readable(candidate.repo, search)
            _refuse_quantised(hub.base_config(snapshot, search.taking), snapshot.repo_id)
            if search.shapes:  # headers alone, before gigabytes follow
                _check_fit(compare(search.shapes, remote_shapes(hub, snapshot, search.taking)), snapshot.repo_id)
            folder = hub.fetch_base(snapshot, search.taking)
            return self._accepted(candidate, "hub", snapshot.repo_id, snapshot.sha, folder, search)
        except Refused as error:
            search.failed(candidate.repo, candidate.source, str(error))
            search.refusals.append(error)
            return None

    def _accepted(
        self, candidate: Candidate, place: str, repo: str, sha: str, folder: Path, search: _Search
    ) -> ResolvedBase:
        """Raises `ShapeMismatch`."""
        fit = _fit(search.shapes, folder)
        if fit:
            _check_fit(fit, repo)
        matched = {"matched": fit.matched} if fit else {}
        used = {"candidate": candidate.repo, "source": candidate.source, "outcome": f"found ({place})"}
        tried = [*search.tried, used]
        return ResolvedBase(repo, sha, folder, {"source": candidate.source, "place": place, **matched, "tried": tried})

    def _by_shapes(self, search: _Search) -> ResolvedBase | None:
        """The one base in `bases_dir` whose shapes, and if several then whose vocabulary, fit."""
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
            search.failed("bases here", "shapes", f"several fit, so none is certain: {', '.join(sorted(names))}")
            return None
        for name in names:
            return self._folder_base(Candidate(name, "shapes"), search)
        return None

    def _local_folders(self) -> Sequence[Path]:
        return sorted(config.parent for config in self._bases_dir.glob("[!.]*/*/config.json"))

    def _readable(self, repo: str, search: _Search) -> tuple[Hub, RepoSnapshot]:
        try:
            return self._hub, self._snapshot(self._commit, repo, search.newest)
        except (RepoGated, RepoNotFound):
            if search.own is None:
                raise
            snapshot = self._snapshot(
                search.own.resolve, repo, search.newest
            )  # not remembered: only this job may read it
            search.private = search.private or not snapshot.public
            return search.own, snapshot

    def _snapshot(self, ask: Callable[[str, str | None], RepoSnapshot], repo: str, newest: bool) -> RepoSnapshot:
        found = ask(repo, None)
        pinned = None if newest else self._pinned(found.repo_id)
        if pinned is None or pinned == found.sha:
            return found
        try:
            return ask(found.repo_id, pinned)
        except RevisionNotFound:  # its history was rewritten, or it was a folder here before
            return found

    def _commit(self, repo: str, revision: str | None = None) -> RepoSnapshot:
        asked, snapshot = self._commits.get((repo, revision), (0.0, None))
        if snapshot is None or time.monotonic() - asked > REMEMBERED:
            snapshot = self._hub.resolve(repo, revision)
            self._commits[repo, revision] = (time.monotonic(), snapshot)
        return snapshot

    def _content_sha(self, folder: Path) -> str:
        """The folder's content sha256, kept beside the bases until a file's size or time of change differs."""
        try:
            state = sorted([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in folder.iterdir())
        except OSError as error:
            raise FolderUnreadable(f"{folder} cannot be read: {error.strerror or error}.") from error
        note = self._bases_dir / ".content" / f"{folder.parent.name}--{folder.name}.json"
        try:
            kept = json.loads(note.read_text(encoding="utf-8"))
            if kept["files"] == state:
                return kept["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing kept, or not by us: it is computed anew
        sha = content_sha(folder)
        _write_note(note, {"files": state, "sha256": sha})
        return sha


def _fit(shapes: Mapping[str, Shape] | None, folder: Path) -> Fit | None:
    return compare(shapes, weight_shapes(folder)) if shapes else None


def _check_fit(fit: Fit, name: str) -> None:
    if fit.problems:
        raise ShapeMismatch(f"{name} does not fit the fine-tune: {fit.summary()}.")


def _refuse_quantised(config: Mapping[str, object], name: str) -> None:
    instead = "the original. Name the original in the adapter's config or card, or add an alias from this repo to it."
    refuse_quantised(config, name, UnsupportedBase, instead)


def _failure(search: _Search) -> Refused:
    reasons = "; ".join(f"{each['source']} {each['candidate']}: {each['outcome'].rstrip('.')}" for each in search.tried)
    for kind in (ShapeMismatch, UnsupportedBase):
        if any(isinstance(each, kind) for each in search.refusals):
            return kind(f"No base can be used. Tried: {reasons}.")
    return BaseUnresolved(f"The base model cannot be found. Tried: {reasons}.")


def _write_note(note: Path, content: dict[str, Any]) -> None:
    temporary = note.with_name(f"{note.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        note.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(note)
    except OSError:
        pass  # bases_dir may be read-only; then the hash is computed each time
