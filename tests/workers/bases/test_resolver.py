from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from catalog.errors import (
    BaseUnresolved,
    DownloadStopped,
    HubRateLimited,
    HubUnavailable,
    ShapeMismatch,
    UnsupportedBase,
)
from tests.support.hub_server import Answer, HubServer, ScriptedHub
from tests.support.waiting import wait_until
from workers.bases import hub_bases
from workers.bases.hub_bases import HubBases
from workers.bases.names import Candidate
from workers.bases.resolver import BaseResolver
from workers.finetunes.content import content_sha
from workers.hub.client import FetchOptions, Hub

LIMIT = 30  # seconds
WIDTH, RANK, LAYERS, VOCABULARY = 8, 2, 2, 10


def tensors(**shapes: tuple[int, ...]) -> bytes:
    return save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def base_shapes(width: int = WIDTH, vocabulary: int = VOCABULARY, layers: int = LAYERS) -> dict[str, tuple[int, ...]]:
    shapes = {f"model.layers.{number}.self_attn.q_proj.weight": (width, width) for number in range(layers)}
    return {"model.embed_tokens.weight": (vocabulary, width), **shapes}


def base_files(config: dict | None = None, **sizes: int) -> dict[str, bytes]:
    content = {"model_type": "llama", **(config or {})}
    return {"config.json": json.dumps(content).encode(), "model.safetensors": tensors(**base_shapes(**sizes))}


def adapter_shapes(width: int = WIDTH, layer: int = 0) -> dict[str, tuple[int, ...]]:
    module = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
    return {f"{module}.lora_A.weight": (RANK, width), f"{module}.lora_B.weight": (width, RANK)}


def put_base(bases: Path, name: str, files: dict[str, bytes] | None = None) -> Path:
    folder = bases / name
    folder.mkdir(parents=True)
    for path, content in (files or base_files()).items():
        (folder / path).write_bytes(content)
    return folder


def outcomes(evidence: dict) -> list[tuple[str, str, str]]:
    return [(attempt["candidate"], attempt["source"], attempt["outcome"]) for attempt in evidence["tried"]]


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    return tmp_path / "bases"


def make_hub(url: str, tmp_path: Path) -> Hub:
    return Hub(url, None, tmp_path / "downloads", timeout=5, max_file_bytes=10**6, max_repo_files=100)


@pytest.fixture
def resolver(hub_server: HubServer, tmp_path: Path, bases: Path) -> BaseResolver:
    return BaseResolver(make_hub(hub_server.url, tmp_path), bases, {"mirror/of-local": "local/base"})


# where a base is found


def test_declared_base_is_found_on_the_hub(hub_server: HubServer, resolver: BaseResolver):
    sha = hub_server.commit("found/declared", base_files())
    base = resolver.resolve({"declared": "found/declared"})
    assert (base.repo, base.sha) == ("found/declared", sha)
    assert (base.folder / "model.safetensors").read_bytes() == base_files()["model.safetensors"]
    assert base.evidence["source"] == "declared"
    assert base.evidence["location"] == "hub"


def test_folder_takes_precedence_over_the_hub_and_has_its_content_sha(
    hub_server: HubServer, resolver: BaseResolver, bases: Path
):
    hub_server.commit("found/both", base_files())
    folder = put_base(bases, "found/both")
    base = resolver.resolve({"declared": "found/both"})
    assert (base.sha, base.folder) == (content_sha(folder), folder)
    assert base.evidence["location"] == "folder"


def test_folder_is_found_without_any_request(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    put_base(bases, "found/local")
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases)
    assert resolver.resolve({"declared": "found/local"}).repo == "found/local"
    assert scripted_hub.requests == []


def test_changed_folder_has_another_sha(resolver: BaseResolver, bases: Path):
    folder = put_base(bases, "found/edited")
    before = resolver.resolve({"declared": "found/edited"}).sha
    (folder / "model.safetensors").write_bytes(tensors(**base_shapes(layers=3)))
    after = resolver.resolve({"declared": "found/edited"}).sha
    assert before != after == content_sha(folder)


