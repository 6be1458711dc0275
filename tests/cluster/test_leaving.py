"""A node that says that it leaves is let go at once, and nobody dials it until it is there anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest

from xmppd.cluster.neighbours import REFUSED_SECONDS, Neighbours
from xmppd.testing import World

pytestmark = pytest.mark.asyncio


class Dialing:
    """Whom a node wants to be connected with."""

    def __init__(self) -> None:
        self.wanted: dict[str, Sequence[str]] = {}

    def want(self, name: str, addresses: Sequence[str]) -> None:
        self.wanted[name] = addresses

    def forget(self, name: str) -> None:
        self.wanted.pop(name, None)


@pytest.fixture(name="settings")
def shared_settings(redis_url: str) -> Mapping[str, Any]:
    return {"cache": {"redis": redis_url, "prefix": f"test-{uuid4().hex[:12]}"}}


async def test_who_leaves_is_not_dialed_before_it_begins_anew(settings: Mapping[str, Any]) -> None:
    async with World(settings=settings, nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        mesh, leaving = world.cluster(0).mesh, world.cluster(1).mesh
        neighbours = Neighbours(mesh, "", world.clock.monotonic, lambda: None)
        neighbours.dialing = dialing = Dialing()
        neighbours.want(leaving.name, leaving.incarnation, ("there",))
        assert dialing.wanted == {leaving.name: ("there",)}

        leaving.bid_farewell()
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}' type='unavailable'/>")
        assert not mesh.members
        assert dialing.wanted == {}
        neighbours.want(leaving.name, leaving.incarnation, ("there",))
        assert dialing.wanted == {}, "the list may say for a while that it is there"
        neighbours.want(leaving.name, leaving.incarnation + 1, ("there",))
        assert dialing.wanted == {leaving.name: ("there",)}


async def test_a_node_that_begins_waits_for_nobody_whose_process_has_ended(
    settings: Mapping[str, Any],
) -> None:
    """It stays on the list for 10 s; what shows its end is that its machine refuses connections."""
    async with World(settings=settings, nodes=2) as world:
        now = 100.0
        neighbours = Neighbours(world.cluster(0).mesh, "", lambda: now, lambda: None)
        assert not neighbours.is_absent("killed")
        neighbours.failed("killed", "connection-refused", is_refused=True)
        assert not neighbours.is_absent("killed"), "it may be about to listen"
        now += REFUSED_SECONDS
        assert neighbours.is_absent("killed")
        neighbours.failed("killed", "unreachable", is_refused=False)
        assert not neighbours.is_absent("killed"), "nobody knows"


async def test_only_a_process_that_is_known_to_have_ended_loses_its_locks(
    settings: Mapping[str, Any],
) -> None:
    async with World(settings=settings, nodes=2) as world:
        now, mesh = 100.0, world.cluster(0).mesh
        neighbours = Neighbours(mesh, "", lambda: now, lambda: None)
        neighbours.dialing = Dialing()
        neighbours.want("killed", 7, ("there",))
        neighbours.failed("killed", "connection-refused", is_refused=True)
        now += REFUSED_SECONDS
        assert not mesh.has_ended(7), "nobody has tried again"
        neighbours.want("killed", 8, ("there",))
        neighbours.failed("killed", "connection-refused", is_refused=True)
        assert not (mesh.has_ended(7) or mesh.has_ended(8)), "it was another one that refused"
        now += REFUSED_SECONDS
        neighbours.failed("killed", "connection-refused", is_refused=True)
        assert mesh.has_ended(8)
        neighbours.failed("unheard of", "connection-refused", is_refused=True)
        assert not mesh.has_ended(9)
