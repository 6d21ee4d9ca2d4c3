from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from catalog.errors import BaseUnresolved, HubRateLimited, HubUnavailable, InvalidInput, ShapeMismatch, UnsupportedBase
from tests.support.hub_server import Answer, HubServer, ScriptedHub
from workers.bases.names import AliasTable, read_claim
from workers.bases.resolver import BaseResolver
from workers.finetunes.content import content_sha
from workers.hub.client import Hub

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
    return [(each["candidate"], each["source"], each["outcome"]) for each in evidence["tried"]]


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    return tmp_path / "bases"


def make_hub(url: str, tmp_path: Path) -> Hub:
    return Hub(url, None, tmp_path / "downloads", timeout=5, max_file_bytes=10**6, max_repo_files=100)


@pytest.fixture
def resolver(hub_server: HubServer, tmp_path: Path, bases: Path) -> BaseResolver:
    return BaseResolver(make_hub(hub_server.url, tmp_path), bases, {"mirror/of-local": "local/base"})


# where a base is found


def test_the_declared_base_is_found_on_the_hub(hub_server: HubServer, resolver: BaseResolver):
    sha = hub_server.commit("found/declared", base_files())
    base = resolver.resolve(declared="found/declared", card_base=None)
    assert (base.repo, base.sha) == ("found/declared", sha)
    assert (base.folder / "model.safetensors").read_bytes() == base_files()["model.safetensors"]
    assert base.evidence["source"] == "declared"
    assert base.evidence["place"] == "hub"


def test_a_folder_stands_in_place_of_the_hub_and_is_named_by_its_content(
    hub_server: HubServer, resolver: BaseResolver, bases: Path
):
    hub_server.commit("found/both", base_files())
    folder = put_base(bases, "found/both")
    base = resolver.resolve(declared="found/both", card_base=None)
    assert (base.sha, base.folder) == (content_sha(folder), folder)
    assert base.evidence["place"] == "folder"


def test_a_folder_is_found_while_the_hub_is_away(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    put_base(bases, "found/local")
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases)
    assert resolver.resolve(declared="found/local", card_base=None).repo == "found/local"
    assert scripted_hub.requests == []


def test_a_changed_folder_is_another_base(resolver: BaseResolver, bases: Path):
    folder = put_base(bases, "found/edited")
    before = resolver.resolve(declared="found/edited", card_base=None).sha
    (folder / "model.safetensors").write_bytes(tensors(**base_shapes(layers=3)))
    after = resolver.resolve(declared="found/edited", card_base=None).sha
    assert before != after == content_sha(folder)


def test_a_folders_content_is_read_once(resolver: BaseResolver, bases: Path):
    put_base(bases, "found/kept")
    sha = resolver.resolve(declared="found/kept", card_base=None).sha
    note = bases / ".content" / "found--kept.json"
    kept = json.loads(note.read_text())
    assert kept["sha256"] == sha
    note.write_text(json.dumps({**kept, "sha256": "from the note"}))
    assert resolver.resolve(declared="found/kept", card_base=None).sha == "from the note"


def test_a_note_that_is_damaged_is_written_anew(resolver: BaseResolver, bases: Path):
    folder = put_base(bases, "found/damaged")
    (bases / ".content").mkdir()
    (bases / ".content" / "found--damaged.json").write_text("[")
    assert resolver.resolve(declared="found/damaged", card_base=None).sha == content_sha(folder)


def test_a_batch_asks_the_hub_once_for_the_bases_commit(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    files = base_files()
    scripted_hub.lists("o/base", {name: len(content) for name, content in files.items()})
    for name, content in files.items():
        scripted_hub.serves("o/base", name, content, etag=name)
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases)
    first = resolver.resolve(declared="o/base", card_base=None)
    asked = len(scripted_hub.requests)
    assert resolver.resolve(declared="o/base", card_base=None) == first
    assert len(scripted_hub.requests) == asked


def test_a_renamed_base_is_known_by_its_new_name(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    files = base_files()
    scripted_hub.answer("/api/models/old/base", Answer(307, {"Location": "/api/models/new/base/revision/main"}))
    scripted_hub.lists("new/base", {name: len(content) for name, content in files.items()})
    for name, content in files.items():
        scripted_hub.serves("new/base", name, content, etag=name)
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases)
    base = resolver.resolve(declared="old/base", card_base=None)
    assert (base.repo, base.evidence["declared"]) == ("new/base", "old/base")


