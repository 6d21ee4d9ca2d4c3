from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import MergeIncompatible, ModelNotFound, NotIndexed, SpaceMismatch, ZeroVector
from catalog.merges import plans
from catalog.merges.methods import METHODS, MergeSpec
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
    """Orthogonal models for law and math, a second one for law, and one on another base."""
    vectors = {"law": [1, 0, 0], "math": [0, 2, 0], "law-2": [1, 0.1, 0]}
    for name, vector in vectors.items():
        entries.put(database, f"owner/{name}", vector)
        set_revision(database, f"owner/{name}", facts=PLAIN)
    with database.transaction() as session:
        entries.put_revision(session, "owner/wide", base="wide/base")
    entries.put(database, "owner/wide", np.ones(5), space=WIDE)
    set_revision(database, "owner/wide", facts=PLAIN, base_repo="wide/base")
    return database


def set_revision(database: Database, repo_id: str, **values: Any) -> None:
    """Change columns of a model's current revision."""
    model_id = select(Model.id).where(Model.repo_id == repo_id).scalar_subquery()
    with database.transaction() as session:
        session.execute(update(Revision).where(Revision.model_id == model_id, Revision.current).values(**values))


def plan(database: Database, weights: dict[str, float] = BOTH, method: str = "cat", **settings: Any) -> Plan:
    with database.transaction() as session:
        return plans.create(session, MergeSpec(weights, method, **settings), PUBLIC)


def codes(merge_plan: Plan) -> list[str]:
    return [note.code for note in merge_plan.notes]


def test_prediction_is_the_weighted_sum_of_the_vectors(catalog: Database):
    merge_plan = plan(catalog)
    assert merge_plan.prediction.tolist() == [1, 1, 0]
    assert [(pair.first, pair.second, pair.cosine) for pair in merge_plan.pairs] == [(0, 1, 0.0)]
    assert merge_plan.cosines_to_parts(merge_plan.prediction) == pytest.approx([0.5**0.5, 0.5**0.5])


def test_plan_predicts_in_every_shared_space_and_prefers_the_default_feature(catalog: Database):
    for name, vector in (("law", [3, 0, 0, 0]), ("math", [0, 0, 0, 4])):
        with catalog.transaction() as session:
            facts = session.scalars(select(Revision.facts).join(Model, Model.id == Revision.model_id)).first()
        entries.put(catalog, f"owner/{name}", vector, space=LAYERS)
        set_revision(catalog, f"owner/{name}", facts=facts)
    merge_plan = plan(catalog)
    assert merge_plan.space.feature == "delta_layers"
    assert sorted(vector.tolist() for vector in merge_plan.predictions.values()) == [[1, 1, 0], [3, 0, 0, 2]]


def test_nearly_equal_parts_give_a_note(catalog: Database):
    [note] = plan(catalog, {"owner/law": 1.0, "owner/law-2": 1.0}).notes
    assert (note.code, "owner/law and owner/law-2" in note.message) == ("similar_parts", True)


def test_parts_that_cancel_in_part_give_a_note(catalog: Database):
    assert codes(plan(catalog, {"owner/law": 1.0, "owner/law-2": -1.0})) == ["opposing_parts"]
    entries.put(catalog, "owner/unlaw", [-1, 0.5, 0])
    set_revision(catalog, "owner/unlaw", facts=PLAIN)
    assert codes(plan(catalog, {"owner/law": 1.0, "owner/unlaw": 1.0})) == ["opposing_parts"]


def test_orthogonal_parts_give_no_note(catalog: Database):
    assert codes(plan(catalog)) == []


def test_parts_that_cancel_completely_are_refused(catalog: Database):
    entries.put(catalog, "owner/copy", [1, 0, 0])
    with pytest.raises(ZeroVector):
        plan(catalog, {"owner/law": 1.0, "owner/copy": -1.0})


def test_part_without_a_shift_gives_a_note(catalog: Database):
    entries.put(catalog, "owner/still", [0, 0, 0.001], no_shift=True)
    set_revision(catalog, "owner/still", facts=PLAIN)
    assert codes(plan(catalog, {"owner/law": 1.0, "owner/still": 1.0})) == ["no_shift"]


def test_different_licenses_give_a_note(catalog: Database):
    with catalog.transaction() as session:
        session.execute(update(Model).where(Model.repo_id == "owner/law").values(license="mit"))
    [note] = plan(catalog).notes
    assert (note.code, "owner/law: mit, owner/math: unknown" in note.message) == ("different_licenses", True)


@pytest.mark.parametrize("method", METHODS)
def test_notes_depend_on_the_method(catalog: Database, method: str):
    definition = METHODS[method]
    notes = codes(plan(catalog, method=method))
    assert ("cross_terms" in notes) == definition.combines_factors
    assert ("averages" in notes) == definition.elects_sign
    assert ("truncated_rank" in notes) == (method == "svd")


