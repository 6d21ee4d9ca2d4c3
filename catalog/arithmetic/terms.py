"""What the names of an expression stand for: one vector of each, all in one space.

To add a kind of term: a function that finds what a name stands for in every space, and a line in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from sqlalchemy.orm import Session

from catalog.arithmetic import repository as stored_vectors
from catalog.arithmetic.expressions import Name, Place, Term, written
from catalog.auth.viewer import Viewer
from catalog.clusters.repository import clusters
from catalog.errors import (
    AmbiguousTerm,
    CatalogError,
    InvalidExpression,
    InvalidRepoId,
    MergeNotDone,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SpaceMismatch,
    TaskNotDone,
    TermNotFound,
)
from catalog.merges import repository as merges
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.spaces.contract import PREFERRED, preference_rank
from catalog.tables import Model, SpaceRow
from catalog.tables.model_words import query as words_query
from catalog.tasks import repository as tasks
from catalog.vectors.repository import vectors

NEAR = 3  # names suggested in place of an unknown one
LOOKED_AT = 200  # models of an owner that a misspelt name is compared with


@dataclass(frozen=True)
class Meaning:
    """What a name stands for in one space: float64 (d,), and how much of it may be noise (a norm; None: not measured).
    `full` is its unmistakable form in an expression, `title` what people call it.
    """

    kind: str
    full: str
    title: str
    space: SpaceRow
    vector: np.ndarray
    noise_floor: float | None
    model: Model | None = None
    no_shift: bool = False

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.vector))


def resolve(session: Session, terms: Sequence[Term], space_key: str | None, viewer: Viewer) -> list[Meaning]:
    """One meaning a term, in the first space of that name, or else of the preferred ones, that has them all.

    Raises, each pointing at the name: `TermNotFound`, `AmbiguousTerm`, `NotIndexed`, `NoShift`, `SpaceMismatch`,
    `InvalidExpression`; and `SpaceNotFound`.
    """
    candidates = spaces.of_name(session, space_key, viewer) if space_key else preferred(session, viewer)
    found = [_meanings(session, term.name, candidates, viewer) for term in terms]
    space = _common_space(terms, found, candidates)
    chosen = []
    for term, meanings in zip(terms, found, strict=True):
        with pointing_at(term.name.place):
            here = [each for each in meanings if each.space.id == space.id]
            chosen.append(_one(term.name, here))
            if chosen[-1].no_shift:
                raise NoShift(f"{chosen[-1].full} does not move its base measurably: adding it is adding noise.")
    return chosen


def preferred(session: Session, viewer: Viewer) -> list[SpaceRow]:
    """The spaces of the preferred features: those that serve first, of these the best feature, the newest of each."""
    found = [space for space in spaces.page(session, viewer) if space.feature in PREFERRED]
    return sorted(found, key=lambda space: (not space.serving, preference_rank(space.feature)))


@contextmanager
def pointing_at(place: Place) -> Iterator[None]:
    """Errors from inside say what part of the expression they are about."""
    try:
        yield
    except CatalogError as error:
        error.place = error.place or place
        raise


def _common_space(
    terms: Sequence[Term], found: Sequence[Sequence[Meaning]], candidates: Sequence[SpaceRow]
) -> SpaceRow:
    """The first candidate in which every term has a vector."""
    left = list(candidates)
    for term, meanings in zip(terms, found, strict=True):
        has = {each.space.id for each in meanings}
        if not any(space.id in has for space in left):
            with pointing_at(term.name.place):
                raise SpaceMismatch(
                    f"{term.name.text} has no vector in the space that was named, or in one that the terms before it "
                    "share. A sum is of one space: leave this term out, or name another `space`."
                )
        left = [space for space in left if space.id in has]
    return left[0]


def _meanings(session: Session, name: Name, candidates: Sequence[SpaceRow], viewer: Viewer) -> list[Meaning]:
    """All that a name may stand for, in the candidates where it has a meaning there; at least one, all of one kind."""
    with pointing_at(name.place):
        kinds = _kinds(name)
        found = [each for kind in kinds for each in KINDS[kind].find(session, name.text, viewer)]
        if not found:
            expected = " and no ".join(KINDS[kind].title for kind in kinds)
            raise TermNotFound(f"{name.text[:200]!r} is no {expected} here.{_hint(session, name, kinds, viewer)}")
        allowed = {space.id for space in candidates}
        found = [each for each in found if each.space.id in allowed] or found
        if len({each.kind for each in found}) > 1:
            raise _ambiguous(name, found)
        return found


def _kinds(name: Name) -> list[str]:
    """What a name may be the name of. Raises `InvalidExpression`."""
    if name.kind is None:
        return ["model"] if _is_repo_id(name.text) else [kind for kind in KINDS if kind != "model"]
    if name.kind not in KINDS:
        known = ", ".join(f"{kind}:" for kind in KINDS)
        raise InvalidExpression(f"There is no kind of term {name.kind!r}. There are {known}.")
    return [name.kind]


def _hint(session: Session, name: Name, kinds: Sequence[str], viewer: Viewer) -> str:
    """What may have been meant, as it can be written."""
    listed = [each for kind in kinds for each in KINDS[kind].names(session, name.text, viewer)]
    near = [written(name.kind, each) for each in get_close_matches(name.text, dict.fromkeys(listed), NEAR)]
    if not near and name.kind is None:
        near = _models_about(session, name.text.rpartition("/")[2], viewer)[:NEAR]
    if near:
        return f" Near: {', '.join(near)}."
    return " A minus between two names needs a space before it." if "-" in name.text else ""


def _one(name: Name, meanings: Sequence[Meaning]) -> Meaning:
    if len(meanings) > 1:
        raise _ambiguous(name, meanings)
    return meanings[0]


def _ambiguous(name: Name, meanings: Sequence[Meaning]) -> AmbiguousTerm:
    forms = ", ".join(dict.fromkeys(each.full for each in meanings))
    return AmbiguousTerm(f"{name.text!r} may be any of {forms}: write which.")


def _is_repo_id(text: str) -> bool:
    with suppress(InvalidRepoId):
        RepoRef(text)
        return True
    return False


def _models_about(session: Session, text: str, viewer: Viewer) -> list[str]:
    words = words_query(text)
    if not words:
        return []
    return [model.repo_id for model, _ in models.containing(session, words, limit=LOOKED_AT, viewer=viewer)]


def _models_like(session: Session, name: str, viewer: Viewer) -> list[str]:
    """Models of that owner, and of others whose names have the same words."""
    owner, _, own = name.partition("/")
    listed = models.page(session, owner=owner, limit=LOOKED_AT, viewer=viewer)
    return [*(model.repo_id for model in listed), *_models_about(session, own, viewer)]


def _models(session: Session, name: str, viewer: Viewer) -> list[Meaning]:
    try:
        model = models.get(session, name, viewer)
    except ModelNotFound:
        return []
    found = vectors.in_spaces(session, model)
    if not found:
        raise NotIndexed(f"{name} has no vector yet (it is {model.state}). Look at its job for the reason.")
    return [
        Meaning(
            "model", model.repo_id, model.repo_id, each.space, each.vector.astype(np.float64), each.noise_floor,
            model, each.no_shift,
        )
        for each in found
    ]  # fmt: skip


def _vectors(session: Session, name: str, viewer: Viewer) -> list[Meaning]:
    found = stored_vectors.find(session, name, viewer)
    if found is None:
        return []
    stored, space = found
    vector = stored.numbers.astype(np.float64)
    return [Meaning("vector", written("vector", name), name, space, vector, stored.noise_floor)]


def _clusters(session: Session, name: str, _viewer: Viewer) -> list[Meaning]:
    """By number or name."""
    if name.isascii() and name.isdigit():
        found = clusters.shown(session, number=int(name)) if len(name) < 19 else []
    else:
        found = clusters.shown(session, name=name)
    return [_centroid(each, spaces.noise_floor(session, each.space.id)) for each in found]


def _centroid(shown: clusters.Shown, floor: float | None) -> Meaning:
    """A centroid has length 1: in a sum it is as long as its members are on average.

    It is m / |m|, m the mean of the members v_i / |v_i|. Noise of up to f in each of them turns it by at most
    f mean(1 / |v_i|) / |m|, and |m| is the members' mean cosine to it, the cohesion.
    """
    cluster = shown.cluster
    vector = shown.mean_norm * shown.centroid.astype(np.float64)
    noise = None if floor is None else floor * shown.mean_norm * shown.mean_inverse / cluster.cohesion
    return Meaning("cluster", f"cluster:{cluster.cluster_id}", cluster.name, shown.space, vector, noise)


def _tasks(session: Session, name: str, viewer: Viewer) -> list[Meaning]:
    """By number or name: the vector of all its examples, on each of its bases."""
    found = tasks.find(session, name, viewer)
    if found is None:
        return []
    measured = [each for run in found.runs for each in tasks.vectors(session, run.id)]
    if not measured:
        raise TaskNotDone(f"Task {name} has no vector yet: GET /v1/tasks/{found.id} tells how far its jobs are.")
    full = f"task:{found.id}"
    return [
        Meaning(
            "task", full, found.name or full, space, vectors_of_it[0].astype(np.float64),
            spaces.noise_floor(session, space.id),
        )
        for space, vectors_of_it in measured
    ]  # fmt: skip


def _merges(session: Session, name: str, viewer: Viewer) -> list[Meaning]:
    """By number or name: the vector of what was made, not the one that was predicted."""
    found = merges.find(session, name, viewer)
    if found is None:
        return []
    measured = merges.vectors(session, found.id, predicted=False)
    if not measured:
        raise MergeNotDone(f"Merge {name} is not made yet: GET /v1/merges/{found.id} tells how far its job is.")
    full = f"merge:{found.id}"
    return [
        Meaning(
            "merge", full, found.name or full, space, vector.astype(np.float64), spaces.noise_floor(session, space.id)
        )
        for space, vector in measured
    ]


@dataclass(frozen=True)
class Kind:
    """A kind of term: what a name of it stands for in every space, and the names that a misspelt one may be near to."""

    title: str
    find: Callable[[Session, str, Viewer], list[Meaning]]
    names: Callable[[Session, str, Viewer], list[str]]


# by what stands before the colon; a name without one that is no repo id may be of any of them
KINDS: dict[str, Kind] = {
    "model": Kind("model", _models, _models_like),
    "vector": Kind("stored vector", _vectors, lambda session, _, viewer: stored_vectors.names(session, viewer)),
    "task": Kind("task", _tasks, lambda session, _, viewer: tasks.names(session, viewer, LOOKED_AT)),
    "merge": Kind("merge", _merges, lambda session, _, viewer: merges.names(session, viewer, LOOKED_AT)),
    "cluster": Kind("cluster", _clusters, lambda session, _, viewer: clusters.shown_names(session)),
}
