"""What sets clusters apart, in tokens, tags and words; and short names made of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 10  # terms of a kind that are kept
TELLING = 0.5  # share of a cluster's members that must have a term for it to be in the name
TIMES = 1.5  # as often as in the average cluster, at least
IN_A_NAME = 2
_WORD = re.compile(r"[^\W\d_][\w+#]{2,}")


@dataclass(frozen=True)
class Told:
    """What is known of a member: its name and card in words, its tags, and the tokens that its shift promotes, each
    with how far a shift of length 1 moves its logit.
    """

    name: str = ""
    card: str = ""
    tags: tuple[str, ...] = ()
    tokens: dict[str, float] = field(default_factory=dict)

    def words(self) -> set[str]:
        """Of the card and of the repo's name; each counts once however often it is said."""
        return {word.lower() for word in _WORD.findall(f"{self.card} {re.sub(r'[-_./]', ' ', self.name)}")}


def explain(groups: Sequence[Sequence[Told]]) -> list[dict[str, list[dict[str, Any]]]]:
    """For each cluster its `words`, `tags` and `tokens`, the most telling first."""
    words = _set_apart([[member.words() for member in group] for group in groups])
    tags = _set_apart([[set(member.tags) for member in group] for group in groups])
    tokens = _promoted([[member.tokens for member in group] for group in groups])
    return [
        {"words": own, "tags": labels, "tokens": pieces}
        for own, labels, pieces in zip(words, tags, tokens, strict=True)
    ]


def _set_apart(groups: Sequence[Sequence[set[str]]]) -> list[list[dict[str, Any]]]:
    """Class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794, section 3.3): tf * log(1 + A / f), where tf is the share
    of a cluster's members that have the term, f the sum of these shares over the clusters, A their mean sum over all
    terms. Kept is what a cluster has more often than the average cluster.
    """
    shares = [_shares(group) for group in groups]
    total: Counter[str] = Counter()
    for each in shares:
        total.update(each)
    average = sum(total.values()) / max(len(groups), 1)
    found = []
    for each in shares:
        terms: list[dict[str, Any]] = [
            {"term": term, "score": round(share * math.log(1 + average / total[term]), 4), "share": round(share, 4)}
            for term, share in each.items()
            if len(groups) == 1 or share > TIMES * total[term] / len(groups)
        ]
        found.append(sorted(terms, key=lambda one: (-one["score"], one["term"]))[:MOST])
    return found


def _shares(group: Sequence[set[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for terms in group:
        counts.update(terms)
    return Counter({term: count / len(group) for term, count in counts.items()})


def _promoted(groups: Sequence[Sequence[dict[str, float]]]) -> list[list[dict[str, Any]]]:
    """Tokens by how much further a cluster's mean shift promotes them than the average cluster's does.

    The mean is over what is stored of the members, 20 tokens each; a token that is not among a member's 20 counts 0
    there. So it is a lower bound of the mean shift's own logits, the closer the more alike the members are.
    """
    means = [_means(group) for group in groups]
    total: Counter[str] = Counter()
    for each in means:
        total.update(each)
    found = []
    for each, group in zip(means, groups, strict=True):
        apart = {token: mean - (total[token] - mean) / max(len(groups) - 1, 1) for token, mean in each.items()}
        best = sorted((token for token in apart if apart[token] > 0), key=lambda one: (-apart[one], one))[:MOST]
        found.append(
            [
                {
                    "term": token,
                    "score": round(apart[token], 4),
                    "share": round(sum(token in member for member in group) / len(group), 4),
                }
                for token in best
            ]
        )
    return found


def _means(group: Sequence[dict[str, float]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for tokens in group:
        sums.update(tokens)
    return Counter({token: value / len(group) for token, value in sums.items()})


def names(explanations: Sequence[dict[str, list[dict[str, Any]]]], given: Sequence[str | None]) -> list[str]:
    """A name for each cluster: the one that was given before, or up to two telling words, else tags, else tokens.

    No two are alike: a number is put behind the later ones.
    """
    used = {name for name in given if name}
    found = []
    for explanation, old in zip(explanations, given, strict=True):
        name = old or _unused(_name(explanation), used)
        used.add(name)
        found.append(name)
    return found


def _name(explanation: dict[str, list[dict[str, Any]]]) -> str:
    for kind in ("words", "tags"):
        telling = [each["term"] for each in explanation[kind] if each["share"] >= TELLING]
        if telling:
            return " ".join(telling[:IN_A_NAME])
    tokens = [each["term"].strip() for each in explanation["tokens"] if each["term"].strip()]
    return " ".join(repr(token) for token in _first(tokens, IN_A_NAME + 1)) or "unnamed"


def _first(terms: Iterable[str], count: int) -> list[str]:
    """Without repetitions."""
    return list(dict.fromkeys(terms))[:count]


def _unused(name: str, used: set[str]) -> str:
    number, candidate = 1, name
    while candidate in used:
        number += 1
        candidate = f"{name} {number}"
    return candidate