def test_content_sha_of_a_folder_is_cached(resolver: BaseResolver, bases: Path):
    put_base(bases, "found/kept")
    sha = resolver.resolve({"declared": "found/kept"}).sha
    cache_file = bases / ".content" / "found--kept.json"
    entry = json.loads(cache_file.read_text())
    assert entry["sha256"] == sha
    cache_file.write_text(json.dumps({**entry, "sha256": "cached"}))
    assert resolver.resolve({"declared": "found/kept"}).sha == "cached"


def test_damaged_cache_entry_is_replaced(resolver: BaseResolver, bases: Path):
    folder = put_base(bases, "found/damaged")
    (bases / ".content").mkdir()
    (bases / ".content" / "found--damaged.json").write_text("[")
    assert resolver.resolve({"declared": "found/damaged"}).sha == content_sha(folder)


def test_commit_of_a_base_is_requested_once_for_a_batch(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    files = base_files()
    scripted_hub.script_listing("o/base", {name: len(content) for name, content in files.items()})
    for name, content in files.items():
        scripted_hub.serve_file("o/base", name, content, etag=name)
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases)
    first = resolver.resolve({"declared": "o/base"})
    requests = len(scripted_hub.requests)
    assert resolver.resolve({"declared": "o/base"}) == first
    assert len(scripted_hub.requests) == requests


def test_base_is_requested_once_by_jobs_at_the_same_time(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    scripted_hub.publish("o/base", base_files())
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases)
    with ThreadPoolExecutor(4) as pool:
        shas = {base.sha for base in pool.map(lambda _: resolver.resolve({"declared": "o/base"}), range(4))}
    assert shas == {scripted_hub.sha}
    assert sum(path.startswith("/api/models/o/base") for _, path, _ in scripted_hub.requests) == 1
    assert len(scripted_hub.download_requests("model.safetensors")) == 1


def test_download_of_a_base_holds_up_no_other_and_is_no_longer_waited_for_once_stopped(
    scripted_hub: ScriptedHub, tmp_path: Path, bases: Path
):
    scripted_hub.publish("o/base", base_files())
    scripted_hub.publish("o/slow", base_files(layers=3))
    started, released, stopped = threading.Event(), threading.Event(), threading.Event()

    def hold_up_weights(path: str) -> None:
        if path.startswith("/o/slow") and path.endswith(".safetensors"):
            started.set()
            released.wait(LIMIT)

    scripted_hub.intercept = hold_up_weights
    resolver, options = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases), FetchOptions(stop=stopped.is_set)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(resolver.resolve, {"declared": "o/slow"}, options=options) for _ in range(2)]
        assert started.wait(LIMIT)
        assert resolver.resolve({"declared": "o/base"}).repo == "o/base"
        assert not any(future.done() for future in futures)
        stopped.set()
        wait_until(lambda: any(future.done() for future in futures), "the one that waits for the other gives up")
        released.set()
    assert {type(future.exception()) for future in futures} == {DownloadStopped}


def test_commits_of_bases_are_kept_for_a_bounded_number(
    scripted_hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub_bases, "MAX_CACHED_COMMITS", 2)
    bases = HubBases(make_hub(scripted_hub.url, tmp_path), lambda _: None)
    for number in range(4):
        scripted_hub.script_listing(f"o/base{number}", {})
        bases.locate(Candidate(f"o/base{number}", "declared"), None, newest=False)
    assert [repo for repo, _ in bases._commits] == ["o/base2", "o/base3"]


def test_renamed_base_has_the_new_name(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    files = base_files()
    scripted_hub.answer("/api/models/old/base", Answer(307, {"Location": "/api/models/new/base/revision/main"}))
    scripted_hub.script_listing("new/base", {name: len(content) for name, content in files.items()})
    for name, content in files.items():
        scripted_hub.serve_file("new/base", name, content, etag=name)
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases)
    base = resolver.resolve({"declared": "old/base"})
    assert (base.repo, base.evidence["declared"]) == ("new/base", "old/base")


