from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import CatalogError, InvalidLabels, NoSupportedWeights, RepoNotFound
from catalog.settings import Settings
from tests.support import pico
from tests.support.hub_server import HubServer
from workers.evaluation.labels import LabeledModel, read_labels
from workers.evaluation.pool import Pool, gather, load_base


def collect(labels: Path, conf: Settings) -> Pool:
    return gather(read_labels(labels), labels, conf, lambda *_: None)


@pytest.fixture
def conf(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", hf_endpoint="http://127.0.0.1:9")


def test_folders_are_relative_to_the_file_or_the_working_directory(
    folder: Path, conf: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pico.make_adapter(tmp_path / "here" / "m9")
    monkeypatch.chdir(tmp_path)
    (folder / "both.csv").write_text(f"m1,red\nhere/m9,blue\n{folder / 'm2'},red\n")
    pool = collect(folder / "both.csv", conf)
    assert (pool.names, pool.labels) == (("m1", "m9", "m2"), ("red", "blue", "red"))
    assert pool.class_indices.tolist() == [1, 0, 1]


def test_names_are_kept_in_full_if_their_last_parts_are_equal(conf: Settings, tmp_path: Path):
    for name in ("a/one", "b/one"):
        pico.make_adapter(tmp_path / name)
    (tmp_path / "labels.csv").write_text("a/one,red\nb/one,blue\n")
    assert collect(tmp_path / "labels.csv", conf).names == ("a/one", "b/one")


def test_line_that_is_neither_a_folder_nor_a_repo_id_is_refused(folder: Path, conf: Settings):
    (folder / "bad.csv").write_text("m1,red\nno such model,red\n")
    with pytest.raises(InvalidLabels, match=r"Line 2 of bad\.csv: no such model is neither an existing folder"):
        collect(folder / "bad.csv", conf)


def test_folder_without_a_fine_tune_is_named(folder: Path, conf: Settings):
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "bad.csv").write_text("m1,red\nempty,red\n")
    with pytest.raises(NoSupportedWeights, match=r"^empty: "):
        collect(folder / "bad.csv", conf)


def test_repos_are_downloaded(hub_server: HubServer, folder: Path, tmp_path: Path):
    hub_server.commit_folder("red/one", folder / "m1")
    conf = Settings(data_dir=tmp_path / "data", hf_endpoint=hub_server.url)
    (tmp_path / "labels.csv").write_text(f"red/one,red\n{folder / 'm2'},blue\n")
    pool = collect(tmp_path / "labels.csv", conf)
    assert [finetune.kind for finetune in pool.finetunes()] == ["lora", "lora"]
    with pytest.raises(RepoNotFound, match=r"Line 1 of labels\.csv: "):
        gather([LabeledModel("red/none", "red", 1)], tmp_path / "labels.csv", conf, lambda *_: None)


def test_base_is_the_one_that_the_models_name(pool: Pool, conf: Settings):
    pico.make_base(conf.bases_dir / pico.BASE_ID)
    assert load_base(pool, None, conf, dtype="float32", device="cpu").repo == pico.BASE_ID


def test_several_bases_are_refused(pool: Pool, conf: Settings, tmp_path: Path):
    pico.make_base(conf.bases_dir / pico.BASE_ID)
    pico.make_base(conf.bases_dir / "pico/other", seed=1)
    other = pico.make_adapter(tmp_path / "other", base="pico/other")
    mixed = Pool((*pool.names, "other"), (*pool.labels, "red"), (*pool.folders, other))
    with pytest.raises(InvalidLabels, match="pico/llama, pico/other"):
        load_base(mixed, None, conf, dtype="float32", device="cpu")


def test_error_of_a_missing_base_names_the_model(pool: Pool, conf: Settings):
    with pytest.raises(CatalogError, match=r"^m0: "):
        load_base(pool, None, conf, dtype="float32", device="cpu")
