from __future__ import annotations

from app import client
from catalog.tables import ACTIVE, TERMINAL, JobState


def test_every_state_is_active_or_terminal():
    assert sorted([*ACTIVE, *TERMINAL]) == sorted(JobState)


def test_the_http_client_waits_for_the_terminal_states():
    assert sorted(client.FINISHED) == sorted(TERMINAL)