def test_pinned_commit_of_a_base_is_used(hub_server: HubServer, tmp_path: Path, bases: Path):
    first = hub_server.commit("pinned/base", base_files())
    second = hub_server.commit("pinned/base", {"README.md": b"Another word."})
    resolver = BaseResolver(make_hub(hub_server.url, tmp_path), bases, pinned_commit={"pinned/base": first}.get)
    assert resolver.resolve({"declared": "pinned/base"}).sha == first
    assert resolver.resolve({"declared": "pinned/base"}, newest=True).sha == second


def test_missing_pinned_commit_is_ignored(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    scripted_hub.publish("o/base", base_files(), sha="a" * 40)
    missing = Answer(404, {"X-Error-Code": "RevisionNotFound"})
    scripted_hub.answer(f"/api/models/o/base/revision/{'0' * 40}", missing)
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases, pinned_commit=lambda _: "0" * 40)
    assert resolver.resolve({"declared": "o/base"}).sha == "a" * 40


# which claim is used


@pytest.mark.parametrize(
    "declared", [None, "", "/home/me/models/llama", "./out", "C:\\models\\x", "~/m", "a b", "a/b/c"]
)
def test_card_base_is_used_if_the_declared_base_is_no_repo_id(resolver: BaseResolver, bases: Path, declared):
    put_base(bases, "card/base")
    base = resolver.resolve({"declared": declared, "card": "card/base"})
    assert (base.repo, base.evidence["source"]) == ("card/base", "card")
    assert [source for _, source, _ in outcomes(base.evidence)] == ["declared", "card"]


def test_card_base_is_used_if_the_declared_base_does_not_exist(resolver: BaseResolver, bases: Path):
    put_base(bases, "card/base")
    base = resolver.resolve({"declared": "no/such", "card": "card/base"})
    assert outcomes(base.evidence)[0][:2] == ("no/such", "declared")
    assert "does not exist" in outcomes(base.evidence)[0][2]
    assert outcomes(base.evidence)[-1] == ("card/base", "card", "found (folder)")


def test_evidence_is_json_with_both_claims(resolver: BaseResolver, bases: Path):
    put_base(bases, "card/base")
    evidence = resolver.resolve({"declared": None, "card": "card/base"}).evidence
    assert json.loads(json.dumps(evidence)) == evidence
    assert (evidence["declared"], evidence["card_base"]) == (None, "card/base")


def test_admin_alias_resolves_to_the_original(resolver: BaseResolver, bases: Path):
    put_base(bases, "local/base")
    base = resolver.resolve({"declared": "Mirror/Of-Local"})
    assert (base.repo, base.evidence["source"]) == ("local/base", "alias")


