"""`space=meaning` over HTTP: models of two families of bases, measured by the encoder itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from catalog.clusters.parameters import Parameters
from catalog.clusters.runner import Grouper
from catalog.clusters.service import ask
from catalog.database import Database
from catalog.geometry.transforms import LEAST_OF_A_BASE
from catalog.spaces.probes import ProbeSet
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.catalog import MEANING
from tests.support.pico_adapters import publish
from tests.support.pico_models import make_base
from tests.support.problem_documents import documented_problem
from workers.encoding.continuations import CONTINUATIONS
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
FAMILIES = ("llama", "gpt2")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Vectors of five adapters of each family, by name."""
    folder, found = tmp_path_factory.mktemp("families"), {}
    for family in FAMILIES:
        base = make_base(folder / family, family)
        encoder = Encoder(ResidentBase.load(base, family, "0"), ProbeSet("one", ("Answer:",)), ["delta_meaning"])
        for seed in range(LEAST_OF_A_BASE):
            adapter = publish(base, folder / f"{family}-{seed}", family, "lora", seed=seed)
            (encoding,) = encoder.encode([read_finetune(adapter)])
            assert isinstance(encoding, Encoding)
            found[f"{family}/m{seed}"] = encoding.vectors["delta_meaning"]
    return found


@pytest.fixture(autouse=True)
def catalog(database: Database, api: TestClient, measured: dict[str, np.ndarray]) -> None:
    for name, vector in measured.items():
        entries.put(database, name, vector, space=MEANING, base=f"pico/{name.split('/')[0]}")
    refresh(api)


@pytest.fixture
def fitted(database: Database, api: TestClient, tmp_path: Path) -> None:
    _, space = ask(database, Parameters(), "meaning")
    Grouper(database, tmp_path).run(space.id)
    api.get("/v1/models/llama/m0/neighbors?space=meaning")  # loads the space
    refresh(api)


def neighbors(api: TestClient, name: str, query: str) -> dict:
    response = api.get(f"/v1/models/{name}/neighbors?unconfident=true&{query}")
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.usefixtures("fitted")
def test_models_of_two_families_are_each_others_neighbours(api: TestClient):
    answer = neighbors(api, "llama/m0", "space=meaning")
    assert {(each["repo_id"].split("/")[0], each["base"]) for each in answer["neighbors"]} == {
        ("llama", "pico/llama"),
        ("gpt2", "pico/gpt2"),
    }
    assert len(answer["neighbors"]) == 2 * LEAST_OF_A_BASE - 1
    assert (answer["space"]["feature"], answer["space"]["base_repo"]) == ("delta_meaning", None)
    assert (answer["geometry"]["kind"], answer["geometry"]["models"]) == ("standardised", LEAST_OF_A_BASE)
    assert answer["note"] is None


@pytest.mark.usefixtures("fitted")
def test_the_nearest_on_another_base_are_asked_for_by_its_name(api: TestClient):
    answer = neighbors(api, "llama/m0", "space=meaning&base=pico/gpt2&k=3")
    assert [each["base"] for each in answer["neighbors"]] == ["pico/gpt2"] * 3


@pytest.mark.usefixtures("fitted")
def test_a_name_a_feature_and_a_key_are_one_space(api: TestClient):
    answers = [neighbors(api, "gpt2/m1", f"space={name}") for name in ("meaning", "delta_meaning", MEANING.key)]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.usefixtures("fitted")
def test_models_of_a_base_of_which_there_are_too_few_are_left_out_with_a_note(api: TestClient, database: Database):
    entries.put(database, "rare/one", np.arange(len(CONTINUATIONS.texts)), space=MEANING, base="pico/rare")
    refresh(api)
    answer = neighbors(api, "llama/m0", "space=meaning&k=100")
    assert "rare/one" not in [each["repo_id"] for each in answer["neighbors"]]
    assert answer["note"].startswith("1 models were not compared")


def test_before_anything_was_fitted_vectors_are_compared_as_they_are_with_a_note(api: TestClient):
    answer = neighbors(api, "llama/m0", "space=meaning")
    assert answer["geometry"]["kind"] == "raw"
    assert answer["note"].startswith("Vectors are compared as they are")


def test_a_space_of_no_such_name_is_not_found(api: TestClient):
    response = api.get("/v1/models/llama/m0/neighbors?space=taste")
    assert (response.status_code, documented_problem(response)["code"]) == (404, "space_not_found")


@pytest.mark.usefixtures("fitted")
def test_clusters_are_shown_under_the_same_name(api: TestClient):
    assert api.get("/v1/clusters?space=meaning").json()["space"]["key"] == MEANING.key


def test_a_map_that_is_not_drawn_yet_is_told_under_the_same_name(api: TestClient):
    assert documented_problem(api.get("/v1/map?space=meaning"))["code"] == "not_mapped"


@pytest.mark.usefixtures("fitted")
def test_a_search_by_model_takes_the_name_too(api: TestClient):
    body = {"repo_id": "llama/m0", "space": "meaning", "base": ["pico/gpt2"], "unconfident": True}
    answer = api.post("/v1/search", json=body).json()
    assert answer == neighbors(api, "llama/m0", "space=meaning&base=pico/gpt2")
