"""What tests of several nodes of one process share."""

from __future__ import annotations

import pytest

from xmppd.testing import World


@pytest.fixture(params=["direct", "redis"])
def each_carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of a world are joined by each carrier in turn."""
    monkeypatch.setattr(World, "carrier", request.param)
