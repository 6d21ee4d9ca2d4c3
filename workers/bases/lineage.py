"""Descent of models on the Hub: the common root of the bases that a merge names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_REPOS = 40  # that are read for one merge
MAX_GENERATIONS = 8

BasesOf = Callable[[str], tuple[str, Sequence[str]]]  # from a claim to the repo's current name, and its own bases


@dataclass
class Lineage:
    """Reads what repos say of their own bases, at most `MAX_REPOS` of them. The cards are untrusted: they may name each
    other in circles.
    """

    bases_of: BasesOf
    repos_left: int = MAX_REPOS

    def common_root(self, names: Sequence[str]) -> str | None:
        """The nearest model from which all `names` descend; one of them, if the others descend from it. None if there
        is no such model. Raises what `bases_of` raises.
        """
        return next(iter(self._shared(names, ())), None)

    def _ancestors(self, name: str, descendants: tuple[str, ...]) -> list[str]:
        """A repo, and the models from which all of it descends, the nearest first."""
        if self.repos_left <= 0:
            return [name]
        self.repos_left -= 1
        repo, bases = self.bases_of(name)
        if repo in descendants:
            return []
        descendants = (*descendants, repo)
        return [repo, *(self._shared(bases, descendants) if len(descendants) < MAX_GENERATIONS else ())]

    def _shared(self, names: Sequence[str], descendants: tuple[str, ...]) -> list[str]:
        lineages = [self._ancestors(name, descendants) for name in names]
        return [repo for repo in lineages[0] if all(repo in other for other in lineages[1:])] if lineages else []
