"""Explains clusters by the tokens, tags and words that distinguish them, and derives short names from these."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_TERMS = 10  # terms of each kind that are stored
MIN_NAME_SHARE = 0.5  # share of a cluster's members that must have a term before it may be part of the name
MIN_LIFT = 1.5  # how many times as frequent as in the average cluster a term must be
MAX_NAME_TERMS = 2
_WORD = re.compile(r"[^\W\d_][\w+#]{2,}")


@dataclass(frozen=True)
class NamedMember:
    """The texts of a cluster member: the name of its repo, its card, its tags, and the tokens that its shift promotes,
    each with the change of its logit for a shift of length 1.
    """

    name: str = ""
    card: str = ""
    tags: tuple[str, ...] = ()
    tokens: dict[str, float] = field(default_factory=dict)

    def words(self) -> set[str]:
        """The distinct words of the card and of the repo's name."""
        return {word.lower() for word in _WORD.findall(f"{self.card} {re.sub(r'[-_./]', ' ', self.name)}")}


def explain(clusters: Sequence[Sequence[NamedMember]]) -> list[dict[str, list[dict[str, Any]]]]:
    """The `words`, `tags` and `tokens` of each cluster, the most distinctive first."""
    words = _class_tf_idf([[member.words() for member in members] for members in clusters])
    tags = _class_tf_idf([[set(member.tags) for member in members] for members in clusters])
    tokens = _promoted_tokens([[member.tokens for member in members] for members in clusters])
    return [
        {"words": cluster_words, "tags": cluster_tags, "tokens": cluster_tokens}
        for cluster_words, cluster_tags, cluster_tokens in zip(words, tags, tokens, strict=True)
    ]


def _class_tf_idf(clusters: Sequence[Sequence[set[str]]]) -> list[list[dict[str, Any]]]:
    """Class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794, section 3.3): tf * log(1 + A / f).

    tf is the share of a cluster's members that have the term, f the sum of these shares over the clusters, and A the
    mean over the clusters of the shares' sum over all terms. Only terms that are at least `MIN_LIFT` times as
    frequent as in the average cluster are returned.
    """
    shares = [_shares(members) for members in clusters]
    total: Counter[str] = Counter()
    for cluster_shares in shares:
        total.update(cluster_shares)
    average = sum(total.values()) / max(len(clusters), 1)
    ranked = []
    for cluster_shares in shares:
        terms: list[dict[str, Any]] = [
            {"term": term, "score": round(share * math.log(1 + average / total[term]), 4), "share": round(share, 4)}
            for term, share in cluster_shares.items()
            if len(clusters) == 1 or share > MIN_LIFT * total[term] / len(clusters)
        ]
        ranked.append(sorted(terms, key=lambda entry: (-entry["score"], entry["term"]))[:MAX_TERMS])
    return ranked


def _shares(members: Sequence[set[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for terms in members:
        counts.update(terms)
    return Counter({term: count / len(members) for term, count in counts.items()})


def _promoted_tokens(clusters: Sequence[Sequence[dict[str, float]]]) -> list[list[dict[str, Any]]]:
    """Tokens, ranked by how much more a cluster's mean shift promotes them than those of the other clusters do.

    Only 20 tokens are stored for each member, and a token outside a member's 20 counts as 0. The score is therefore a
    lower bound of the mean shift's logits, which is tighter the more alike the members are.
    """
    means = [_mean_shifts(members) for members in clusters]
    total: Counter[str] = Counter()
    for cluster_means in means:
        total.update(cluster_means)
    ranked = []
    for cluster_means, members in zip(means, clusters, strict=True):
        scores = {
            token: mean - (total[token] - mean) / max(len(clusters) - 1, 1) for token, mean in cluster_means.items()
        }
        best = sorted((token for token in scores if scores[token] > 0), key=lambda token: (-scores[token], token))
        ranked.append(
            [
                {
                    "term": token,
                    "score": round(scores[token], 4),
                    "share": round(sum(token in member for member in members) / len(members), 4),
                }
                for token in best[:MAX_TERMS]
            ]
        )
    return ranked


def _mean_shifts(members: Sequence[dict[str, float]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for tokens in members:
        sums.update(tokens)
    return Counter({token: value / len(members) for token, value in sums.items()})


def choose_names(explanations: Sequence[dict[str, list[dict[str, Any]]]], previous: Sequence[str | None]) -> list[str]:
    """A name for each cluster: its previous name if it has one, else up to two distinctive words, else tags, else
    tokens. A number is appended if a name is already in use.
    """
    used = {name for name in previous if name}
    chosen = []
    for explanation, previous_name in zip(explanations, previous, strict=True):
        name = previous_name or _unused(_suggest_name(explanation), used)
        used.add(name)
        chosen.append(name)
    return chosen


def _suggest_name(explanation: dict[str, list[dict[str, Any]]]) -> str:
    for kind in ("words", "tags"):
        common = [entry["term"] for entry in explanation[kind] if entry["share"] >= MIN_NAME_SHARE]
        if common:
            return " ".join(common[:MAX_NAME_TERMS])
    tokens = [entry["term"].strip() for entry in explanation["tokens"] if entry["term"].strip()]
    return " ".join(repr(token) for token in _distinct(tokens, MAX_NAME_TERMS + 1)) or "unnamed"


def _distinct(terms: Iterable[str], count: int) -> list[str]:
    return list(dict.fromkeys(terms))[:count]


def _unused(name: str, used: set[str]) -> str:
    number, candidate = 1, name
    while candidate in used:
        number += 1
        candidate = f"{name} {number}"
    return candidate
