"""What somebody does with an account in the very moment in which it is given another address: held up before
each thing that it asks of the store, while the renaming goes on as far as it can. Whatever is said to be done
holds for the new address, of both halves, and nothing is left of the old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from gates import EACH, ON_CASSANDRA, Gate, go_on, renamed
from leftovers import allowed, rows_with
from mutual import is_mutual
from several import several

from xmppd import ns
from xmppd.core.roster.repair import RosterRepair
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

ROSTER, BLOCKING = ns.ROSTER, ns.BLOCKING
FRIENDS, INVITES = "urn:xmppd:friends:0", "urn:xmppd:invites:0"
KEPT: Mapping[str, tuple[str, ...]] = {
    "account_moved": ("account",),
    "archive_owners": ("account",),
    "roster": ("value",),
    "friends_due": ("one", "other"),
    "friends_pairs": ("other",),
}
"""What may have an old address: logs, that nothing is between two any more, and what is to be looked at."""
MOST = 60
"""No deed asks the store for more than this."""
SLOW = 20
"""How often it is looked whether a deed has come to its call of the store."""


@dataclass(frozen=True)
class Deed:
    """What `who` says, where {zoe} is renamed, after what both, or an operator, did `before`."""

    says: str
    before: tuple[str, ...] = ()
    who: str = "bob"


def iq(payload: str) -> str:
    return f"<iq type='set' id='deed'>{payload}</iq>"


def of_roster(more: str) -> str:
    return iq(f"<query xmlns='{ROSTER}'><item jid='{{zoe}}'{more}/></query>")


def of_blocks(what: str) -> str:
    return iq(f"<{what} xmlns='{BLOCKING}'><item jid='{{zoe}}'/></{what}>")


def of_friends(what: str, more: str = "") -> str:
    return iq(f"<{what} xmlns='{FRIENDS}' jid='{{zoe}}'>{more}</{what}>")


BEFRIENDED = ("roster befriend",)
ASKED_BY_ZOE = ("zoe: <presence type='subscribe' to='{bob}'/>",)
ASKED_BY_BOB = ("bob: <presence type='subscribe' to='{zoe}'/>",)
PLAIN: Mapping[str, Deed] = {
    "asks": Deed("<presence type='subscribe' to='{zoe}'/>"),
    "grants": Deed("<presence type='subscribed' to='{zoe}'/>", ASKED_BY_ZOE),
    "refuses": Deed("<presence type='unsubscribed' to='{zoe}'/>", ASKED_BY_ZOE),
    "takes back": Deed("<presence type='unsubscribe' to='{zoe}'/>", ASKED_BY_BOB),
    "ends his half": Deed("<presence type='unsubscribe' to='{zoe}'/>", BEFRIENDED),
    "ends hers": Deed("<presence type='unsubscribed' to='{zoe}'/>", BEFRIENDED),
    "removes": Deed(of_roster(" subscription='remove'"), BEFRIENDED),
    "names": Deed(of_roster(" name='Zoe'"), BEFRIENDED),
    "adds": Deed(of_roster(" name='Zoe'")),
    "blocks": Deed(of_blocks("block"), BEFRIENDED),
    "unblocks": Deed(of_blocks("unblock"), (*BEFRIENDED, "block add")),
    "is asked": Deed("<presence type='subscribe' to='{bob}'/>", who="zoe"),
    "is granted": Deed("<presence type='subscribed' to='{bob}'/>", ASKED_BY_BOB, who="zoe"),
    "is removed": Deed(of_roster(" subscription='remove'").replace("zoe", "bob"), BEFRIENDED, who="zoe"),
}
OF_FRIENDS: Mapping[str, Deed] = {
    "asks": Deed(of_friends("request", "gg")),
    "asks by presence": Deed("<presence type='subscribe' to='{zoe}'/>"),
    "accepts": Deed(of_friends("accept"), ASKED_BY_ZOE),
    "declines": Deed(of_friends("decline"), ASKED_BY_ZOE),
    "takes back": Deed(of_friends("cancel"), ASKED_BY_BOB),
    "removes": Deed(of_friends("remove"), ("friend befriend",)),
    "removes the item": Deed(of_roster(" subscription='remove'"), ("friend befriend",)),
    "notes": Deed(of_friends("note", "plays support"), ("friend befriend",)),
    "groups": Deed(of_friends("groups", "<group>Raid</group>"), ("friend befriend",)),
    "blocks": Deed(of_blocks("block"), ("friend befriend",)),
    "is asked": Deed(of_friends("request").replace("zoe", "bob"), who="zoe"),
    "invites": Deed(
        iq(f"<invite xmlns='{INVITES}' to='{{zoe}}' kind='match' target='m' game='g'/>"),
        ("friend befriend",),
    ),
    "is invited": Deed(
        iq(f"<invite xmlns='{INVITES}' to='{{bob}}' kind='match' target='m' game='g'/>"),
        ("friend befriend",),
        who="zoe",
    ),
    "takes an invite": Deed(
        iq(f"<accept xmlns='{INVITES}' id='{{id}}'/>"), ("friend befriend", "zoe invites")
    ),
    "takes an invite back": Deed(
        iq(f"<cancel xmlns='{INVITES}' id='{{id}}'/>"), ("friend befriend", "bob invites")
    ),
}


class Moment:
    """One deed at one moment: of two who are nobody else's matter."""

    def __init__(self, world: World, gate: Gate, deed: Deed, number: int) -> None:
        self.world = world
        self.gate = gate
        self.deed = deed
        self.number = number
        self.names = {"zoe": f"zoe-once-{number}@localhost", "bob": f"bob{number}@localhost", "id": ""}
        self.new = f"anew{number}@localhost"
        self.answer = ""

    async def call(self, command: str, **arguments: Any) -> Any:
        return await self.world.app.commands.call(command, arguments)

    async def before(self) -> dict[str, Client]:
        for name in ("zoe", "bob"):
            await self.world.app.accounts.create(self.names[name], "secret")
        clients = {
            name: await self.world.login(self.names[name].partition("@")[0], node=node)
            for name, node in (("zoe", 0), ("bob", len(self.world.apps) - 1))
        }
        zoe, bob = self.names["zoe"], self.names["bob"]
        for step in self.deed.before:
            who, _, said = step.partition(": ")
            if step.endswith("befriend"):
                await self.call(step, one=bob, other=zoe)
            elif step == "block add":
                await self.call(step, account=bob, address=zoe)
            elif step.endswith("invites"):
                one, other = (zoe, bob) if step.startswith("zoe") else (bob, zoe)
                made = await self.call("invite send", sender=one, to=other, kind="match", target="m")
                self.names["id"] = made["id"]
            else:
                await clients[who].send(said.format(**self.names))
        await self.world.settle()
        for client in clients.values():
            await client.receive_all()
        return clients

    async def play(self) -> bool:
        """Whether the deed came to its `number`th call of the store."""
        clients = await self.before()
        client = clients[self.deed.who]
        self.gate.shut(self.number)
        client.write(self.deed.says.format(**self.names))
        for _ in range(SLOW):
            await go_on(self.world)
            if self.gate.is_reached:
                break
            await asyncio.sleep(0.001)  # a thread of the store may be at work, on a busy machine
        self.gate.let()
        await renamed(self.world, self.gate, self.names["zoe"], self.new)
        got = [it for it in await client.receive_all() if it.get("id") == "deed"]
        self.answer = got[0].get("type", "") if got else ""
        return self.gate.is_reached

    async def check(self) -> None:
        """Nothing is left of the old address, and both halves agree."""
        world, bob, where = self.world, self.names["bob"], (self.deed, self.number, self.answer)
        for app in world.apps:
            repairs = RosterRepair(app.rosters, app.contacts, app.accounts, app.server.domains)
            for account in (bob, self.new):
                own = {it.contact for it in await app.rosters.items(account)}
                assert own <= {bob, self.new}, (own, where)
                faults = await repairs.check(account, every=True)
                assert faults == [], (faults, where)
        blocked = [it["address"] for it in await self.call("block list", account=bob)]
        if self.answer == "result" and "<block " in self.deed.says:
            assert blocked == [self.new], where
        elif self.answer == "result" and "<unblock " in self.deed.says:
            assert blocked == [], where


