"""No order of what an account does shows it to whom it hides from: random walks, and nodes that go."""

import random
import re
from typing import Any
from xml.etree.ElementTree import Element, tostring

import pytest

from xmppd import ns
from xmppd.testing import Client, World

NS = "urn:xmppd:rich-presence:0"
PLUGINS = ("rich_presence", "last", "disco", "version", "offline", "carbons", "blocking")
CONFIG = {"rich_presence": {"games": {"go": {"says": {}}}, "window": 1.0, "changes_per_minute": 10_000}}
ALICE, BOB = "alice@localhost", "bob@localhost"
HIDDEN = f"<hidden xmlns='{NS}'>%s</hidden>"
STEPS = 40
RULES = {
    "<all/>": {ALICE},
    "<group>school</group>": set(),
    f"<friend>{ALICE}</friend>": {ALICE},
    "<friend>carol@localhost</friend>": set(),
    f"<group>work</group><friend>{ALICE}</friend>": {ALICE},
}


class Walk:
    """Bob does something, alice tries something, and she never sees more than that he is offline."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.bobs: list[Client] = []
        self.rule = ""
        self.is_in_group = False
        self.log: list[str] = []

    @property
    def is_hidden(self) -> bool:
        by_group = "<group>school" in self.rule and self.is_in_group
        return by_group or (bool(self.rule) and ALICE in RULES[self.rule])

    async def bob(self) -> None:  # noqa: C901 - one line for each thing
        """One thing that he does. She may see it if he did not hide before, or does not afterwards."""
        what = self.random.choice(
            ["hide", "group", "come", "leave", "drop", "presence", "say", "direct", "marker", "hide"]
        )
        if not self.bobs:
            what = self.random.choice(["come", "rule"])
        one = self.random.choice(self.bobs) if self.bobs else None
        self.log.append(what)
        if what == "come" and len(self.bobs) < 3:
            self.bobs.append(await self.world.login("bob", f"r{self.random.randrange(1000)}"))
        elif what == "rule":
            kinds: dict[str, Any] = {
                "<all/>": {"all": True},
                f"<friend>{ALICE}</friend>": {"friend": [ALICE]},
            }
            self.rule = self.random.choice(["", *kinds])
            await self.world.app.commands.call("presence hide", {"account": BOB, **kinds.get(self.rule, {})})
        elif one is None or what == "come":
            return
        elif what == "hide":
            self.rule = self.random.choice(["", *RULES])
            await one.send(f"<iq type='set' id='h'>{HIDDEN % self.rule}</iq>")
        elif what == "group":
            self.is_in_group = not self.is_in_group
            group = "<group>school</group>" if self.is_in_group else ""
            item = f"<item jid='{ALICE}'>{group}</item>"
            await one.send(f"<iq type='set' id='g'><query xmlns='{ns.ROSTER}'>{item}</query></iq>")
        elif what == "leave":
            await one.send("<presence type='unavailable'><status>bye</status></presence>")
            await one.send("<presence/>")
        elif what == "drop":
            self.bobs.remove(one)
            await one.drop()
        elif what == "presence":
            await one.send("<presence><show>xa</show></presence>")
        elif what == "say":
            state = f"<state>{{}}</state><join secret='s{len(self.log)}'/>"
            await one.send(f"<iq type='set' id='s'><game xmlns='{NS}' id='go'>{state}</game></iq>")
            await self.world.advance(1.5)
        elif what == "direct":
            await one.send(f"<presence to='{self.random.choice([ALICE, ALICE + '/pc'])}'/>")
        elif what == "marker":
            await one.send(f"<message to='{ALICE}'><received xmlns='{ns.RECEIPTS}' id='1'/></message>")
        await self.world.settle()

    async def tries(self, alice: Client) -> list[Element]:
        """One thing that she tries, and what comes of it."""
        full = self.random.choice(self.bobs).jid if self.bobs else f"{BOB}/r1"
        to = self.random.choice([BOB, full])
        payloads = [f"<query xmlns='{name}'/>" for name in (ns.LAST, ns.DISCO_INFO, ns.DISCO_ITEMS)]
        payloads += ["<query xmlns='jabber:iq:version'/>", f"<join xmlns='{NS}' id='go'/>"]
        sent = self.random.choice(
            [
                f"<presence type='probe' to='{to}'/>",
                f"<presence type='subscribe' to='{BOB}'/>",
                f"<message type='groupchat' id='m' to='{to}'><body>x</body></message>",
                *(f"<iq type='get' id='i' to='{to}'>{payload}</iq>" for payload in payloads),
            ]
        )
        self.log.append(sent)
        await alice.send(sent)
        await self.world.settle()
        return await alice.receive_all()


def is_shown(it: Element) -> bool:
    """Whether it shows that somebody is there: bob's presence, an answer of his client, or who he is."""
    text = tostring(it, encoding="unicode")
    if not (it.get("from") or "").startswith(BOB):
        return False
    if it.tag.endswith("}presence"):
        return it.get("type") is None
    if it.tag.endswith("}message"):
        return it.get("type") != "error"
    full = it.get("from") != BOB
    return (full and it.get("type") != "error") or bool(re.search(r"seconds=\"0\"|secret=|<[^>]*item ", text))


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(6))
async def test_no_walk_shows_who_hides(seed: int) -> None:
    async with World(plugins=PLUGINS, plugin_config=CONFIG) as world:
        alice = await world.login("alice", "pc")
        walk = Walk(world, seed)
        walk.bobs.append(await world.login("bob", "r1"))
        await world.befriend(alice, walk.bobs[0])
        seen = 0
        for _ in range(STEPS):
            was_hidden = walk.is_hidden
            await walk.bob()
            for client in walk.bobs:
                for it in await client.receive_all():
                    if it.tag.endswith("}iq") and it.get("type") == "get":
                        await client.send(f"<iq type='result' id='{it.get('id')}' to='{it.get('from')}'/>")
            got = await alice.receive_all()
            if was_hidden and walk.is_hidden:
                assert got == [] or not [it for it in got if (it.get("from") or "").startswith(BOB)], walk.log
            await world.advance(3)
            got = await walk.tries(alice)
            for it in got:
                assert not (walk.is_hidden and is_shown(it)), (walk.log, tostring(it))
                seen += is_shown(it)
            if not walk.is_hidden:  # she sees all that is there, and no more
                await alice.send(f"<presence type='probe' to='{BOB}'/>")
                await world.settle()
                there = {it.get("from") for it in await alice.receive_all() if is_shown(it)}
                assert there == {client.jid for client in walk.bobs}, walk.log
        assert seen or walk.log


