"""The layout of prompts and continuations in one forward pass."""

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


def test_prompts_are_concatenated_without_padding():
    assert text(plan().ids) == "abcdefgh"
    assert plan().probe.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_positions_restart_with_each_prompt():
    assert plan().positions.tolist() == [0, 1, 2, 0, 0, 1, 2, 3]


def test_last_token_of_each_prompt():
    assert text(plan().ids[plan().last]) == "cdh"


def test_prompt_is_truncated_to_256_tokens():
    long = ProbeSet("long", ("x" * 300,))
    assert plan_tokens(byte_tokenizer(), long).tokens == 256


def test_prompt_without_tokens_is_rejected():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("d", "")
    with pytest.raises(InvalidProbeSet, match="Prompt 2"):
        plan_tokens(tokenizer, PROBES)


def test_branches_of_continuations_start_at_the_end_of_the_prompt():
    layout = plan("xyz", "uv")
    first = (layout.probe == 0) & (layout.branch == 0)
    assert text(layout.ids[first]) == "xy"  # nothing is predicted from the last token
    assert layout.positions[first].tolist() == [3, 4]
    assert text(layout.ids[(layout.probe == 0) & (layout.branch == 1)]) == "u"


def test_continuation_token_is_predicted_from_the_one_before_it():
    layout = plan("xyz", "u", "vw")
    assert text(layout.target) == "xyzuvw"
    assert text(layout.ids[layout.predictor]) == "cxy" + "c" + "cv"
    assert layout.continuation.tolist() == [0, 0, 0, 1, 2, 2]


def test_continuations_follow_the_first_prompt_only():
    layout = plan("xyz", "uv")
    assert layout.probe[layout.predictor].tolist() == [0] * 5
    assert text(layout.ids[layout.probe > 0]) == "defgh"


def test_prompt_tokens_are_on_no_branch():
    layout = plan("xyz")
    assert text(layout.ids[layout.prompt_tokens]) == "abcdefgh"
    assert (layout.branch[layout.prompt_tokens] == PROMPT).all()


@pytest.mark.parametrize(("limit", "sizes"), [(1, [3, 1, 4]), (4, [4, 4]), (5, [4, 4]), (8, [8])])
def test_parts_have_whole_probes_within_the_limit(limit: int, sizes: list[int]):
    assert [part.tokens for part in plan().parts(limit)] == sizes


def test_part_equals_the_plan_of_its_probes_alone():
    for number, (part, prompt) in enumerate(zip(plan("xyz", "uv").parts(1), PROBES.prompts, strict=True)):
        alone = plan_tokens(byte_tokenizer(), ProbeSet("one", (prompt,)), () if number else ("xyz", "uv"))
        for name in ("ids", "positions", "probe", "last", "branch", "predictor", "target", "continuation"):
            assert torch.equal(getattr(part, name), getattr(alone, name)), name


def test_final_states_of_last_tokens_and_predictors_are_read():
    partial = plan_tokens(byte_tokenizer(), PROBES, ("xyz",), whole=False)
    assert partial.read_at_end is not None
    assert text(partial.ids[partial.read_at_end]) == "cxydh"


def test_final_states_of_all_tokens_are_read_for_whole_prompts():
    assert plan().read_at_end is None