@asynccontextmanager
async def moments(world: World, deed: Deed) -> AsyncIterator[AsyncIterator[Moment]]:
    async with world:
        gate = Gate(world, 0 if deed.who == "zoe" else len(world.apps) - 1)

        async def every() -> AsyncIterator[Moment]:
            for number in range(0, MOST, EACH):
                moment = Moment(world, gate, deed, number)
                is_reached = await moment.play()
                await moment.check()
                yield moment
                if not is_reached:
                    assert number > 0
                    return
            raise AssertionError("it never ends")

        yield every()
        await world.advance(400)
        known = allowed(world) | {(table, column) for table, columns in KEPT.items() for column in columns}
        for number in range(0, MOST, EACH):
            left = {(table, column) for table, column, _ in await rows_with(world, f"zoe-once-{number}@")}
            assert left <= known, (left, number)


@pytest.mark.parametrize("nodes", [1, pytest.param(2, marks=pytest.mark.one_node)])
@pytest.mark.parametrize("name", ("grants", "removes", "blocks") if ON_CASSANDRA else PLAIN)
async def test_what_is_done_in_the_moment_of_a_renaming_is_done_whole(
    name: str, nodes: int, redis_url: str
) -> None:
    deed = PLAIN[name]
    world = World(accounts=(), plugins=("blocking",), nodes=nodes, settings=several(redis_url))
    async with moments(world, deed) as every:
        async for moment in every:
            bob = {it.contact: it for it in await moment.world.app.rosters.items(moment.names["bob"])}
            if name in ("names", "adds") and moment.answer == "result" and moment.new in bob:
                assert bob[moment.new].name == "Zoe"
            if name == "removes" and moment.answer == "result":
                assert moment.new not in bob