def test_mirror_is_used_if_its_original_is_unavailable(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("mirror/of-local", base_files())
    base = resolver.resolve({"declared": "mirror/of-local"})
    assert (base.repo, base.evidence["source"]) == ("mirror/of-local", "declared")


def test_mirror_in_a_folder_precedes_its_original_on_the_hub(hub_server: HubServer, tmp_path: Path, bases: Path):
    hub_server.commit("original/on-hub", base_files())
    put_base(bases, "mirror/in-folder")
    resolver = BaseResolver(make_hub(hub_server.url, tmp_path), bases, {"mirror/in-folder": "original/on-hub"})
    assert resolver.resolve({"declared": "mirror/in-folder"}).repo == "mirror/in-folder"


def test_four_bit_mirror_resolves_to_its_unquantized_original(resolver: BaseResolver, bases: Path):
    put_base(bases, "HuggingFaceTB/SmolLM2-135M-Instruct")
    base = resolver.resolve({"declared": "unsloth/smollm2-135m-instruct-unsloth-bnb-4bit"})
    assert base.repo == "HuggingFaceTB/SmolLM2-135M-Instruct"


# shapes


def test_fitting_base_is_accepted_with_its_number_of_matches(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    base = resolver.resolve({"declared": "fit/base"}, shapes=adapter_shapes())
    assert base.evidence["matched"] == 1


def test_base_of_another_width_is_rejected_with_the_reason(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/narrow")
    with pytest.raises(ShapeMismatch, match=r"layers\.0\.self_attn\.q_proj is 8 x 8 in the base and 16 x 16"):
        resolver.resolve({"declared": "fit/narrow"}, shapes=adapter_shapes(16))


def test_base_with_too_few_layers_is_rejected(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/shallow")
    with pytest.raises(ShapeMismatch, match=r"the base has no layers\.7\.self_attn\.q_proj"):
        resolver.resolve({"declared": "fit/shallow"}, shapes=adapter_shapes(layer=7))


def test_card_base_is_used_if_the_declared_base_does_not_fit(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/declared")
    put_base(bases, "fit/card", base_files(width=16))
    base = resolver.resolve({"declared": "fit/declared", "card": "fit/card"}, shapes=adapter_shapes(16))
    assert (base.repo, base.evidence["source"]) == ("fit/card", "card")


def test_only_fitting_local_base_is_used_without_a_claim(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/narrow")
    put_base(bases, "fit/wide", base_files(width=16))
    base = resolver.resolve({"declared": None}, shapes=adapter_shapes(16))
    assert (base.repo, base.evidence["source"]) == ("fit/wide", "shapes")


def test_several_fitting_local_bases_are_ambiguous(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/one")
    put_base(bases, "fit/two")
    with pytest.raises(BaseUnresolved, match="fit/one, fit/two"):
        resolver.resolve({"declared": None}, shapes=adapter_shapes())


def test_vocabulary_decides_between_bases_of_the_same_shapes(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/small", base_files(vocabulary=10))
    put_base(bases, "fit/large", base_files(vocabulary=12))
    shapes = {**adapter_shapes(), "base_model.model.model.embed_tokens.weight": (12, WIDTH)}
    assert resolver.resolve({"declared": None}, shapes=shapes).repo == "fit/large"


def test_enlarged_vocabulary_fits_its_base(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    shapes = {"base_model.model.model.embed_tokens.modules_to_save.weight": (VOCABULARY + 3, WIDTH)}
    assert resolver.resolve({"declared": "fit/base"}, shapes=shapes).evidence["matched"] == 1


def test_embedding_of_another_width_does_not_fit(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    module = "base_model.model.model.embed_tokens"
    shapes = {f"{module}.lora_embedding_A": (RANK, VOCABULARY), f"{module}.lora_embedding_B": (16, RANK)}
    with pytest.raises(ShapeMismatch, match="embed_tokens is 10 x 8 in the base and 10 x 16"):
        resolver.resolve({"declared": "fit/base"}, shapes=shapes)


def test_transposed_weight_and_another_prefix_fit(resolver: BaseResolver, bases: Path):
    files = {"config.json": b"{}", "model.safetensors": tensors(**{"h.0.attn.c_attn.weight": (8, 24)})}
    put_base(bases, "fit/gpt2", files)
    module = "base_model.model.transformer.h.0.attn.c_attn"
    shapes = {f"{module}.lora_A.weight": (RANK, 8), f"{module}.lora_B.weight": (24, RANK)}
    assert resolver.resolve({"declared": "fit/gpt2"}, shapes=shapes).evidence["matched"] == 1


def test_full_model_fits_its_base(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    base = resolver.resolve({"declared": "fit/base"}, shapes=base_shapes())
    assert base.evidence["matched"] == LAYERS + 1


def test_tensors_without_module_names_are_accepted_unmatched(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    base = resolver.resolve({"declared": "fit/base"}, shapes={"prompt_embeddings": (4, WIDTH)})
    assert base.evidence["matched"] == 0


# what is rejected


def test_base_without_a_claim_is_unresolved(resolver: BaseResolver):
    with pytest.raises(BaseUnresolved, match="names no base"):
        resolver.resolve({"declared": None})


def test_error_for_an_unresolved_base_lists_candidates_and_reasons(resolver: BaseResolver):
    with pytest.raises(BaseUnresolved) as caught:
        resolver.resolve({"declared": "/scratch/me/llama", "card": "no/such"})
    message = str(caught.value)
    assert "adapter_config.json: /scratch/me/llama is a folder of the machine that trained it;" in message
    assert "the model card: no/such does not exist on the Hub" in message
    assert message.endswith("(`base` in POST /v1/models, `deltadex add --base`).")


def test_error_for_a_gated_base_says_what_to_do(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    scripted_hub.answer("/api/models/o/base", Answer(403, {"X-Error-Code": "GatedRepo"}))
    with pytest.raises(BaseUnresolved, match="HF_TOKEN"):
        BaseResolver(make_hub(scripted_hub.url, tmp_path), bases).resolve({"declared": "o/base"})


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq"])
def test_quantized_base_is_unsupported_and_not_downloaded(
    hub_server: HubServer, resolver: BaseResolver, tmp_path: Path, method: str
):
    hub_server.commit(f"quantized/{method}", base_files({"quantization_config": {"quant_method": method}}))
    with pytest.raises(UnsupportedBase, match=rf"quantized \({method}\)"):
        resolver.resolve({"declared": f"quantized/{method}"})
    assert not list(tmp_path.rglob("model.safetensors"))


def test_quantized_folder_is_unsupported(resolver: BaseResolver, bases: Path):
    put_base(bases, "quantized/local", base_files({"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(UnsupportedBase, match="the original, which is the base to name"):
        resolver.resolve({"declared": "quantized/local"})


def test_base_with_a_quantized_part_is_unsupported(resolver: BaseResolver, bases: Path):
    part = {"text_config": {"quantization_config": {"quant_method": "fp8"}}}
    put_base(bases, "quantized/part", base_files({"thinker_config": part}))
    with pytest.raises(UnsupportedBase, match=r"quantized \(fp8\)"):
        resolver.resolve({"declared": "quantized/part"})


def test_adapter_is_no_base(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("adapted/first", {"adapter_config.json": b"{}", "adapter_model.safetensors": b""})
    with pytest.raises(UnsupportedBase, match="adapted/first holds an adapter and no base model"):
        resolver.resolve({"declared": "adapted/first"})


def test_broken_folder_is_unresolved_with_the_reason(resolver: BaseResolver, bases: Path):
    put_base(bases, "broken/base", {"config.json": b"{}", "model.safetensors": b"short"})
    with pytest.raises(BaseUnresolved, match="truncated"):
        resolver.resolve({"declared": "broken/base"}, shapes=adapter_shapes())


@pytest.mark.parametrize(
    ("answer", "error"), [(Answer(429, {"Retry-After": "9"}), HubRateLimited), (Answer(503), HubUnavailable)]
)
def test_transient_error_does_not_count_as_a_missing_base(
    scripted_hub: ScriptedHub, tmp_path: Path, bases: Path, answer: Answer, error: type[Exception]
):
    put_base(bases, "card/base")
    scripted_hub.answer("/api/models/o/base", answer)
    with pytest.raises(error):
        BaseResolver(make_hub(scripted_hub.url, tmp_path), bases).resolve({"declared": "o/base", "card": "card/base"})


# revisions


def make_resolver(url: str, tmp_path: Path, **settings: Any) -> BaseResolver:
    return BaseResolver(make_hub(url, tmp_path), tmp_path / "bases", **settings)


@pytest.fixture
def commits(hub_server: HubServer, tmp_path: Path) -> tuple[str, str, str]:
    """A repo of the test's own, its first commit, and a later one with other weights."""
    repo = f"revised/{tmp_path.name}"[:90].rstrip("_")
    first = hub_server.commit(repo, base_files())
    return repo, first, hub_server.commit(repo, base_files(vocabulary=VOCABULARY + 1))


def test_declared_revision_is_used_instead_of_the_newest_commit(resolver: BaseResolver, commits: tuple[str, str, str]):
    repo, first, _ = commits
    base = resolver.resolve({"declared": repo}, revision=first)
    assert (base.sha, base.at_revision, base.evidence["revision"], base.notes) == (first, True, first, ())


def test_declared_revision_is_used_instead_of_the_pinned_commit(
    hub_server: HubServer, tmp_path: Path, commits: tuple[str, str, str]
):
    repo, first, second = commits
    resolver = make_resolver(hub_server.url, tmp_path, pinned_commit=lambda _: first)
    assert resolver.resolve({"declared": repo}, revision=second).sha == second
    assert not resolver.resolve({"declared": repo}, revision=first).at_revision


def test_declared_revision_also_holds_if_the_submission_names_the_same_base(
    resolver: BaseResolver, commits: tuple[str, str, str]
):
    repo, first, _ = commits
    base = resolver.resolve({"submitted": repo, "declared": repo}, revision=first)
    assert (base.sha, base.evidence["claim"]) == (first, "submitted")


def test_declared_branch_is_resolved_to_its_commit(
    hub_server: HubServer, resolver: BaseResolver, commits: tuple[str, str, str]
):
    branch = hub_server.commit(commits[0], base_files(layers=3), branch="step1000")
    assert resolver.resolve({"declared": commits[0]}, revision="step1000").sha == branch


@pytest.mark.parametrize("revision", [None, "", "main"])
def test_main_branch_means_the_usual_commit(resolver: BaseResolver, commits: tuple[str, str, str], revision):
    base = resolver.resolve({"declared": commits[0]}, revision=revision)
    assert (base.sha, base.at_revision, base.notes) == (commits[2], False, ())


@pytest.mark.parametrize(
    ("revision", "reason"), [("unsloth", "has no revision 'unsloth'"), ("a b", "'a b' is not a branch, tag or commit")]
)
def test_missing_revision_is_noted_and_the_usual_commit_used(
    resolver: BaseResolver, commits: tuple[str, str, str], revision: str, reason: str
):
    base = resolver.resolve({"declared": commits[0]}, revision=revision)
    assert (base.sha, base.at_revision, "revision" in base.evidence) == (commits[2], False, False)
    assert reason in base.notes[0]
    assert f"Its commit {commits[2][:12]} was used." in base.notes[0]


def test_revision_with_the_same_files_is_the_usual_commit(scripted_hub: ScriptedHub, tmp_path: Path):
    older = {**base_files(), "README.md": b"An older card."}
    scripted_hub.publish(f"o/base/revision/{'a' * 40}", older, sha="a" * 40, info={"id": "o/base"})
    scripted_hub.publish("o/base", base_files(), sha="b" * 40)
    base = make_resolver(scripted_hub.url, tmp_path).resolve({"declared": "o/base"}, revision="a" * 40)
    assert (base.sha, base.at_revision, base.notes) == ("b" * 40, False, ())


def test_revision_in_an_address_is_a_declared_one(resolver: BaseResolver, commits: tuple[str, str, str]):
    repo, first, _ = commits
    base = resolver.resolve({"declared": None, "card": f"https://huggingface.co/{repo}/tree/{first}"})
    assert (base.sha, base.evidence["source"]) == (first, "card")


def test_revision_of_a_folder_cannot_be_checked(resolver: BaseResolver, bases: Path):
    put_base(bases, "local/base")
    base = resolver.resolve({"declared": "local/base"}, revision="step1000")
    assert "'step1000'" in base.notes[0]
    assert "no commits" in base.notes[0]


# claims of users, of configs, and of models about themselves


def test_claims_are_tried_in_their_order(resolver: BaseResolver, bases: Path):
    for name in ("submitted", "card", "config"):
        put_base(bases, f"claimed/{name}")
    base = resolver.resolve({"submitted": "claimed/submitted", "card": ("claimed/card",), "config": "claimed/config"})
    assert (base.repo, base.evidence["source"]) == ("claimed/submitted", "submitted")
    assert (base.evidence["submitted_base"], base.evidence["card_base"]) == ("claimed/submitted", "claimed/card")


def test_base_in_the_config_of_a_full_model_is_used_after_the_card(resolver: BaseResolver, bases: Path):
    put_base(bases, "claimed/config")
    base = resolver.resolve({"card": ("no/such",), "config": "claimed/config"})
    assert (base.repo, base.evidence["source"]) == ("claimed/config", "config")


def test_path_in_a_config_names_no_base(resolver: BaseResolver):
    with pytest.raises(BaseUnresolved, match=r"the model card names no base; config\.json: /root/out is a folder"):
        resolver.resolve({"card": (), "config": "/root/out"})


def test_model_is_not_its_own_base(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("claimed/itself", base_files())
    with pytest.raises(BaseUnresolved, match=r"config\.json names no other model"):
        resolver.resolve({"card": (), "config": "Claimed/Itself"}, own_repo="claimed/itself")


# mirrors

QUANTIZED = {"quantization_config": {"quant_method": "compressed-tensors"}}


def card(**fields: object) -> dict[str, bytes]:
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return {"README.md": "\n".join(["---", *lines, "---", ""]).encode()}


@pytest.mark.parametrize(
    "ending", ["-FP8", "-FP8-dynamic", "-NVFP4", "-w4a16", "-GPTQ-Int4", "-AWQ", "-4bit", "-bnb-4bit"]
)
def test_original_of_a_quantized_mirror_has_its_name_without_the_ending(
    hub_server: HubServer, resolver: BaseResolver, ending: str
):
    hub_server.commit("original/endings", base_files())
    hub_server.commit(f"original/endings{ending}", base_files(QUANTIZED))
    base = resolver.resolve({"declared": f"original/endings{ending}"}, shapes=adapter_shapes())
    assert (base.repo, base.evidence["source"]) == ("original/endings", "alias")


@pytest.mark.parametrize(
    ("mirror", "relation"),
    [
        ("another/converted", "quantized"),
        ("another/origin-FP8", None),
        ("RedHatAI/Origin-Instruct-quantized.w4a16", None),
        ("mlx-community/origin-4bit", "quantized"),
        ("unsloth/origin", "finetune"),
    ],
)
def test_original_in_the_card_of_a_mirror_is_used(
    hub_server: HubServer, resolver: BaseResolver, mirror: str, relation: str | None
):
    hub_server.commit("original/origin", base_files())
    fields = {"base_model": "original/origin"} | ({"base_model_relation": relation} if relation else {})
    config = {} if mirror.startswith("unsloth") else QUANTIZED
    hub_server.commit(mirror, {**base_files(config), **card(**fields)})
    base = resolver.resolve({"declared": mirror}, shapes=adapter_shapes())
    assert (base.repo, base.evidence["source"]) == ("original/origin", "mirror")


def test_original_of_a_repo_without_safetensors_is_used(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("original/gguf", base_files())
    hub_server.commit("bartowski/gguf-GGUF", {"gguf-Q4_K_M.gguf": b"GGUF", **card(base_model="original/gguf")})
    assert resolver.resolve({"declared": "bartowski/gguf-GGUF"}).repo == "original/gguf"


def test_base_of_a_quantized_finetune_is_not_its_original(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("original/plain", base_files())
    hub_server.commit("another/law-4bit", {**base_files(QUANTIZED), **card(base_model="original/plain")})
    with pytest.raises(UnsupportedBase, match=r"quantized \(compressed-tensors\)"):
        resolver.resolve({"declared": "another/law-4bit"}, shapes=adapter_shapes())


def test_original_that_does_not_fit_is_not_used(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("original/narrow", base_files(width=4))
    hub_server.commit("unsloth/narrow", {**base_files(), **card(base_model="original/narrow")})
    base = resolver.resolve({"declared": "unsloth/narrow"}, shapes=adapter_shapes())
    assert (base.repo, base.evidence["source"]) == ("unsloth/narrow", "declared")


def test_mirrors_of_each_other_are_refused(hub_server: HubServer, resolver: BaseResolver):
    for one, other in (("a", "b"), ("b", "a")):
        fields = {"base_model": f"circle/{other}", "base_model_relation": "quantized"}
        hub_server.commit(f"circle/{one}", {**base_files(QUANTIZED), **card(**fields)})
    with pytest.raises(UnsupportedBase):
        resolver.resolve({"declared": "circle/a"})


def test_mirror_in_use_stays_its_own_base_until_a_reindex(hub_server: HubServer, tmp_path: Path):
    hub_server.commit("original/kept", base_files())
    sha = hub_server.commit("unsloth/kept", {**base_files(), **card(base_model="original/kept")})
    resolver = make_resolver(hub_server.url, tmp_path, pinned_commit={"unsloth/kept": sha}.get)
    assert resolver.resolve({"declared": "unsloth/kept"}).repo == "unsloth/kept"
    assert resolver.resolve({"declared": "unsloth/kept"}, newest=True).repo == "original/kept"


def publish_copies(hub: ScriptedHub, config: dict | None = None, **info: object) -> None:
    hub.publish("original/model", base_files())
    hub.publish("copy/renamed", base_files({"pad_token_id": 3, **(config or {})}), sha="b" * 40, info=info)


def test_copy_with_equal_weights_has_the_base_in_its_card(scripted_hub: ScriptedHub, tmp_path: Path):
    publish_copies(scripted_hub, cardData={"base_model": "original/model"})
    base = make_resolver(scripted_hub.url, tmp_path).resolve({"declared": "copy/renamed"}, shapes=adapter_shapes())
    assert (base.repo, base.evidence["source"]) == ("original/model", "mirror")


def test_copy_with_equal_weights_has_the_base_in_use(scripted_hub: ScriptedHub, tmp_path: Path):
    publish_copies(scripted_hub)
    first = make_resolver(scripted_hub.url, tmp_path).resolve({"declared": "original/model"})
    in_use = {first.evidence["weights"]: "original/model"}
    resolver = make_resolver(scripted_hub.url, tmp_path, find_by_weights=in_use.get)
    base = resolver.resolve({"declared": "copy/renamed"})
    assert (base.repo, base.sha, base.evidence["source"]) == ("original/model", first.sha, "mirror")


def test_equal_weights_with_other_settings_are_another_base(scripted_hub: ScriptedHub, tmp_path: Path):
    publish_copies(scripted_hub, {"rope_scaling": {"type": "yarn"}}, cardData={"base_model": "original/model"})
    assert make_resolver(scripted_hub.url, tmp_path).resolve({"declared": "copy/renamed"}).repo == "copy/renamed"


# several bases


def test_merge_has_the_common_root_of_its_bases(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("merged/root", base_files())
    hub_server.commit("merged/one", {**base_files(), **card(base_model="merged/root")})
    config = json.dumps({"base_model_name_or_path": "merged/one"}).encode()
    hub_server.commit("merged/two", {"adapter_config.json": config})
    hub_server.commit("merged/three", base_files({"_name_or_path": "merged/root"}))
    parents = ("merged/one", "merged/two", "merged/three")
    base = resolver.resolve({"card": parents}, shapes=base_shapes())
    assert (base.repo, base.evidence["source"]) == ("merged/root", "root")
    assert base.evidence["card_base"] == list(parents)


def test_merge_of_a_model_and_its_finetune_has_that_model_as_base(
    hub_server: HubServer, resolver: BaseResolver, bases: Path
):
    put_base(bases, "merged/local")
    hub_server.commit("merged/child", {**base_files(), **card(base_model=["merged/local"])})
    assert resolver.resolve({"card": ("merged/local", "merged/child")}).repo == "merged/local"


def test_bases_without_a_common_root_are_refused_by_name(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("merged/alone", base_files())
    with pytest.raises(BaseUnresolved, match="merged/alone, merged/gone are several bases that descend from no common"):
        resolver.resolve({"card": ("merged/alone", "merged/gone")})
