from __future__ import annotations

from types import SimpleNamespace

from workers.selections.members import Member
from workers.selections.results import TrialResult


def test_a_result_is_stored_with_members_and_weights_in_order():
    members = [Member(SimpleNamespace(name=name), cosine) for name, cosine in (("owner/a", 0.91234), ("owner/b", 0.5))]
    result = TrialResult("nearest", members, (0.123456, -1.0), 1.00004, 3.0)
    assert result.as_dict() == {
        "strategy": "nearest",
        "members": [
            {"repo_id": "owner/a", "similarity": 0.9123, "weight": 0.1235},
            {"repo_id": "owner/b", "similarity": 0.5, "weight": -1.0},
        ],
        "examples_loss": 1.0,
        "holdout_loss": 3.0,
    }
