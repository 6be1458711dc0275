"""What a node serves while it does not hear what other nodes do."""

import pytest

from xmppd import ns
from xmppd.core.roster.rosters import Rosters, SetRequest
from xmppd.core.roster.tier import Answer, RosterTier, Write
from xmppd.testing import World

ALICE = "alice@localhost"


class Cache:
    """Of `SharedCache` what a tier asks for: one that is away."""

    is_heard = True

    async def read(self, account, *, fresh=False):
        return Answer(None, "")

    async def begin(self, account):
        return Write(account, "")

    async def finish(self, write, version, value=b""):
        return False


async def roster(client):
    answer = await client.ask("get", f"<query xmlns='{ns.ROSTER}'/>")
    return [item.get("jid") for item in answer[0]]


@pytest.mark.asyncio
async def test_a_new_session_is_shown_what_another_node_wrote_though_a_session_here_has_the_roster():
    async with World() as world:
        cache = Cache()
        world.app.rosters._tier = RosterTier(cache)
        first = await world.bind("alice")
        assert await roster(first) == []
        cache.is_heard = False
        elsewhere = Rosters(world.app.store)
        await elsewhere.set_item(ALICE, SetRequest("bob@localhost", "", ()))
        second = await world.bind("alice")
        assert await roster(second) == ["bob@localhost"]
