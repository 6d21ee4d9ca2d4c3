"""Fixtures: an encoder of the pico base, and examples to train on."""

from __future__ import annotations

import pytest

from catalog.spaces.probes import ProbeSet
from catalog.tasks.examples import Example
from tests.support.pico import BASE_ID, make_base
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase

PROBES = ProbeSet("two", ("Tell me something.", "Write a response."))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Encoder:
    folder = make_base(tmp_path_factory.mktemp("base"))
    return Encoder(ResidentBase.load(folder, BASE_ID, "0" * 40), PROBES)


@pytest.fixture
def examples() -> list[Example]:
    return [Example(f"Repeat {word}.", word * 3) for word in ("ab", "cd", "ef", "gh", "ij", "kl")]