def test_a_base_stays_at_the_commit_that_it_is_pinned_to(hub_server: HubServer, tmp_path: Path, bases: Path):
    first = hub_server.commit("pinned/base", base_files())
    second = hub_server.commit("pinned/base", {"README.md": b"Another word."})
    resolver = BaseResolver(make_hub(hub_server.url, tmp_path), bases, pinned={"pinned/base": first}.get)
    assert resolver.resolve(declared="pinned/base", card_base=None).sha == first
    assert resolver.resolve(declared="pinned/base", card_base=None, newest=True).sha == second


def test_a_commit_that_is_gone_pins_nothing(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    scripted_hub.publishes("o/base", base_files(), sha="a" * 40)
    gone = Answer(404, {"X-Error-Code": "RevisionNotFound"})
    scripted_hub.answer(f"/api/models/o/base/revision/{'0' * 40}", gone)
    resolver = BaseResolver(make_hub(scripted_hub.url, tmp_path), bases, pinned=lambda _: "0" * 40)
    assert resolver.resolve(declared="o/base", card_base=None).sha == "a" * 40


# which claim is believed


@pytest.mark.parametrize(
    "declared", [None, "", "/home/me/models/llama", "./out", "C:\\models\\x", "~/m", "a b", "a/b/c", 7]
)
def test_a_claim_that_names_no_repo_gives_way_to_the_card(resolver: BaseResolver, bases: Path, declared):
    put_base(bases, "card/base")
    base = resolver.resolve(declared=declared, card_base="card/base")
    assert (base.repo, base.evidence["source"]) == ("card/base", "card")
    assert [source for _, source, _ in outcomes(base.evidence)] == ["declared", "card"]


def test_a_declared_base_that_is_not_there_gives_way_to_the_card(resolver: BaseResolver, bases: Path):
    put_base(bases, "card/base")
    base = resolver.resolve(declared="no/such", card_base="card/base")
    assert outcomes(base.evidence)[0][:2] == ("no/such", "declared")
    assert "does not exist" in outcomes(base.evidence)[0][2]
    assert outcomes(base.evidence)[-1] == ("card/base", "card", "found (folder)")


def test_the_evidence_is_json_and_keeps_both_claims(resolver: BaseResolver, bases: Path):
    put_base(bases, "card/base")
    evidence = resolver.resolve(declared=None, card_base="card/base").evidence
    assert json.loads(json.dumps(evidence)) == evidence
    assert (evidence["declared"], evidence["card_base"]) == (None, "card/base")


def test_an_admins_alias_leads_to_the_original(resolver: BaseResolver, bases: Path):
    put_base(bases, "local/base")
    base = resolver.resolve(declared="Mirror/Of-Local", card_base=None)
    assert (base.repo, base.evidence["source"]) == ("local/base", "alias")


def test_a_mirror_is_used_itself_where_its_original_cannot_be_had(hub_server: HubServer, resolver: BaseResolver):
    hub_server.commit("mirror/of-local", base_files())
    base = resolver.resolve(declared="mirror/of-local", card_base=None)
    assert (base.repo, base.evidence["source"]) == ("mirror/of-local", "declared")


def test_a_mirror_in_a_folder_comes_before_its_original_on_the_hub(hub_server: HubServer, tmp_path: Path, bases: Path):
    hub_server.commit("original/on-hub", base_files())
    put_base(bases, "mirror/in-folder")
    resolver = BaseResolver(make_hub(hub_server.url, tmp_path), bases, {"mirror/in-folder": "original/on-hub"})
    assert resolver.resolve(declared="mirror/in-folder", card_base=None).repo == "mirror/in-folder"


def test_a_four_bit_mirror_leads_to_its_unquantised_original(resolver: BaseResolver, bases: Path):
    put_base(bases, "HuggingFaceTB/SmolLM2-135M-Instruct")
    base = resolver.resolve(declared="unsloth/smollm2-135m-instruct-unsloth-bnb-4bit", card_base=None)
    assert base.repo == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-unsloth-bnb-4bit", "meta-llama/Llama-3.1-8B-Instruct"),
        ("unsloth/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen2.5-7B-Instruct"),
        ("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("gpt2", "openai-community/gpt2"),
    ],
)
def test_the_shipped_table_knows_common_mirrors(name: str, original: str):
    assert AliasTable({}).originals(name)[0] == original


