from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import MergeIncompatible, ModelNotFound, NothingLeft, NotIndexed, SpaceMismatch
from catalog.merges import plans
from catalog.merges.methods import METHODS, Blend
from catalog.merges.plans import Plan
from catalog.tables import Model, Revision
from tests.support import catalog as entries
from tests.support.catalog import SPACE

BOTH = {"owner/law": 1.0, "owner/math": 0.5}
WIDE = replace(SPACE, base_repo="wide/base")
LAYERS = replace(SPACE, feature="delta_layers")
PLAIN = {"path": "lora", "ranks": [8], "rslora": False}


@pytest.fixture
def catalog(database: Database) -> Database:
    """Law and math at right angles, a second of law, and one of another base."""
    vectors = {"law": [1, 0, 0], "math": [0, 2, 0], "law-2": [1, 0.1, 0]}
    for name, vector in vectors.items():
        entries.put(database, f"owner/{name}", vector)
        tell(database, f"owner/{name}", facts=PLAIN)
    with database.transaction() as session:
        entries.put_revision(session, "owner/wide", base="wide/base")
    entries.put(database, "owner/wide", np.ones(5), space=WIDE)
    tell(database, "owner/wide", facts=PLAIN, base_repo="wide/base")
    return database


def tell(database: Database, repo_id: str, **values: Any) -> None:
    """Change what is stored of a model's current revision."""
    own = select(Model.id).where(Model.repo_id == repo_id).scalar_subquery()
    with database.transaction() as session:
        session.execute(update(Revision).where(Revision.model_id == own, Revision.current).values(**values))


def plan(database: Database, weights: dict[str, float] = BOTH, method: str = "cat", **settings: Any) -> Plan:
    with database.transaction() as session:
        return plans.make(session, Blend.of(weights, method, settings), settings.pop("viewer", PUBLIC))


def codes(found: Plan) -> list[str]:
    return [note.code for note in found.notes]


def test_the_prediction_is_the_weighted_sum(catalog: Database):
    found = plan(catalog)
    assert found.prediction.tolist() == [1, 1, 0]
    assert [(pair.first, pair.second, pair.cosine) for pair in found.pairs] == [(0, 1, 0.0)]
    assert found.closeness(found.prediction) == pytest.approx([0.5**0.5, 0.5**0.5])


def test_every_space_of_all_parts_has_a_prediction_and_the_best_feature_leads(catalog: Database):
    for name, vector in (("law", [3, 0, 0, 0]), ("math", [0, 0, 0, 4])):
        with catalog.transaction() as session:
            facts = session.scalars(select(Revision.facts).join(Model, Model.id == Revision.model_id)).first()
        entries.put(catalog, f"owner/{name}", vector, space=LAYERS)
        tell(catalog, f"owner/{name}", facts=facts)
    found = plan(catalog)
    assert found.space.feature == "delta_layers"
    assert sorted(each.tolist() for each in found.predicted.values()) == [[1, 1, 0], [3, 0, 0, 2]]


def test_parts_that_are_nearly_the_same_are_named(catalog: Database):
    [note] = plan(catalog, {"owner/law": 1.0, "owner/law-2": 1.0}).notes
    assert (note.code, "owner/law and owner/law-2" in note.message) == ("alike", True)


def test_parts_that_work_against_each_other_are_named(catalog: Database):
    assert codes(plan(catalog, {"owner/law": 1.0, "owner/law-2": -1.0})) == ["opposed"]
    entries.put(catalog, "owner/unlaw", [-1, 0.5, 0])
    tell(catalog, "owner/unlaw", facts=PLAIN)
    assert codes(plan(catalog, {"owner/law": 1.0, "owner/unlaw": 1.0})) == ["opposed"]


def test_parts_that_do_different_things_have_no_note(catalog: Database):
    assert codes(plan(catalog)) == []


def test_parts_that_cancel_each_other_are_refused(catalog: Database):
    entries.put(catalog, "owner/twin", [1, 0, 0])
    with pytest.raises(NothingLeft):
        plan(catalog, {"owner/law": 1.0, "owner/twin": -1.0})


def test_a_part_that_moves_nothing_is_named(catalog: Database):
    entries.put(catalog, "owner/still", [0, 0, 0.001], no_shift=True)
    tell(catalog, "owner/still", facts=PLAIN)
    assert codes(plan(catalog, {"owner/law": 1.0, "owner/still": 1.0})) == ["no_shift"]


def test_licences_that_differ_are_named(catalog: Database):
    with catalog.transaction() as session:
        session.execute(update(Model).where(Model.repo_id == "owner/law").values(licence="mit"))
    [note] = plan(catalog).notes
    assert (note.code, "owner/law: mit, owner/math: none known" in note.message) == ("licences", True)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_does_to_a_sum_is_told(catalog: Database, method: str):
    how = METHODS[method]
    found = codes(plan(catalog, method=method))
    assert ("cross_terms" in found, "averages" in found, "cut" in found) == (how.factors, how.elects, method == "svd")


