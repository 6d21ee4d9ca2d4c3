"""`space=meaning` over HTTP: models of two families of bases, measured by the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from catalog.clusters.parameters import Parameters
from catalog.clusters.runner import ClusterRunner
from catalog.clusters.service import request_run
from catalog.database import Database
from catalog.geometry.transforms import MIN_MODELS_PER_BASE
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
    folder, vectors = tmp_path_factory.mktemp("families"), {}
    for family in FAMILIES:
        base = make_base(folder / family, family)
        encoder = Encoder(ResidentBase.load(base, family, "0"), ProbeSet("one", ("Answer:",)), ["delta_meaning"])
        for seed in range(MIN_MODELS_PER_BASE):
            adapter = publish(base, folder / f"{family}-{seed}", family, "lora", seed=seed)
            (encoding,) = encoder.encode([read_finetune(adapter)])
            assert isinstance(encoding, Encoding)
            vectors[f"{family}/m{seed}"] = encoding.vectors["delta_meaning"]
    return vectors


@pytest.fixture(autouse=True)
def catalog(database: Database, api: TestClient, measured: dict[str, np.ndarray]) -> None:
    for name, vector in measured.items():
        entries.put(database, name, vector, space=MEANING, base=f"pico/{name.split('/')[0]}")
    refresh(api)


@pytest.fixture
def fitted(database: Database, api: TestClient, tmp_path: Path) -> None:
    _, space = request_run(database, Parameters(), "meaning")
    ClusterRunner(database, tmp_path).run(space.id)
    api.get("/v1/models/llama/m0/neighbors?space=meaning")  # loads the space
    refresh(api)


def neighbors(api: TestClient, name: str, query: str) -> dict:
    response = api.get(f"/v1/models/{name}/neighbors?include_low_confidence=true&{query}")
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.usefixtures("fitted")
def test_neighbors_are_of_both_bases(api: TestClient):
    answer = neighbors(api, "llama/m0", "space=meaning")
    assert {(neighbor["repo_id"].split("/")[0], neighbor["base"]) for neighbor in answer["neighbors"]} == {
        ("llama", "pico/llama"),
        ("gpt2", "pico/gpt2"),
    }
    assert len(answer["neighbors"]) == 2 * MIN_MODELS_PER_BASE - 1
    assert (answer["space"]["feature"], answer["space"]["base_repo"]) == ("delta_meaning", None)
    assert (answer["geometry"]["kind"], answer["geometry"]["models"]) == ("standardized", MIN_MODELS_PER_BASE)
    assert answer["note"] is None


@pytest.mark.usefixtures("fitted")
def test_base_filter_returns_neighbors_on_another_base(api: TestClient):
    answer = neighbors(api, "llama/m0", "space=meaning&base=pico/gpt2&k=3")
    assert [neighbor["base"] for neighbor in answer["neighbors"]] == ["pico/gpt2"] * 3


@pytest.mark.usefixtures("fitted")
def test_short_name_feature_and_key_name_the_same_space(api: TestClient):
    answers = [neighbors(api, "gpt2/m1", f"space={name}") for name in ("meaning", "delta_meaning", MEANING.key)]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.usefixtures("fitted")
def test_models_of_a_small_base_are_left_out_with_a_note(api: TestClient, database: Database):
    entries.put(database, "rare/one", np.arange(len(CONTINUATIONS.texts)), space=MEANING, base="pico/rare")
    refresh(api)
    answer = neighbors(api, "llama/m0", "space=meaning&k=100")
    assert "rare/one" not in [neighbor["repo_id"] for neighbor in answer["neighbors"]]
    assert answer["note"].startswith("1 models were not compared")


def test_raw_comparison_before_a_fit_has_a_note(api: TestClient):
    answer = neighbors(api, "llama/m0", "space=meaning")
    assert answer["geometry"]["kind"] == "raw"
    assert answer["note"].startswith("Raw vectors were compared")


def test_unknown_space_name_returns_404(api: TestClient):
    response = api.get("/v1/models/llama/m0/neighbors?space=taste")
    assert (response.status_code, documented_problem(response)["code"]) == (404, "space_not_found")


@pytest.mark.usefixtures("fitted")
def test_clusters_accept_the_space_name(api: TestClient):
    assert api.get("/v1/clusters?space=meaning").json()["space"]["key"] == MEANING.key


def test_map_accepts_the_space_name(api: TestClient):
    assert documented_problem(api.get("/v1/map?space=meaning"))["code"] == "map_not_ready"


@pytest.mark.usefixtures("fitted")
def test_search_by_model_accepts_the_space_name(api: TestClient):
    body = {"repo_id": "llama/m0", "space": "meaning", "base": ["pico/gpt2"], "include_low_confidence": True}
    answer = api.post("/v1/search", json=body).json()
    assert answer == neighbors(api, "llama/m0", "space=meaning&base=pico/gpt2")
