"""Standard clients among friends: their rosters show both or none, whatever they send."""

import random
from pathlib import Path
from typing import Any

import pytest

from xmppd import ns
from xmppd.errors import CommandError
from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:friends:0"
ALICE, BOB = "alice@localhost", "bob@localhost"
KINDS = ("subscribe", "subscribed", "unsubscribe", "unsubscribed")
FITTING = {("none", "none"), ("both", "both"), ("asking", "asked"), ("asked", "asking")}


def world_of(*plugins: str, **more: Any) -> World:
    return World(plugins=("friends", *plugins), **more)


async def halves(world: World) -> tuple[str, str]:
    """What both rosters say; an item without a subscription is none."""
    found = []
    for account, contact in ((ALICE, BOB), (BOB, ALICE)):
        item = await world.app.server.rosters.item(account, contact)
        if item is None or (item.subscription == "none" and not item.ask and not item.pending_in):
            found.append("none")
        elif item.subscription == "none":
            found.append("asking" if item.ask else "asked")
        else:
            found.append(item.subscription)
    return found[0], found[1]


def kinds(stanzas: list[Any]) -> list[tuple[str, str | None]]:
    return [(it.tag.rpartition("}")[2], it.get("type")) for it in stanzas]


@pytest.mark.asyncio
async def test_they_ask_and_accept_as_ever() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(
            f"<iq type='set' id='1'><query xmlns='{ns.ROSTER}'><item jid='{BOB}' name='Bob'/></query></iq>"
        )
        await alice.send(f"<presence type='subscribe' to='{BOB}'><status>hello</status></presence>")
        (asked,) = await bob.receive_all()
        assert (asked.get("type"), asked.get("from"), asked[0].text) == ("subscribe", ALICE, "hello")
        await alice.receive_all()
        await bob.send(f"<presence type='subscribed' to='{ALICE}'/>")
        assert await halves(world) == ("both", "both")
        assert set(kinds(await alice.receive_all())) == {("iq", "set"), ("presence", None)}
        assert set(kinds(await bob.receive_all())) == {("iq", "set"), ("presence", None)}
        kept = await world.app.server.rosters.item(ALICE, BOB)
        assert kept is not None and kept.name == "Bob"
        await bob.send(f"<presence type='subscribe' to='{ALICE}'/>")
        await alice.expect_nothing()
        assert await halves(world) == ("both", "both")


@pytest.mark.asyncio
async def test_a_request_is_shown_at_the_next_login() -> None:
    async with world_of() as world:
        alice = await world.login("alice")
        await alice.send(f"<presence type='subscribe' to='{BOB}'/>")
        bob = await world.bind("bob")
        await bob.send("<presence/>")
        assert ("presence", "subscribe") in kinds(await bob.receive_all())


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["unsubscribe", "unsubscribed", "remove"])
async def test_whatever_ends_it_ends_it_for_both(kind: str) -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        for state in ("both", "asked", "asking"):
            who = {"both": alice, "asked": bob, "asking": alice}[state]
            peer = ALICE if who is bob else BOB
            await who.send(f"<presence type='subscribe' to='{peer}'/>")
            if state == "both":
                await bob.send(f"<presence type='subscribed' to='{ALICE}'/>")
            assert (await halves(world))[0] == state
            await alice.receive_all()
            if kind == "remove":
                item = f"<item jid='{BOB}' subscription='remove'/>"
                await alice.send(f"<iq type='set' id='r'><query xmlns='{ns.ROSTER}'>{item}</query></iq>")
                answers = [it for it in await alice.receive_all() if it.get("id") == "r"]
                assert [it.get("type") for it in answers] == ["result"]
            else:
                await alice.send(f"<presence type='{kind}' to='{BOB}'/>")
            assert await halves(world) == ("none", "none")


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["unsubscribe", "unsubscribed"])
async def test_a_contact_that_went_with_the_friendship_may_be_removed_once_more(kind: str) -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<presence type='subscribe' to='{BOB}'/>")
        await bob.send(f"<presence type='subscribed' to='{ALICE}'/>")
        await alice.receive_all()
        item = f"<item jid='{BOB}' subscription='remove'/>"
        await alice.send(f"<presence type='{kind}' to='{BOB}'/>")
        await alice.send(f"<iq type='set' id='r'><query xmlns='{ns.ROSTER}'>{item}</query></iq>")
        assert [it.get("type") for it in await alice.receive_all() if it.get("id") == "r"] == ["result"]
        assert await halves(world) == ("none", "none")


