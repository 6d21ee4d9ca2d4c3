"""Where the tokens of prompts and continuations stand in one forward."""

from __future__ import annotations

import pytest
import torch
from tokenizers import normalizers

from catalog.errors import InvalidProbeSet
from catalog.spaces.probes import ProbeSet
from tests.support.pico import byte_tokenizer
from workers.encoding.token_plan import PROMPT, TokenPlan, plan_tokens

PROBES = ProbeSet("three", ("abc", "d", "efgh"))


def plan(*continuations: str) -> TokenPlan:
    return plan_tokens(byte_tokenizer(), PROBES, continuations)


def text(ids: torch.Tensor) -> str:
    return byte_tokenizer().decode(ids)


def test_prompts_lie_behind_one_another_without_padding():
    assert text(plan().ids) == "abcdefgh"
    assert plan().probe.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_positions_begin_anew_with_each_prompt():
    assert plan().positions.tolist() == [0, 1, 2, 0, 0, 1, 2, 3]


def test_the_last_token_of_each_prompt_is_known():
    assert text(plan().ids[plan().last]) == "cdh"


def test_a_prompt_is_cut_at_256_tokens():
    long = ProbeSet("long", ("x" * 300,))
    assert plan_tokens(byte_tokenizer(), long).tokens == 256


def test_a_prompt_without_tokens_is_refused():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("d", "")
    with pytest.raises(InvalidProbeSet, match="Prompt 2"):
        plan_tokens(tokenizer, PROBES)


def test_continuations_stand_on_branches_that_begin_where_the_prompt_ends():
    found = plan("xyz", "uv")
    first = (found.probe == 0) & (found.branch == 0)
    assert text(found.ids[first]) == "xy"  # nobody reads what follows the last token
    assert found.positions[first].tolist() == [3, 4]
    assert text(found.ids[(found.probe == 0) & (found.branch == 1)]) == "u"


def test_every_continuation_token_is_predicted_from_the_one_before_it():
    found = plan("xyz", "u", "vw")
    assert text(found.target) == "xyzuvw"
    assert text(found.ids[found.predictor]) == "cxy" + "c" + "cv"
    assert found.continuation.tolist() == [0, 0, 0, 1, 2, 2]


def test_continuations_stand_behind_the_first_prompt_alone():
    found = plan("xyz", "uv")
    assert found.probe[found.predictor].tolist() == [0] * 5
    assert text(found.ids[found.probe > 0]) == "defgh"


def test_prompt_tokens_are_those_of_no_branch():
    found = plan("xyz")
    assert text(found.ids[found.prompt_tokens]) == "abcdefgh"
    assert (found.branch[found.prompt_tokens] == PROMPT).all()


@pytest.mark.parametrize(("limit", "sizes"), [(1, [3, 1, 4]), (4, [4, 4]), (5, [4, 4]), (8, [8])])
def test_parts_hold_whole_probes_within_a_limit(limit: int, sizes: list[int]):
    assert [part.tokens for part in plan().parts(limit)] == sizes


def test_a_part_reads_what_a_plan_of_its_probes_alone_would_read():
    for number, (part, prompt) in enumerate(zip(plan("xyz", "uv").parts(1), PROBES.prompts, strict=True)):
        alone = plan_tokens(byte_tokenizer(), ProbeSet("one", (prompt,)), () if number else ("xyz", "uv"))
        for name in ("ids", "positions", "probe", "last", "branch", "predictor", "target", "continuation"):
            assert torch.equal(getattr(part, name), getattr(alone, name)), name


def test_final_states_are_read_of_last_tokens_and_predictors_alone():
    spare = plan_tokens(byte_tokenizer(), PROBES, ("xyz",), whole=False)
    assert spare.read_at_end is not None
    assert text(spare.ids[spare.read_at_end]) == "cxydh"


def test_whole_prompts_are_read_where_anyone_asks_for_them():
    assert plan().read_at_end is None
