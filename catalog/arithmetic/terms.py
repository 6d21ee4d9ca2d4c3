"""Resolves the names in an expression to vectors of one space.

To add a kind of term, write a function that returns the vectors of a name in every space, and list it in `TERM_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from sqlalchemy.orm import Session

from catalog.arithmetic import repository as stored_vectors
from catalog.arithmetic.expressions import Name, Span, Term, format_expression
from catalog.auth.viewer import Viewer
from catalog.clusters.repository import clusters
from catalog.errors import (
    AmbiguousTerm,
    CatalogError,
    InvalidExpression,
    InvalidRepoId,
    MergeNotFinished,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SpaceMismatch,
    TaskNotFinished,
    TermNotFound,
)
from catalog.merges import repository as merges
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.spaces.contract import PREFERRED_FEATURES, preference_rank
from catalog.tables import Model, SpaceRow
from catalog.tables.model_words import query as words_query
from catalog.tasks import repository as tasks
from catalog.vectors.repository import vectors

MAX_SUGGESTIONS = 3  # for an unknown name
MAX_NAMES_SEARCHED = 200  # names of each kind with which an unknown name is compared: the time grows with both
MAX_COMPARED = 200  # characters of an unknown name


@dataclass(frozen=True)
class ResolvedTerm:
    """The vector, float64 (d,), that a name has in one space, and its noise floor (a norm; None: not measured).
    `canonical` is the term's unambiguous form in an expression, `title` its display name.
    """

    kind: str
    canonical: str
    title: str
    space: SpaceRow
    vector: np.ndarray
    noise_floor: float | None
    model: Model | None = None
    no_shift: bool = False

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.vector))


def resolve(session: Session, terms: Sequence[Term], space_key: str | None, viewer: Viewer) -> list[ResolvedTerm]:
    """Resolve each term in the first space in which all terms have vectors. The candidates are the spaces that
    `space_key` names, or the preferred spaces if it is None.

    Raises `SpaceNotFound`, and with the span of the name: `TermNotFound`, `AmbiguousTerm`, `NotIndexed`, `NoShift`,
    `SpaceMismatch`, `InvalidExpression`.
    """
    candidates = spaces.find_by_name(session, space_key, viewer) if space_key else preferred_spaces(session, viewer)
    matches = [_resolve_name(session, term.name, candidates, viewer) for term in terms]
    space = _common_space(terms, matches, candidates)
    resolved = []
    for term, term_matches in zip(terms, matches, strict=True):
        with pointing_at(term.name.span):
            in_space = [match for match in term_matches if match.space.id == space.id]
            if len(in_space) > 1:
                raise _ambiguous(term.name, in_space)
            if in_space[0].no_shift:
                raise NoShift(
                    f"{in_space[0].canonical} is indistinguishable from its base model, so its vector is only noise."
                )
            resolved.append(in_space[0])
    return resolved


def preferred_spaces(session: Session, viewer: Viewer) -> list[SpaceRow]:
    """The spaces of the preferred features: serving ones first, then by preference of the feature, then the newest."""
    preferred = [space for space in spaces.list_visible(session, viewer) if space.feature in PREFERRED_FEATURES]
    return sorted(preferred, key=lambda space: (not space.serving, preference_rank(space.feature)))


@contextmanager
def pointing_at(span: Span) -> Iterator[None]:
    """Add the span to catalog errors that have none."""
    try:
        yield
    except CatalogError as error:
        error.span = error.span or span
        raise


def _common_space(
    terms: Sequence[Term], matches: Sequence[Sequence[ResolvedTerm]], candidates: Sequence[SpaceRow]
) -> SpaceRow:
    """The first candidate in which every term has a vector."""
    common = list(candidates)
    for term, term_matches in zip(terms, matches, strict=True):
        space_ids = {match.space.id for match in term_matches}
        common = [space for space in common if space.id in space_ids]
        if not common:
            with pointing_at(term.name.span):
                raise SpaceMismatch(
                    f"{term.name.text} has no vector in the requested space, or in a space that has all terms before "
                    "it. All terms must be in one space: leave this term out, or name another `space`."
                )
    return common[0]


def _resolve_name(session: Session, name: Name, candidates: Sequence[SpaceRow], viewer: Viewer) -> list[ResolvedTerm]:
    """All matches of a name in the candidate spaces or, if there are none, in all spaces. They are of one kind, and
    there is at least one.
    """
    with pointing_at(name.span):
        kinds = _possible_kinds(name)
        matches = [match for kind in kinds for match in TERM_KINDS[kind].find(session, name.text, viewer)]
        if not matches:
            expected = " or ".join(TERM_KINDS[kind].title for kind in kinds)
            suggestions = _suggestions(session, name, kinds, viewer)
            raise TermNotFound(f"There is no {expected} named {name.text[:200]!r}.{suggestions}")
        space_ids = {space.id for space in candidates}
        matches = [match for match in matches if match.space.id in space_ids] or matches
        if len({match.kind for match in matches}) > 1:
            raise _ambiguous(name, matches)
        return matches


def _possible_kinds(name: Name) -> list[str]:
    """The kinds of terms that a name may be. Raises `InvalidExpression`."""
    if name.kind is None:
        return ["model"] if _is_repo_id(name.text) else [kind for kind in TERM_KINDS if kind != "model"]
    if name.kind not in TERM_KINDS:
        kinds = ", ".join(f"`{kind}:`" for kind in TERM_KINDS)
        raise InvalidExpression(f"Unknown kind of term {name.kind!r}. Use one of {kinds}.")
    return [name.kind]


def _suggestions(session: Session, name: Name, kinds: Sequence[str], viewer: Viewer) -> str:
    """A sentence with similar names, as they can be written in an expression; empty if there are none."""
    candidates = [candidate for kind in kinds for candidate in TERM_KINDS[kind].names(session, name.text, viewer)]
    matches = get_close_matches(name.text[:MAX_COMPARED], dict.fromkeys(candidates), MAX_SUGGESTIONS)
    similar = [format_expression(name.kind, match) for match in matches]
    if not similar and name.kind is None:
        similar = _models_with_words(session, name.text.rpartition("/")[2], viewer)[:MAX_SUGGESTIONS]
    if similar:
        return f" Similar names: {', '.join(similar)}."
    return " A minus between two names needs a space before it." if "-" in name.text else ""


def _ambiguous(name: Name, matches: Sequence[ResolvedTerm]) -> AmbiguousTerm:
    forms = ", ".join(dict.fromkeys(match.canonical for match in matches))
    return AmbiguousTerm(f"{name.text!r} is ambiguous. Write one of {forms}.")


def _is_repo_id(text: str) -> bool:
    with suppress(InvalidRepoId):
        RepoRef(text)
        return True
    return False


def _models_with_words(session: Session, text: str, viewer: Viewer) -> list[str]:
    words = words_query(text)
    if not words:
        return []
    return [model.repo_id for model, _ in models.search_text(session, words, limit=MAX_NAMES_SEARCHED, viewer=viewer)]


def _models_like(session: Session, name: str, viewer: Viewer) -> list[str]:
    """Repo ids of the same owner, and repo ids that contain the same words."""
    owner, _, repo_name = name.partition("/")
    same_owner = models.list_page(session, owner=owner, limit=MAX_NAMES_SEARCHED, viewer=viewer)
    return [*(model.repo_id for model in same_owner), *_models_with_words(session, repo_name, viewer)]


def _find_models(session: Session, name: str, viewer: Viewer) -> list[ResolvedTerm]:
    try:
        model = models.get(session, name, viewer)
    except ModelNotFound:
        return []
    encodings = vectors.list_encodings(session, model)
    if not encodings:
        raise NotIndexed(f"{name} has no vector yet (its state is {model.state}). See its job for the reason.")
    return [
        ResolvedTerm(
            "model",
            canonical=model.repo_id,
            title=model.repo_id,
            space=encoding.space,
            vector=encoding.vector.astype(np.float64),
            noise_floor=encoding.noise_floor,
            model=model,
            no_shift=encoding.no_shift,
        )
        for encoding in encodings
    ]


def _find_vectors(session: Session, name: str, viewer: Viewer) -> list[ResolvedTerm]:
    row = stored_vectors.find(session, name, viewer)
    if row is None:
        return []
    stored, space = row
    vector = stored.numbers.astype(np.float64)
    return [ResolvedTerm("vector", format_expression("vector", name), name, space, vector, stored.noise_floor)]


def _find_clusters(session: Session, name: str, _viewer: Viewer) -> list[ResolvedTerm]:
    """The centroids of the current clusters with this id or name."""
    if name.isascii() and name.isdigit():
        matches = clusters.find_current(session, cluster_id=int(name)) if len(name) < 19 else []
    else:
        matches = clusters.find_current(session, name=name)
    return [_centroid(current, spaces.max_noise_floor(session, current.space.id)) for current in matches]


def _centroid(current: clusters.CurrentCluster, noise_floor: float | None) -> ResolvedTerm:
    """The centroid of a cluster, scaled from length 1 to the mean norm of the members.

    The centroid is m / |m|, where m is the mean of the normalized members v_i / |v_i|. Noise of norm up to f in each
    member moves it by at most f mean(1 / |v_i|) / |m|, and |m| is the cohesion: the mean cosine of the members to it.
    """
    cluster = current.cluster
    vector = current.mean_norm * current.centroid.astype(np.float64)
    noise = None if noise_floor is None else noise_floor * current.mean_norm * current.mean_inverse / cluster.cohesion
    return ResolvedTerm("cluster", f"cluster:{cluster.cluster_id}", cluster.name, current.space, vector, noise)


def _find_tasks(session: Session, name: str, viewer: Viewer) -> list[ResolvedTerm]:
    """The vectors of the task with this id or name on each of its bases, from the adapters trained on all examples."""
    task = tasks.find(session, name, viewer)
    if task is None:
        return []
    measured = [(space, parts[0]) for run in task.runs for space, parts in tasks.get_vectors(session, run.id)]
    if not measured:
        raise TaskNotFinished(f"Task {name} has no vector yet: GET /v1/tasks/{task.id} shows the state of its jobs.")
    return _with_noise_floors(session, "task", f"task:{task.id}", task.name, measured)


def _find_merges(session: Session, name: str, viewer: Viewer) -> list[ResolvedTerm]:
    """The measured vectors of the merge with this id or name, not the predicted ones."""
    merge = merges.find(session, name, viewer)
    if merge is None:
        return []
    measured = merges.get_vectors(session, merge.id, predicted=False)
    if not measured:
        raise MergeNotFinished(f"Merge {name} is not finished: GET /v1/merges/{merge.id} shows the state of its job.")
    return _with_noise_floors(session, "merge", f"merge:{merge.id}", merge.name, measured)


def _with_noise_floors(
    session: Session, kind: str, canonical: str, name: str | None, measured: Sequence[tuple[SpaceRow, np.ndarray]]
) -> list[ResolvedTerm]:
    return [
        ResolvedTerm(
            kind,
            canonical=canonical,
            title=name or canonical,
            space=space,
            vector=vector.astype(np.float64),
            noise_floor=spaces.max_noise_floor(session, space.id),
        )
        for space, vector in measured
    ]


@dataclass(frozen=True)
class TermKind:
    """A kind of term: `find` returns the matches of a name in every space, `names` the names with which an unknown name
    is compared.
    """

    title: str
    find: Callable[[Session, str, Viewer], list[ResolvedTerm]]
    names: Callable[[Session, str, Viewer], list[str]]


# by the prefix before the colon; a name without a prefix is a model if it is a repo id, and else any of the others
TERM_KINDS: dict[str, TermKind] = {
    "model": TermKind("model", _find_models, _models_like),
    "vector": TermKind(
        "stored vector",
        _find_vectors,
        lambda session, _, viewer: stored_vectors.list_names(session, viewer, MAX_NAMES_SEARCHED),
    ),
    "task": TermKind(
        "task", _find_tasks, lambda session, _, viewer: tasks.list_names(session, viewer, MAX_NAMES_SEARCHED)
    ),
    "merge": TermKind(
        "merge", _find_merges, lambda session, _, viewer: merges.list_names(session, viewer, MAX_NAMES_SEARCHED)
    ),
    "cluster": TermKind(
        "cluster", _find_clusters, lambda session, _, viewer: clusters.list_current_names(session, MAX_NAMES_SEARCHED)
    ),
}
