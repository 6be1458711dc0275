"""RFC 6121 4.3.2: what a client learns that asks for somebody's presence."""

import asyncio
from typing import Any

import pytest

from xmppd import ns
from xmppd.core import directed
from xmppd.core.lastseen import LAST_PRESENCE
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Row, Table
from xmppd.testing import Client, World


async def friends(world: World) -> tuple[Client, Client]:
    """Alice, who sees the presence of Bob."""
    alice, bob = await world.login("alice"), await world.login("bob", "one")
    await world.befriend(alice, bob)
    return alice, bob


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["here", "away", "never there", "nobody"])
@pytest.mark.parametrize("resource", ["", "/one"])
async def test_strangers_are_told_the_same_of_everybody(who: str, resource: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        name = "nobody" if who == "nobody" else "bob"
        if who in ("here", "away"):
            bob = await world.login("bob", "one")
            await bob.send("<presence><status>hi</status></presence>")
            if who == "away":
                await bob.send("<presence type='unavailable'><status>bye</status></presence>")
        await alice.send(f"<presence type='probe' to='{name}@localhost{resource}'/>")
        await alice.expect(f"<presence type='unsubscribed' from='{name}@localhost' to='alice@localhost'/>")
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_who_only_asked_to_see_or_is_seen_is_a_stranger() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        await alice.receive_all(), await bob.receive_all()
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        assert (await alice.receive()).get("type") == "unsubscribed"
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await alice.receive_all(), await bob.receive_all()
        await bob.send("<presence type='probe' to='alice@localhost'/>")
        assert (await bob.receive()).get("type") == "unsubscribed"


@pytest.mark.asyncio
async def test_a_follower_is_shown_every_available_resource_or_the_one_asked_for() -> None:
    async with World() as world:
        alice, _bob = await friends(world)
        two = await world.bind("bob", "two")
        await two.send("<presence><show>xa</show></presence>")
        await world.bind("bob", "silent")
        await alice.receive_all()
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        seen = {stanza.get("from") for stanza in await alice.receive_all()}
        assert seen == {"bob@localhost/one", "bob@localhost/two"}
        await alice.send("<presence type='probe' to='bob@localhost/two'/>")
        await alice.expect(f"<presence from='{two.jid}' to='alice@localhost'><show>xa</show></presence>")
        await alice.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("resource", ["", "/one"])
async def test_a_follower_is_told_who_is_away(resource: str) -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await bob.drop()
        await alice.receive_all()
        await alice.send(f"<presence type='probe' to='bob@localhost{resource}'/>")
        await alice.expect(
            f"<presence type='unavailable' from='bob@localhost{resource}' to='alice@localhost'/>"
        )
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_follower_is_told_the_last_words() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await bob.send("<presence type='unavailable'><status>bye</status></presence>")
        await alice.receive_all()
        for _ in range(2):
            await alice.send("<presence type='probe' to='bob@localhost'/>")
            assert (await alice.receive()).findtext("{jabber:client}status") == "bye"


@pytest.mark.asyncio
async def test_everybody_sees_themselves() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send("<presence type='probe' to='alice@localhost'/>")
        await alice.expect(f"<presence from='{alice.jid}' to='alice@localhost'/>")


@pytest.mark.asyncio
async def test_a_flood_of_probes_makes_no_flood_of_work() -> None:
    async with World() as world:
        alice = await world.login("alice")
        alice.write("".join(f"<presence type='probe' to='n{n}@localhost'/>" for n in range(200)))
        assert len(world.app.jobs) <= 1
        assert len(await alice.receive_all()) == 200


@pytest.mark.asyncio
async def test_long_last_words_are_not_kept() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await bob.send(f"<presence type='unavailable'><status>{'x' * 5000}</status></presence>")
        await alice.receive_all()
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        await alice.expect("<presence type='unavailable' from='bob@localhost' to='alice@localhost'/>")


@pytest.mark.asyncio
@pytest.mark.parametrize("before", ["", "<presence/>"])
async def test_who_was_sent_directed_presence_is_answered_for_that_resource(before: str) -> None:  # 4.6.3
    async with World() as world:
        alice, bob = await world.login("alice", "here"), await world.bind("bob", "one")
        await world.login("bob", "two")
        other = await world.bind("alice", "other")
        await bob.send(f"{before}<presence to='{alice.jid}'><status>for you</status></presence>")
        await alice.receive_all()
        shown = f"<presence from='{bob.jid}' to='{alice.jid}'><status>for you</status></presence>"
        for to in ("bob@localhost", bob.jid):
            await alice.send(f"<presence type='probe' to='{to}'/>")
            await alice.expect(shown)
            await alice.expect_nothing()
        for client, to in ((alice, "bob@localhost/two"), (other, "bob@localhost")):
            await client.send(f"<presence type='probe' to='{to}'/>")
            assert (await client.receive()).get("type") == "unsubscribed"
        await bob.send(f"<presence type='unavailable' to='{alice.jid}'/>")
        await alice.receive_all()
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        assert (await alice.receive()).get("type") == "unsubscribed"


@pytest.mark.asyncio
async def test_of_much_directed_presence_only_that_it_is_there_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directed, "KEPT_BYTES", 1000)
    async with World() as world:
        alice, bob = await world.login("alice"), await world.bind("bob", "one")
        await bob.send(f"<presence to='alice@localhost'><status>{'x' * 1000}</status></presence>")
        await alice.receive_all()
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        await alice.expect(f"<presence from='{bob.jid}' to='alice@localhost'/>")


@pytest.mark.asyncio
async def test_who_comes_while_last_words_are_looked_up_is_not_away() -> None:
    async with World(store=SlowGets()) as world:
        alice, bob = await friends(world)
        await bob.drop()
        await alice.receive_all()
        world.app.last_seen.release()
        alice.write("<presence type='probe' to='bob@localhost'/>")
        bob = await world.bind("bob", "one")
        await bob.send("<presence/>")
        assert [s.get("type") for s in await alice.receive_all()][-1] is None


class SlowGets(SqliteStore):
    """Last presence that is looked up comes some turns later."""

    def __init__(self) -> None:
        super().__init__(":memory:")

    async def get(self, table: Table, *args: Any) -> Row | None:
        row = await super().get(table, *args)
        for _ in range(200 if table is LAST_PRESENCE else 0):
            await asyncio.sleep(0)
        return row


@pytest.mark.asyncio
async def test_names_that_do_not_exist_leave_no_rosters_in_memory() -> None:
    async with World(plugins=("disco", "last")) as world:
        alice = await world.login("alice")
        before = world.app.rosters.cache["rosters"]
        for n in range(20):
            await alice.send(f"<presence type='probe' to='n{n}@localhost'/>")
            await alice.send(
                f"<iq type='get' id='i' to='n{n}@localhost'><query xmlns='{ns.DISCO_INFO}'/></iq>"
                f"<iq type='get' id='l' to='n{n}@localhost/x'><query xmlns='{ns.LAST}'/></iq>"
            )
        assert len(await alice.receive_all()) == 60
        assert world.app.rosters.cache["rosters"] == before