@pytest.mark.asyncio
async def test_what_is_no_matter_of_friends_is_as_ever(tmp_path: Path) -> None:
    async with world_of() as world:
        alice = await world.login("alice")
        query = f"<query xmlns='{ns.ROSTER}'>{{}}</query>"
        for item, answer in (
            (f"<item jid='{BOB}' subscription='remove'/>", "cancel item-not-found"),
            (f"<item jid='{BOB}' name='Bob'/>", ""),
            (f"<item jid='{BOB}' subscription='remove'/>", ""),
            ("<item jid='@' subscription='remove'/>", "modify jid-malformed"),
            ("<item jid='x.example' subscription='remove'/>", "cancel item-not-found"),
        ):
            await alice.receive_all()
            await alice.send(f"<iq type='set' id='q'>{query.format(item)}</iq>")
            (found,) = [it for it in await alice.receive_all() if it.get("id") == "q"]
            assert (refusal(found) if found.get("type") == "error" else "") == answer, item
        for to, why in (
            (ALICE, "modify bad-request"),
            ("localhost", "modify bad-request"),
            ("x@elsewhere", "cancel remote-server-not-found"),
            ("nobody@localhost", "cancel item-not-found"),
        ):
            await alice.send(f"<presence type='subscribe' to='{to}'/>")
            assert refusal(await alice.receive()) == why, to


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(4))
async def test_nothing_that_they_send_makes_one_sided_friends(seed: int) -> None:
    chance = random.Random(seed)
    async with world_of("blocking") as world:
        clients = [await world.login("alice"), await world.login("bob")]
        seen: set[tuple[str, str]] = set()
        for _ in range(40):
            client = chance.choice(clients)
            peer = BOB if client.bare == ALICE else ALICE
            sent = [f"<presence type='{kind}' to='{peer}'/>" for kind in KINDS]
            sent += [
                f"<iq type='set' id='q'><query xmlns='{ns.ROSTER}'><item jid='{peer}'{more}/></query></iq>"
                for more in (" name='x'", " subscription='remove'", " subscription='both'")
            ]
            sent += [
                f"<iq type='set' id='q'><{deed} xmlns='{NS}' jid='{peer}'/></iq>"
                for deed in ("request", "accept", "decline", "cancel", "remove")
            ]
            await client.send(chance.choice(sent))
            now = await halves(world)
            assert now in FITTING
            seen.add(now)
        assert len(seen) > 2


async def counted(world: World, steps: list[tuple[Client, str]]) -> list[str]:
    """All stanzas of a handshake, as RFC 6121 counts them in its examples: without answers to iqs."""
    clients = {client.bare: client for client, _ in steps}
    found = []
    for client, sent in steps:
        for other in clients.values():
            await other.receive_all()
        await client.send(sent)
        found.append(f"{client.bare} sends")
        for account, other in clients.items():
            found += [
                f"{account} gets {stanza.tag.rpartition('}')[2]} {stanza.get('type') or ''}"
                for stanza in await other.receive_all()
                if stanza.get("type") not in ("result", "error")
            ]
    return found


@pytest.mark.asyncio
async def test_three_stanzas_in_place_of_sixteen() -> None:
    """Of the standard's sixteen two are the presence that is seen in the end. Here three stanzas make the two
    friends: the request as it is sent and as it comes, and its acceptance. Behind them come one push, to who
    asked, and the same two presences.
    """
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        steps = [
            (alice, f"<presence type='subscribe' to='{BOB}'/>"),
            (bob, f"<presence type='subscribed' to='{ALICE}'/>"),
            (bob, f"<presence type='subscribe' to='{ALICE}'/>"),
            (alice, f"<presence type='subscribed' to='{BOB}'/>"),
        ]
        standard = await counted(world, steps)
    assert len(standard) == 16
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        plain = await counted(
            world,
            steps=[
                (alice, f"<presence type='subscribe' to='{BOB}'/>"),
                (bob, f"<presence type='subscribed' to='{ALICE}'/>"),
            ],
        )
        assert len(plain) == 8
    async with world_of() as world:
        clients = [await world.bind("alice"), await world.bind("bob")]
        for client in clients:
            await client.send("<presence/>")
            await client.ask("get", f"<friends xmlns='{NS}'/>")
        alice, bob = clients
        ours = await counted(
            world,
            steps=[
                (alice, f"<iq type='set' id='1'><request xmlns='{NS}' jid='{BOB}'/></iq>"),
                (bob, f"<iq type='set' id='2'><accept xmlns='{NS}' jid='{ALICE}'/></iq>"),
            ],
        )
    assert ours[:3] == [f"{ALICE} sends", f"{BOB} gets iq set", f"{BOB} sends"]
    assert sorted(ours[3:]) == [f"{ALICE} gets iq set", f"{ALICE} gets presence ", f"{BOB} gets presence "]


@pytest.mark.asyncio
async def test_other_ways_to_make_friends_are_closed() -> None:
    async with world_of() as world:
        with pytest.raises(CommandError, match="friend befriend"):
            await world.app.commands.call("roster befriend", {"one": ALICE, "other": BOB})
        assert await halves(world) == ("none", "none")