def test_an_admins_entry_overrules_the_shipped_one():
    assert AliasTable({"unsloth/Qwen2.5-7B": "own/copy"}).originals("unsloth/Qwen2.5-7B") == ["own/copy"]


def test_an_original_has_no_aliases():
    assert AliasTable({}).originals("meta-llama/Llama-3.1-8B") == []


@pytest.mark.parametrize("table", [["a/b"], {"a/b": 1}, {"a/b": "/etc"}, {"../x": "a/b"}])
def test_an_alias_table_of_another_form_is_refused(table):
    with pytest.raises(InvalidInput, match="alias table"):
        AliasTable(table)


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        (" owner/name ", "owner/name"),
        ("https://huggingface.co/owner/name/", "owner/name"),
        ("/root/.cache/huggingface/hub/models--owner--na-me_1.5/snapshots/0123", "owner/na-me_1.5"),
        ("models--gpt2/snapshots/0123", "gpt2"),
        ("gpt2", "gpt2"),
    ],
)
def test_a_claim_is_read_as_the_repo_that_it_means(claim: str, name: str):
    assert read_claim(claim) == (name, None)


def test_a_claim_that_is_longer_than_any_path_is_not_searched_for_a_name():
    name, objection = read_claim("models--" * 1000 + "models--owner--name")
    assert (name, objection) == ("models--" * 25, "is not the id of a repo")


# shapes


