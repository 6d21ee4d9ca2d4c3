"""Resolution of a fine-tune's base model: from the claims of its config and card to a folder of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from catalog.errors import (
    BaseUnresolved,
    ModelTooLarge,
    Refused,
    ShapeMismatch,
    UnsupportedBase,
)
from catalog.spaces.contract import Space
from workers.bases.aliases import AliasTable
from workers.bases.blame import reading_base
from workers.bases.content_hashes import ContentHashes
from workers.bases.hub_bases import HubBase, HubBases, PinnedCommit, bases_of
from workers.bases.lineage import Lineage
from workers.bases.memory_limit import NO_LIMIT, MemoryLimit
from workers.bases.mirrors import is_conversion, is_copy, weights_hash
from workers.bases.names import MAX_CLAIM_CHARACTERS, Candidate, read_claim, read_revision
from workers.finetunes.model_config import refuse_quantized
from workers.finetunes.shape_fit import Fit, Shape, compare
from workers.hub.client import DEFAULT_OPTIONS, FetchOptions, Hub, RepoSnapshot, read_base_config
from workers.hub.rate_limits import raise_if_stopped
from workers.hub.remote_headers import remote_shapes
from workers.process.keyed_locks import KeyedLocks
from workers.readers.in_process import IN_PROCESS
from workers.readers.interface import Readers

MAX_FOLLOWED = 8  # mirrors whose originals are followed for one fine-tune

# what makes a claim, in sentences for users
_CLAIMANTS = {
    "submitted": "the submission",
    "declared": "adapter_config.json",
    "card": "the model card",
    "config": "config.json",
    "alias": "as the original of a mirror",
    "mirror": "as the original of a mirror",
    "root": "as the root of the bases in the model card",
    "shapes": "by its shapes",
}
_ADVICE = (
    "Write `base_model: OWNER/NAME` of the model that it was trained from into the model card, or submit it with that "
    "base (`base` in POST /v1/models, `deltadex add --base`)."
)

Claim = str | Sequence[str] | None  # what one source names; a card may name several bases
Claims = Mapping[str, Claim]  # by source, in the order in which they are tried


@dataclass(frozen=True)
class ResolvedBase:
    """A base model's identity and its files.

    `sha` is the commit of a base from the Hub, and the content's sha256 of one from `bases_dir`. `evidence` is JSON:
    `claim` (the source of the claim that led to it: "submitted", "declared", "card" or "config"; missing if none did),
    `source` (the same; "alias" or "mirror" for the original of a mirror, "root" for the common root of several bases,
    "shapes"), `location` ("folder" or "hub"), `matched` (the
    number of modules that fit), `weights` (a hash of the weights on the Hub), `revision` (the declared one, if it
    exists), the claims (`declared`, `card_base`, ...), and `tried`, the candidates with their outcomes, the accepted
    one last. `notes` are sentences for users.
    """

    repo: str
    sha: str
    folder: Path
    evidence: dict[str, Any]
    public: bool = True  # false if this or an earlier candidate needed the job's token
    at_revision: bool = False  # at a declared revision instead of the commit that other fine-tunes are measured on
    notes: tuple[str, ...] = ()

    def may_serve(self, space: Space) -> bool:
        """Whether a space of this base may serve because it is the first. That of a declared revision may not: the
        serving space determines the commit for all fine-tunes that declare none.
        """
        return space.base_repo is None or not self.at_revision


@dataclass
class _Search:
    """State of one call of `resolve`."""

    shapes: Mapping[str, Shape] | None
    options: FetchOptions
    job_hub: Hub | None = None  # with the job's own token
    private: bool = False  # whether something was read with the job's token
    newest: bool = False
    tried: list[dict[str, str]] = field(default_factory=list)
    tried_repos: set[str] = field(default_factory=set)  # in lower case
    refusals: list[Refused] = field(default_factory=list)
    followed: int = 0

    def record_failure(self, name: str, source: str, outcome: str) -> None:
        self.tried.append({"candidate": name, "source": source, "outcome": outcome})

    def refuse(self, candidate: Candidate, error: Refused) -> None:
        self.record_failure(candidate.repo, candidate.source, str(error))
        self.refusals.append(error)


class BaseResolver:
    """Finds bases in `bases_dir/OWNER/NAME`, then on the Hub. `aliases` extend the shipped table.

    `pinned_commit` returns the commit at which a base of the Hub is used (None: its newest), so that models that
    arrive after a new commit of their base stay comparable with earlier ones. `find_by_weights` returns the repo of
    a base that is in use and has these weights (`weights_hash`). `check` raises `BaseQuarantined` for the repo and
    commit of a base that must not be read. A base that exceeds `memory_limit` is refused by its headers. `readers`
    parse the files of bases. Thread-safe: while one base is downloaded, others are resolved.
    """

    def __init__(
        self,
        hub: Hub,
        bases_dir: Path,
        aliases: Mapping[str, str] | None = None,
        pinned_commit: PinnedCommit = lambda _: None,
        find_by_weights: Callable[[str], str | None] = lambda _: None,
        check: Callable[[str, str], None] = lambda _repo, _sha: None,
        memory_limit: MemoryLimit = NO_LIMIT,
        readers: Readers = IN_PROCESS,
    ) -> None:
        self._readers = readers
        self._hub_bases = HubBases(hub, pinned_commit)
        self._bases_dir = bases_dir
        self._aliases = AliasTable(aliases or {})
        self._find_by_weights = find_by_weights
        self._check = check
        self._memory_limit = memory_limit
        self._content_hashes = ContentHashes(bases_dir / ".content")
        self._locks = KeyedLocks()

    def resolve(
        self,
        claims: Claims,
        *,
        revision: str | None = None,
        own_repo: str | None = None,
        shapes: Mapping[str, Shape] | None = None,
        options: FetchOptions = DEFAULT_OPTIONS,
        job_hub: Hub | None = None,
        newest: bool = False,
    ) -> ResolvedBase:
        """The base of the first of the `claims` that exists and fits the tensor `shapes` (if given); else the only base
        in `bases_dir` that fits.

        Claims are tried in their order, the originals of mirrors first, so that mirrors of one base share a space.
        `revision` is the branch, tag or commit of the "declared" base; a base is used at its pinned commit if none is
        declared, or the declared one does not exist. With `newest`, the pinned commit is ignored. `own_repo` is the
        fine-tune's own repo, which is not its base. `options` are those of downloads. `job_hub` is the Hub with the
        job's token, for bases that this resolver's Hub may not read.

        Raises `ModelTooLarge` (found, but needs too much memory), `ShapeMismatch` (found, but does not fit),
        `UnsupportedBase` (found, but quantized) and `BaseUnresolved`, each with the candidates and the reasons;
        transient errors (`Unavailable`) are raised unchanged.
        """
        search = _Search(shapes, options, job_hub, newest=newest)
        base = self._by_claims(claims, revision, own_repo, search) or self._by_shapes(search)
        if base is None:
            raise _failure(search)
        keys = {"declared": "declared", "card": "card_base"}  # as stored before there were other claims
        stated = {keys.get(source, f"{source}_base"): _as_json(claim) for source, claim in claims.items()}
        evidence = {**base.evidence, "declared": None, "card_base": None, **stated}
        return replace(base, evidence=evidence, public=not search.private)

    def _by_claims(
        self, claims: Claims, revision: str | None, own_repo: str | None, search: _Search
    ) -> ResolvedBase | None:
        for source, claim in claims.items():
            at_revision = revision if claim == claims.get("declared") else None
            candidate = self._candidate(claim, source, at_revision, own_repo, search)
            if candidate and (base := self._first_usable(self._with_originals(candidate), search)):
                return replace(base, evidence={**base.evidence, "claim": source})
        return None

    def _first_usable(self, candidates: Sequence[Candidate], search: _Search) -> ResolvedBase | None:
        candidates = [candidate for candidate in candidates if candidate.repo.lower() not in search.tried_repos]
        search.tried_repos.update(candidate.repo.lower() for candidate in candidates)
        # a folder in bases_dir takes precedence over the Hub, under any of the names
        in_folders = [partial(self._folder_base, candidate, search) for candidate in candidates]
        on_hub = [partial(self._hub_base, candidate, search) for candidate in candidates]
        for attempt in (*in_folders, *on_hub):
            if base := attempt():
                return base
        return None

    def _candidate(
        self, claim: Claim, source: str, revision: str | None, own_repo: str | None, search: _Search
    ) -> Candidate | None:
        names = [name for name in _names(claim) if own_repo is None or not _is_repo(name, own_repo)]
        if not names:
            search.record_failure("null", source, "names no other model" if _names(claim) else "names no base")
            return None
        if len(names) > 1:
            return self._root(names, source, search)
        repo = read_claim(names[0])
        if repo.problem:
            search.record_failure(repo.name, source, repo.problem)
            return None
        return Candidate(repo.name, source, revision or repo.revision)

    def _root(self, names: Sequence[str], source: str, search: _Search) -> Candidate | None:
        root = Lineage(partial(self._bases_of, search=search)).common_root(names)
        if root is None:
            listed = ", ".join(names)[:MAX_CLAIM_CHARACTERS]
            search.record_failure(listed, source, "are several bases that descend from no common model")
            return None
        return Candidate(root, "root")

    def _with_originals(self, candidate: Candidate) -> list[Candidate]:
        originals = self._aliases.originals(candidate.repo)
        return [*(Candidate(repo, "alias", candidate.revision) for repo in originals), candidate]

    def _folder_base(self, candidate: Candidate, search: _Search) -> ResolvedBase | None:
        folder = self._bases_dir / candidate.repo
        if not (folder / "config.json").is_file():
            return None
        try:
            sha = self._content_hashes.find(folder)
            self._check(candidate.repo, sha)
            with reading_base(candidate.repo, sha):
                read = partial(self._readers.read_object, candidate.repo)
                _refuse_quantized(read_base_config(folder, candidate.repo, read), candidate.repo)
                base = self._accepted(candidate, "folder", candidate.repo, sha, folder, search)
        except Refused as error:
            search.refuse(candidate, error)
            return None
        if read_revision(candidate.revision) == (None, None):
            return base
        note = (
            f"The fine-tune names the revision {str(candidate.revision)[:80]!r} of its base. {candidate.repo} is a "
            "folder here, which has no commits, so the revision could not be checked."
        )
        return replace(base, notes=(note,))

    def _hub_base(self, candidate: Candidate, search: _Search) -> ResolvedBase | None:
        if (self._bases_dir / candidate.repo / "config.json").is_file():
            return None  # already tried, and it takes precedence
        try:
            located = self._locate(candidate, search)
            hub, snapshot = located.hub, located.snapshot
            self._check(snapshot.repo_id, snapshot.sha)
            with reading_base(snapshot.repo_id, snapshot.sha):
                if base := self._original_of(located, candidate, search):
                    return base
                _refuse_quantized(hub.base_config(snapshot, search.options), snapshot.repo_id)
                # otherwise each adapter of a new base would download it
                with self._locks.hold((snapshot.repo_id, snapshot.sha), lambda: raise_if_stopped(search.options.stop)):
                    folder = self._fetch(hub, snapshot, search)
                base = self._accepted(candidate, "hub", snapshot.repo_id, snapshot.sha, folder, search)
        except Refused as error:
            search.refuse(candidate, error)
            return None
        evidence = dict(base.evidence)
        if weights := weights_hash(snapshot):
            evidence["weights"] = weights
        if candidate.revision and not located.notes:
            evidence["revision"] = candidate.revision
        return replace(base, evidence=evidence, at_revision=located.at_revision, notes=located.notes)

    def _fetch(self, hub: Hub, snapshot: RepoSnapshot, search: _Search) -> Path:
        """Download a base, if its headers say that it fits the fine-tune and the memory."""
        read = partial(self._readers.fetched_shapes, snapshot.repo_id)
        shapes = remote_shapes(hub, snapshot, search.options, read)
        if search.shapes:
            _check_fit(compare(search.shapes, shapes), snapshot.repo_id)
        self._memory_limit.check(shapes, snapshot.repo_id)
        return hub.fetch_base(snapshot, search.options)

    def _accepted(
        self, candidate: Candidate, location: str, repo: str, sha: str, folder: Path, search: _Search
    ) -> ResolvedBase:
        """The resolved base with its evidence. Raises `ShapeMismatch` and `ModelTooLarge`."""
        shapes = self._readers.weight_shapes(repo, folder)
        fit = compare(search.shapes, shapes) if search.shapes else None
        if fit:
            _check_fit(fit, repo)
        self._memory_limit.check(shapes, repo)
        matched = {"matched": fit.matched} if fit else {}
        used = {"candidate": candidate.repo, "source": candidate.source, "outcome": f"found ({location})"}
        tried = [*search.tried, used]
        return ResolvedBase(
            repo, sha, folder, {"source": candidate.source, "location": location, **matched, "tried": tried}
        )

    def _original_of(self, mirror: HubBase, candidate: Candidate, search: _Search) -> ResolvedBase | None:
        """The original of a conversion or copy, if it can be used. A base that is already in use is used itself."""
        repo = mirror.snapshot.repo_id
        if search.followed >= MAX_FOLLOWED or (not search.newest and self._hub_bases.pinned_commit(repo)):
            return None
        search.followed += 1
        original = self._original_in_card(mirror, candidate.revision, search) or self._copied(mirror, search)
        return self._first_usable(self._with_originals(original), search) if original else None

    def _original_in_card(self, mirror: HubBase, revision: str | None, search: _Search) -> Candidate | None:
        """The only base that the card names, if the repo is a conversion or a copy of it and not a fine-tune."""
        card_bases = mirror.snapshot.card_bases
        if len(card_bases) != 1 or _is_repo(card_bases[0], mirror.snapshot.repo_id):
            return None
        repo = read_claim(card_bases[0])
        if repo.problem:
            return None
        if is_conversion(mirror.hub, mirror.snapshot, repo.name, search.options):
            return Candidate(repo.name, "mirror", revision)
        original = Candidate(repo.name, "mirror")
        return original if self._is_copy(mirror, original, search) else None

    def _copied(self, mirror: HubBase, search: _Search) -> Candidate | None:
        """A base that is in use under another name, and has the same weights."""
        weights = weights_hash(mirror.snapshot)
        repo = self._find_by_weights(weights) if weights else None
        if repo is None or repo == mirror.snapshot.repo_id:
            return None
        original = Candidate(repo, "mirror")
        return original if self._is_copy(mirror, original, search) else None

    def _is_copy(self, mirror: HubBase, original: Candidate, search: _Search) -> bool:
        try:
            other = self._hub_bases.locate(original, None, search.newest)
            return is_copy((mirror.hub, mirror.snapshot), (other.hub, other.snapshot), search.options)
        except Refused:
            return False

    def _bases_of(self, claim: str, search: _Search) -> tuple[str, Sequence[str]]:
        """The name of a model, as that of its original if it is a mirror, and the bases that it names."""
        repo = read_claim(claim)
        name = self._aliases.original(repo.name) or repo.name
        folder = self._bases_dir / name
        if repo.problem or (folder / "config.json").is_file():
            return name, () if repo.problem else self._readers.bases_in_card(name, folder / "README.md")
        try:
            located = self._locate(Candidate(name, "card"), search)
            name = self._aliases.original(located.snapshot.repo_id) or located.snapshot.repo_id
            return name, bases_of(located.hub, located.snapshot, search.options)
        except Refused:
            return name, ()

    def _by_shapes(self, search: _Search) -> ResolvedBase | None:
        """The only base in `bases_dir` whose shapes fit; of several, the only one whose vocabulary fits too."""
        fits = {}
        for folder in self._local_folders() if search.shapes else ():
            try:
                shapes = self._readers.weight_shapes(f"{folder.parent.name}/{folder.name}", folder)
            except Refused:
                continue
            fit = compare(search.shapes or {}, shapes)
            if fit.matched and not fit.problems:
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

    def _locate(self, candidate: Candidate, search: _Search) -> HubBase:
        located = self._hub_bases.locate(candidate, search.job_hub, search.newest)
        search.private = search.private or located.private
        return located


def _check_fit(fit: Fit, name: str) -> None:
    if fit.problems:
        raise ShapeMismatch(f"{name} does not fit the fine-tune: {fit.summary()}.")


def _refuse_quantized(config: Mapping[str, object], name: str) -> None:
    refuse_quantized(config, name, UnsupportedBase, "the original, which is the base to name.")


def _names(claim: Claim) -> list[str]:
    return [name for name in ([claim] if isinstance(claim, str) else claim or ()) if name]


def _is_repo(claim: str, repo: str) -> bool:
    return read_claim(claim).name.lower() == repo.lower()


def _as_json(claim: Claim) -> str | list[str] | None:
    names = _names(claim)
    return names if len(names) > 1 else next(iter(names), None)


def _failure(search: _Search) -> Refused:
    reasons = "; ".join(_reason(**tried) for tried in search.tried)
    for kind in (ModelTooLarge, ShapeMismatch, UnsupportedBase):
        if any(isinstance(refusal, kind) for refusal in search.refusals):
            return kind(f"No base can be used. Tried: {reasons}. {_ADVICE}")
    return BaseUnresolved(f"The base model cannot be found. Tried: {reasons}. {_ADVICE}")


def _reason(candidate: str, source: str, outcome: str) -> str:
    claimant = _CLAIMANTS.get(source, source)
    if candidate == "null":
        return f"{claimant} {outcome}"
    outcome = outcome.rstrip(".")
    return f"{claimant}: {outcome if outcome.startswith(candidate) else f'{candidate} {outcome}'}"