@pytest.mark.parametrize("nodes", [1, pytest.param(2, marks=pytest.mark.one_node)])
@pytest.mark.parametrize("name", ("accepts", "notes", "takes an invite") if ON_CASSANDRA else OF_FRIENDS)
async def test_what_friends_do_in_that_moment_is_done_whole(name: str, nodes: int, redis_url: str) -> None:
    deed = OF_FRIENDS[name]
    world = World(
        accounts=(),
        plugins=("blocking", "friends", "invites"),
        plugin_config={"invites": {"message": "", "key": "a key for tests, of 32 characters"}},
        nodes=nodes,
        settings=several(redis_url),
    )
    async with moments(world, deed) as every:
        async for moment in every:
            bob, where = moment.names["bob"], (moment.number, moment.answer)
            friends = world.plugin("friends")
            assert await is_mutual(world, bob, moment.new), where
            assert await moment.call("friend check", player=moment.new) == [], where
            pair = await friends.between(bob, moment.new)
            assert (await friends.between(bob, moment.names["zoe"])).state == "none", where
            if moment.answer == "result":
                await holds(moment, name, pair.state)


async def holds(moment: Moment, name: str, state: str) -> None:
    """What was said to be done."""
    bob, where = moment.names["bob"], (name, moment.number)
    states = {"asks": "asked", "accepts": "friends", "is asked": "asked"}
    gone = ("declines", "takes back", "removes", "removes the item", "blocks")
    assert state == states.get(name, "none" if name in gone else "friends"), where
    [row] = await moment.call("friend list", player=bob) or [{}]
    if name == "notes":
        assert row["note"] == "plays support", where
    if name == "groups":
        assert row["groups"] == ["Raid"], where
    if "invite" in name:
        kept = [await moment.call("invite list", account=it) for it in (bob, moment.new)]
        mine, theirs = kept
        ends = {"takes an invite": "accepted", "takes an invite back": "cancelled"}
        assert (
            [it["state"] for it in theirs] == [ends.get(name, "pending")] == [it["state"] for it in mine]
        ), where
        assert {it["to"] for it in mine} | {it["from"] for it in mine} == {bob, moment.new}, where