@pytest.mark.asyncio
@pytest.mark.one_node
@pytest.mark.parametrize("is_killed", [True, False])
async def test_a_node_that_is_lost_shows_nothing_of_who_hid_there(is_killed: bool) -> None:
    async with World(plugins=PLUGINS, plugin_config=CONFIG, nodes=2) as world:
        alice, bob = await world.login("alice", "pc", node=0), await world.login("bob", "pc", node=1)
        await world.befriend(alice, bob)
        await bob.send(f"<iq type='set' id='h'>{HIDDEN % '<all/>'}</iq>")
        await world.settle()
        assert [it.get("type") for it in await alice.receive_all()] == ["unavailable"]
        if is_killed:
            world.cut(0, 1)
            mesh = world.cluster(0).mesh
            mesh.give_up(next(iter(mesh.members.values())), "it was killed")
        else:
            await world.drain(1)
        await world.settle()
        await world.advance(60)
        assert await alice.receive_all() == []


@pytest.mark.asyncio
@pytest.mark.one_node
async def test_a_node_that_knew_nothing_is_told_who_hides() -> None:
    async with World(plugins=PLUGINS, plugin_config=CONFIG, nodes=2) as world:
        alice, bob = await world.login("alice", "pc", node=0), await world.login("bob", "pc", node=1)
        await world.befriend(alice, bob)
        await bob.send(f"<iq type='set' id='h'>{HIDDEN % '<all/>'}</iq>")
        await world.settle()
        await alice.receive_all()
        for app in world.apps:
            await app.loader.reload("rich_presence", app.config)
        await world.settle()
        for sent in (
            f"<presence type='probe' to='{BOB}'/>",
            f"<iq type='get' id='i' to='{BOB}'><query xmlns='{ns.LAST}'/></iq>",
        ):
            await alice.send(sent)
        assert not any(
            is_shown(it) and 'seconds="0"' not in tostring(it).decode() for it in await alice.receive_all()
        )
        assert [len(it.away) for it in world.plugins("rich_presence")] == [1, 1]