def test_ties_with_a_negative_weight_elects_as_if_it_were_positive(catalog: Database):
    assert "signs_before_weights" in codes(plan(catalog, {"owner/law": 1.0, "owner/math": -1.0}, "ties_svd"))


@pytest.mark.parametrize(
    ("method", "settings", "rank"),
    [("cat", {}, 12), ("svd", {}, 8), ("svd", {"rank": 12}, 12), ("ties_svd", {"rank": 3}, 3)],
)
def test_the_rank_of_the_result_is_told(catalog: Database, method: str, settings: dict[str, Any], rank: int):
    tell(catalog, "owner/math", facts=PLAIN | {"ranks": [2, 4]})
    found = plan(catalog, BOTH, method, **settings)
    assert found.rank == rank
    assert ("cut" in codes(found)) == (method == "svd" and rank < 12)


def test_ranks_that_differ_are_refused_where_factors_are_added(catalog: Database):
    tell(catalog, "owner/math", facts=PLAIN | {"ranks": [16]})
    with pytest.raises(MergeIncompatible, match="owner/law has 8, owner/math has 16"):
        plan(catalog, method="linear")


def test_ranks_that_are_not_known_are_left_to_the_job(catalog: Database):
    tell(catalog, "owner/math", facts=None)
    found = plan(catalog, method="cat")
    assert (codes(found), found.rank) == (["unknown"], None)
    assert plan(catalog, method="linear").rank is None


@pytest.mark.parametrize(
    ("method", "ranks", "refused"),
    [
        ("cat", (256, 256), False),
        ("cat", (256, 257), True),
        ("cat", (513, None), True),  # whatever the other's are
        ("linear", (513, 513), True),
        ("svd", (513, 8), True),
        ("ties_svd", (512, 8), False),
    ],
)
def test_a_result_of_too_great_a_rank_is_refused(
    catalog: Database, method: str, ranks: tuple[int | None, ...], refused: bool
):
    for name, rank in zip(BOTH, ranks, strict=True):
        tell(catalog, name, facts=None if rank is None else PLAIN | {"ranks": [rank]})
    if refused:
        with pytest.raises(MergeIncompatible, match=f"By {method} the result would be of rank 513"):
            plan(catalog, method=method)
    else:
        assert plan(catalog, method=method).rank == 512


def test_a_part_of_any_rank_may_be_cut(catalog: Database):
    tell(catalog, "owner/math", facts=PLAIN | {"ranks": [8192]})
    assert plan(catalog, method="svd", rank=8).rank == 8


def test_an_rslora_is_named(catalog: Database):
    tell(catalog, "owner/math", facts=PLAIN | {"rslora": True})
    assert codes(plan(catalog)) == ["rslora"]


def test_other_bases_are_refused(catalog: Database):
    with pytest.raises(MergeIncompatible, match="is a fine-tune of wide/base"):
        plan(catalog, {"owner/law": 1.0, "owner/wide": 1.0})


def test_other_commits_of_the_base_are_refused(catalog: Database):
    tell(catalog, "owner/math", base_sha="d" * 40)
    with pytest.raises(MergeIncompatible, match="different commits"):
        plan(catalog)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "dora"}, "is a DoRA"),
        ({"kind": "full"}, "of the kind full"),
        ({"kind": "ia3"}, "of the kind ia3"),
        ({"facts": PLAIN | {"path": "peft"}}, "more than low-rank pairs"),
    ],
)
def test_kinds_that_merge_wrongly_are_refused(catalog: Database, values: dict[str, Any], said: str):
    tell(catalog, "owner/math", **values)
    with pytest.raises(MergeIncompatible, match=said):
        plan(catalog)


def test_what_was_read_with_a_token_is_refused_for_those_who_see_it(catalog: Database):
    entries.put_private(catalog, "owner/secret", [0, 0, 1], "me")
    weights = {"owner/law": 1.0, "owner/secret": 1.0}
    with pytest.raises(MergeIncompatible, match="token"), catalog.transaction() as session:
        plans.make(session, Blend(weights), Viewer("me"))
    with pytest.raises(ModelNotFound), catalog.transaction() as session:
        plans.make(session, Blend(weights), Viewer("you"))


def test_a_model_without_a_vector_is_told(catalog: Database):
    entries.put_model(catalog, "owner/waiting")
    with pytest.raises(NotIndexed):
        plan(catalog, {"owner/law": 1.0, "owner/waiting": 1.0})


def test_parts_without_a_space_in_common_are_told(catalog: Database):
    entries.put(catalog, "owner/other", [1, 0, 0, 0], space=LAYERS)
    with pytest.raises(SpaceMismatch):
        plan(catalog, {"owner/law": 1.0, "owner/other": 1.0})