def test_ties_with_a_negative_weight_gives_a_note(catalog: Database):
    assert "signs_before_weights" in codes(plan(catalog, {"owner/law": 1.0, "owner/math": -1.0}, "ties_svd"))


@pytest.mark.parametrize(
    ("method", "settings", "rank"),
    [("cat", {}, 12), ("svd", {}, 8), ("svd", {"rank": 12}, 12), ("ties_svd", {"rank": 3}, 3)],
)
def test_plan_has_the_rank_of_the_result(catalog: Database, method: str, settings: dict[str, Any], rank: int):
    set_revision(catalog, "owner/math", facts=PLAIN | {"ranks": [2, 4]})
    merge_plan = plan(catalog, BOTH, method, **settings)
    assert merge_plan.rank == rank
    assert ("truncated_rank" in codes(merge_plan)) == (method == "svd" and rank < 12)


def test_different_ranks_are_refused_if_the_method_combines_factors(catalog: Database):
    set_revision(catalog, "owner/math", facts=PLAIN | {"ranks": [16]})
    with pytest.raises(MergeIncompatible, match="owner/law has 8, owner/math has 16"):
        plan(catalog, method="linear")


def test_unknown_ranks_give_a_note_and_an_unknown_result_rank(catalog: Database):
    set_revision(catalog, "owner/math", facts=None)
    merge_plan = plan(catalog, method="cat")
    assert (codes(merge_plan), merge_plan.rank) == (["unknown_ranks"], None)
    assert plan(catalog, method="linear").rank is None


@pytest.mark.parametrize(
    ("method", "ranks", "refused"),
    [
        ("cat", (256, 256), False),
        ("cat", (256, 257), True),
        ("cat", (513, None), True),  # whatever the rank of the other
        ("linear", (513, 513), True),
        ("svd", (513, 8), True),
        ("ties_svd", (512, 8), False),
    ],
)
def test_result_above_the_maximal_rank_is_refused(
    catalog: Database, method: str, ranks: tuple[int | None, ...], refused: bool
):
    for name, rank in zip(BOTH, ranks, strict=True):
        set_revision(catalog, name, facts=None if rank is None else PLAIN | {"ranks": [rank]})
    if refused:
        with pytest.raises(MergeIncompatible, match=f"The result of {method} would have rank 513"):
            plan(catalog, method=method)
    else:
        assert plan(catalog, method=method).rank == 512


def test_svd_accepts_parts_above_the_maximal_rank(catalog: Database):
    set_revision(catalog, "owner/math", facts=PLAIN | {"ranks": [8192]})
    assert plan(catalog, method="svd", rank=8).rank == 8


def test_rslora_gives_a_note(catalog: Database):
    set_revision(catalog, "owner/math", facts=PLAIN | {"rslora": True})
    assert codes(plan(catalog)) == ["rslora"]


def test_parts_on_different_bases_are_refused(catalog: Database):
    with pytest.raises(MergeIncompatible, match="is a fine-tune of wide/base"):
        plan(catalog, {"owner/law": 1.0, "owner/wide": 1.0})


def test_parts_on_different_commits_of_the_base_are_refused(catalog: Database):
    set_revision(catalog, "owner/math", base_sha="d" * 40)
    with pytest.raises(MergeIncompatible, match="different commits"):
        plan(catalog)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "dora"}, "is a DoRA"),
        ({"kind": "full"}, "is of kind full"),
        ({"kind": "ia3"}, "is of kind ia3"),
        ({"facts": PLAIN | {"path": "peft"}}, "weights other than LoRA pairs"),
    ],
)
def test_kinds_that_peft_merges_wrongly_are_refused(catalog: Database, values: dict[str, Any], message: str):
    set_revision(catalog, "owner/math", **values)
    with pytest.raises(MergeIncompatible, match=message):
        plan(catalog)


def test_private_part_is_refused_and_hidden_from_other_viewers(catalog: Database):
    entries.put_private(catalog, "owner/secret", [0, 0, 1], "me")
    weights = {"owner/law": 1.0, "owner/secret": 1.0}
    with pytest.raises(MergeIncompatible, match="token"), catalog.transaction() as session:
        plans.create(session, MergeSpec(weights), Viewer("me"))
    with pytest.raises(ModelNotFound), catalog.transaction() as session:
        plans.create(session, MergeSpec(weights), Viewer("you"))


def test_part_without_a_vector_raises_not_indexed(catalog: Database):
    entries.put_model(catalog, "owner/waiting")
    with pytest.raises(NotIndexed):
        plan(catalog, {"owner/law": 1.0, "owner/waiting": 1.0})


def test_parts_without_a_shared_space_raise_space_mismatch(catalog: Database):
    entries.put(catalog, "owner/other", [1, 0, 0, 0], space=LAYERS)
    with pytest.raises(SpaceMismatch):
        plan(catalog, {"owner/law": 1.0, "owner/other": 1.0})