def test_a_base_that_fits_is_accepted_and_the_matches_are_counted(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    base = resolver.resolve(declared="fit/base", card_base=None, shapes=adapter_shapes())
    assert base.evidence["matched"] == 1


def test_a_base_of_another_width_is_refused_with_the_reason(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/narrow")
    with pytest.raises(ShapeMismatch, match=r"layers\.0\.self_attn\.q_proj is 8 x 8 in the base and 16 x 16"):
        resolver.resolve(declared="fit/narrow", card_base=None, shapes=adapter_shapes(16))


def test_a_base_with_too_few_layers_is_refused(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/shallow")
    with pytest.raises(ShapeMismatch, match=r"the base has no layers\.7\.self_attn\.q_proj"):
        resolver.resolve(declared="fit/shallow", card_base=None, shapes=adapter_shapes(layer=7))


def test_the_card_is_believed_where_the_declared_base_does_not_fit(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/declared")
    put_base(bases, "fit/card", base_files(width=16))
    base = resolver.resolve(declared="fit/declared", card_base="fit/card", shapes=adapter_shapes(16))
    assert (base.repo, base.evidence["source"]) == ("fit/card", "card")


def test_without_a_claim_the_only_local_base_that_fits_is_taken(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/narrow")
    put_base(bases, "fit/wide", base_files(width=16))
    base = resolver.resolve(declared=None, card_base=None, shapes=adapter_shapes(16))
    assert (base.repo, base.evidence["source"]) == ("fit/wide", "shapes")


def test_of_several_local_bases_that_fit_none_is_guessed(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/one")
    put_base(bases, "fit/two")
    with pytest.raises(BaseUnresolved, match="fit/one, fit/two"):
        resolver.resolve(declared=None, card_base=None, shapes=adapter_shapes())


def test_the_vocabulary_decides_between_bases_of_the_same_shapes(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/small", base_files(vocabulary=10))
    put_base(bases, "fit/large", base_files(vocabulary=12))
    shapes = {**adapter_shapes(), "base_model.model.model.embed_tokens.weight": (12, WIDTH)}
    assert resolver.resolve(declared=None, card_base=None, shapes=shapes).repo == "fit/large"


def test_an_enlarged_vocabulary_still_fits_its_base(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    shapes = {"base_model.model.model.embed_tokens.modules_to_save.weight": (VOCABULARY + 3, WIDTH)}
    assert resolver.resolve(declared="fit/base", card_base=None, shapes=shapes).evidence["matched"] == 1


def test_an_embedding_of_another_width_does_not_fit(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    module = "base_model.model.model.embed_tokens"
    shapes = {f"{module}.lora_embedding_A": (RANK, VOCABULARY), f"{module}.lora_embedding_B": (16, RANK)}
    with pytest.raises(ShapeMismatch, match="embed_tokens is 10 x 8 in the base and 10 x 16"):
        resolver.resolve(declared="fit/base", card_base=None, shapes=shapes)


def test_a_transposed_weight_and_another_prefix_fit(resolver: BaseResolver, bases: Path):
    files = {"config.json": b"{}", "model.safetensors": tensors(**{"h.0.attn.c_attn.weight": (8, 24)})}
    put_base(bases, "fit/gpt2", files)
    module = "base_model.model.transformer.h.0.attn.c_attn"
    shapes = {f"{module}.lora_A.weight": (RANK, 8), f"{module}.lora_B.weight": (24, RANK)}
    assert resolver.resolve(declared="fit/gpt2", card_base=None, shapes=shapes).evidence["matched"] == 1


def test_a_full_model_fits_its_base(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    base = resolver.resolve(declared="fit/base", card_base=None, shapes=base_shapes())
    assert base.evidence["matched"] == LAYERS + 1


def test_tensors_that_name_no_weight_leave_the_claim_to_the_encoder(resolver: BaseResolver, bases: Path):
    put_base(bases, "fit/base")
    base = resolver.resolve(declared="fit/base", card_base=None, shapes={"prompt_embeddings": (4, WIDTH)})
    assert base.evidence["matched"] == 0


# what is refused


def test_without_any_claim_the_base_is_unresolved(resolver: BaseResolver):
    with pytest.raises(BaseUnresolved, match="names no base"):
        resolver.resolve(declared=None, card_base=None)


def test_an_unresolved_base_lists_all_that_was_tried_and_why(resolver: BaseResolver):
    with pytest.raises(BaseUnresolved) as caught:
        resolver.resolve(declared="/scratch/me/llama", card_base="no/such")
    assert "/scratch/me/llama: is a folder of the machine" in str(caught.value)
    assert "no/such: no/such does not exist on the Hub" in str(caught.value)


def test_a_gated_base_says_what_to_do(scripted_hub: ScriptedHub, tmp_path: Path, bases: Path):
    scripted_hub.answer("/api/models/o/base", Answer(403, {"X-Error-Code": "GatedRepo"}))
    with pytest.raises(BaseUnresolved, match="HF_TOKEN"):
        BaseResolver(make_hub(scripted_hub.url, tmp_path), bases).resolve(declared="o/base", card_base=None)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq"])
def test_a_quantised_base_is_unsupported_and_not_downloaded(
    hub_server: HubServer, resolver: BaseResolver, tmp_path: Path, method: str
):
    hub_server.commit(f"quantised/{method}", base_files({"quantization_config": {"quant_method": method}}))
    with pytest.raises(UnsupportedBase, match=rf"quantised \({method}\)"):
        resolver.resolve(declared=f"quantised/{method}", card_base=None)
    assert not list(tmp_path.rglob("model.safetensors"))


def test_a_quantised_folder_is_unsupported(resolver: BaseResolver, bases: Path):
    put_base(bases, "quantised/local", base_files({"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(UnsupportedBase, match="alias"):
        resolver.resolve(declared="quantised/local", card_base=None)


def test_a_base_with_a_quantised_part_is_unsupported(resolver: BaseResolver, bases: Path):
    part = {"text_config": {"quantization_config": {"quant_method": "fp8"}}}
    put_base(bases, "quantised/part", base_files({"thinker_config": part}))
    with pytest.raises(UnsupportedBase, match=r"quantised \(fp8\)"):
        resolver.resolve(declared="quantised/part", card_base=None)


def test_a_broken_folder_is_unresolved_with_the_reason(resolver: BaseResolver, bases: Path):
    put_base(bases, "broken/base", {"config.json": b"{}", "model.safetensors": b"short"})
    with pytest.raises(BaseUnresolved, match="truncated"):
        resolver.resolve(declared="broken/base", card_base=None, shapes=adapter_shapes())


@pytest.mark.parametrize(
    ("answer", "error"), [(Answer(429, {"Retry-After": "9"}), HubRateLimited), (Answer(503), HubUnavailable)]
)
def test_a_fault_that_may_pass_is_not_taken_for_a_missing_base(
    scripted_hub: ScriptedHub, tmp_path: Path, bases: Path, answer: Answer, error: type[Exception]
):
    put_base(bases, "card/base")
    scripted_hub.answer("/api/models/o/base", answer)
    with pytest.raises(error):
        BaseResolver(make_hub(scripted_hub.url, tmp_path), bases).resolve(declared="o/base", card_base="card/base")
