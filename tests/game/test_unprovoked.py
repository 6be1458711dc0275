"""Last of all: no refusal of the layer of games goes without a test that provokes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from refusing import refusals

HERE = Path(__file__).parent
SELDOM = {
    "game_events/__init__.py: 'forbidden'": "a service asks",
    "players/__init__.py: 'not-allowed', 'Only players ask for players.'": "a service asks",
    "game_login/__init__.py: 'not-allowed', 'This session did not log in by a token.'": "a service asks",
    "game_login/__init__.py: 'recipient-unavailable'": "a session ends while its token is looked at",
    "game_login/__init__.py: 'resource-constraint', error.text": "the keys cannot be had just then",
    "friends/lists.py: 'not-allowed', 'A guest has no friends.'": "an account goes just then",
    "riot_profile/__init__.py: 'not-allowed', 'A guest has no list.'": "an account goes just then",
}
"""Refusals that no test provokes yet, and when they happen."""


def test_every_refusal_was_provoked(request: pytest.FixtureRequest) -> None:
    """When all tests of this folder ran, on one node."""
    ran = {item.path for item in request.session.items}
    is_whole = ran >= {*HERE.glob("test_*.py")} and not request.config.option.keyword
    is_usual = os.environ.get("XMPPD_TEST_NODES", "1") == "1" and "XMPPD_TEST_STORE" not in os.environ
    if not (is_whole and is_usual):
        pytest.skip("not all of these tests run")
    unprovoked = [it for it in refusals() if not it.is_provoked and it.name not in SELDOM]
    assert [str(it) for it in unprovoked] == []


def test_what_is_seldom_is_refused_somewhere() -> None:
    assert set(SELDOM) <= {it.name for it in refusals()}
