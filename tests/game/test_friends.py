"""Friends: requests and what becomes of them, for clients of games and for others."""

from typing import Any
from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.admin.commands import Caller
from xmppd.errors import CommandError
from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:friends:0"
FRIEND = f"{{{NS}}}friend"
LIST = f"<friends xmlns='{NS}'/>"
ROSTER = f"{{{ns.ROSTER}}}query"
ALICE, BOB, CAROL = "alice@localhost", "bob@localhost", "carol@localhost"
DAY = 86_400


def world_of(*plugins: str, **config: Any) -> World:
    return World(plugins=("friends", *plugins), plugin_config={"friends": config})


async def asked(client: Client, kind: str, payload: str, to: str = "") -> Element:
    """The answer to an iq; what comes before it, or after, is forgotten."""
    await client.receive_all()
    await client.send(f"<iq type='{kind}' id='q'{f' to={to!r}' if to else ''}>{payload}</iq>")
    (answer,) = [stanza for stanza in await client.receive_all() if stanza.get("id") == "q"]
    return answer


async def act(client: Client, deed: str, jid: str, text: str = "") -> str:
    """What it is then ("friend", "asking"), or the refusal."""
    answer = await asked(client, "set", f"<{deed} xmlns='{NS}' jid='{jid}'>{text}</{deed}>")
    return refusal(answer) if answer.get("type") == "error" else answer[0].get("state", "")


async def call(world: World, command: str, **arguments: Any) -> Any:
    found = await world.app.commands.call(command, arguments, Caller("http", "backend"))
    await world.settle()
    return found


async def halves(world: World, one: str = ALICE, other: str = BOB) -> tuple[str, str]:
    """What both rosters say."""
    found = []
    for account, contact in ((one, other), (other, one)):
        item = await world.app.server.rosters.item(account, contact)
        if item is None:
            found.append("none")
        elif item.subscription == "none":
            found.append("asking" if item.ask else "asked" if item.pending_in else "nothing")
        else:
            found.append(item.subscription)
    return found[0], found[1]


async def friends_in(client: Client) -> dict[str, str]:
    """The list as a client reads it: the state of each."""
    answer = await asked(client, "get", LIST)
    return {it.get("jid", ""): it.get("state", "") for it in answer[0].findall(FRIEND)}


async def two(world: World) -> tuple[Client, Client]:
    return await world.login("alice"), await world.login("bob")


# requests


@pytest.mark.asyncio
async def test_a_request_is_accepted() -> None:
    async with world_of() as world:
        alice, bob = await two(world)
        await friends_in(alice), await friends_in(bob)
        assert await act(alice, "request", BOB, "Good game!") == "asking"
        assert await halves(world) == ("asking", "asked")
        pushed = [it for it in await bob.receive_all() if it.tag.endswith("iq")]
        told = pushed[0].find(f".//{FRIEND}")
        assert told is not None
        assert (told.get("jid"), told.get("state")) == (ALICE, "asked")
        assert told.findtext(f"{{{NS}}}text") == "Good game!"
        assert await act(bob, "accept", ALICE) == "friend"
        assert await halves(world) == ("both", "both")
        got = await alice.receive_all()
        assert [it.get("from") for it in got if it.tag.endswith("presence")] == [bob.jid]
        states = [it.get("state") for stanza in got for it in stanza.iter(FRIEND)]
        assert states[-1:] == ["friend"]
        assert await friends_in(alice) == {BOB: "friend"}
        assert await friends_in(bob) == {ALICE: "friend"}
        assert await act(bob, "accept", ALICE) == "friend", "a repeat is harmless"


@pytest.mark.asyncio
async def test_crossing_requests_make_friends_at_once() -> None:
    async with world_of() as world:
        alice, bob = await two(world)
        assert await act(alice, "request", BOB) == "asking"
        assert await act(bob, "request", ALICE) == "friend"
        assert await halves(world) == ("both", "both")


@pytest.mark.asyncio
@pytest.mark.parametrize(("who", "deed"), [("bob", "decline"), ("alice", "cancel")])
async def test_a_request_comes_to_nothing(who: str, deed: str) -> None:
    async with world_of() as world:
        alice, bob = await two(world)
        await act(alice, "request", BOB)
        client, peer = (alice, BOB) if who == "alice" else (bob, ALICE)
        assert await act(client, deed, peer) == "none"
        assert await halves(world) == ("none", "none")
        assert await act(client, deed, peer) == "cancel item-not-found"
        assert await act(alice, "request", BOB) == "asking"


@pytest.mark.asyncio
async def test_friends_part_for_both() -> None:
    async with world_of() as world:
        alice, bob = await two(world)
        await act(alice, "request", BOB)
        await act(bob, "accept", ALICE)
        await world.settle()
        await bob.receive_all()
        assert await act(alice, "remove", BOB) == "none"
        assert await halves(world) == ("none", "none")
        gone = [it for it in await bob.receive_all() if it.tag.endswith("presence")]
        assert [(it.get("from"), it.get("type")) for it in gone] == [(alice.jid, "unavailable")]


@pytest.mark.asyncio
async def test_what_cannot_be_done() -> None:
    async with world_of("players", text_characters=5) as world:
        alice, bob = await two(world)
        for deed, jid, why in (
            ("request", ALICE, "modify bad-request"),
            ("request", "nobody@localhost", "cancel item-not-found"),
            ("request", "bob@elsewhere", "cancel item-not-found"),
            ("request", "localhost", "cancel item-not-found"),
            ("request", "@", "modify jid-malformed"),
            ("accept", BOB, "cancel item-not-found"),
            ("decline", BOB, "cancel item-not-found"),
            ("cancel", BOB, "cancel item-not-found"),
            ("remove", BOB, "cancel item-not-found"),
        ):
            assert await act(alice, deed, jid) == why, (deed, jid)
        assert await act(alice, "request", BOB, "too much") == "modify not-acceptable"
        for payload, why in (
            (f"<request xmlns='{NS}'/>", "modify bad-request"),
            (f"<request xmlns='{NS}' name='Zoe#EUW'/>", "cancel item-not-found"),
            (f"<note xmlns='{NS}' jid='{BOB}'>x</note>", "cancel item-not-found"),
            (f"<groups xmlns='{NS}' jid='{BOB}'/>", "cancel item-not-found"),
            (f"<group xmlns='{NS}' name='' priority='1'/>", "modify not-acceptable"),
            (f"<group xmlns='{NS}' name='x' priority='-1'/>", "modify bad-request"),
            (f"<group xmlns='{NS}' name='x' priority='1000001'/>", "modify bad-request"),
        ):
            assert refusal(await asked(alice, "set", payload)) == why, payload
        await act(alice, "request", BOB)
        for deed in ("accept", "decline", "remove"):
            assert await act(alice, deed, BOB) == "cancel item-not-found"
        assert await act(bob, "cancel", ALICE) == "cancel item-not-found"
        assert await halves(world) == ("asking", "asked")


@pytest.mark.asyncio
async def test_a_player_is_asked_by_his_name() -> None:
    async with world_of("players") as world:
        alice, bob = await two(world)
        await asked(bob, "set", "<player xmlns='urn:xmppd:players:0' name='Zoe#EUW'/>")
        answer = await asked(alice, "set", f"<request xmlns='{NS}' name='ZOE#euw'/>")
        assert answer[0].attrib.items() >= {"jid": BOB, "state": "asking", "name": "Zoe#EUW"}.items()


@pytest.mark.asyncio
async def test_nobody_guesses_who_is_there_by_asking() -> None:
    config = {"players": {"lookups": 3}}
    async with World(plugins=("friends", "players"), plugin_config=config) as world:
        alice, _ = await two(world)
        assert await act(alice, "request", "nobody@localhost") == "cancel item-not-found"
        await alice.send("<presence type='subscribe' to='noone@localhost'/>")
        assert refusal(await alice.receive()) == "cancel item-not-found"
        assert await act(alice, "request", BOB) == "asking"
        assert await act(alice, "request", CAROL) == "wait policy-violation"
        assert await act(alice, "cancel", BOB) == "none", "what is there already is no guess"


@pytest.mark.asyncio
async def test_a_request_ends_by_itself() -> None:
    async with world_of(request_days=100 / DAY) as world:
        alice, bob = await two(world)
        await act(alice, "request", BOB)
        answer = await asked(bob, "get", LIST)
        assert answer[0][0].get("expires") == "2023-11-14T22:15:00Z"
        await world.advance(90)
        assert await halves(world) == ("asking", "asked")
        await bob.receive_all()
        await world.advance(140)
        assert await halves(world) == ("none", "none")
        told = [it for stanza in await bob.receive_all() for it in stanza.iter(FRIEND)]
        assert [it.get("state") for it in told] == ["none"]


@pytest.mark.asyncio
async def test_what_has_expired_cannot_be_accepted_before_anybody_looks() -> None:
    async with world_of(request_days=1) as world:
        alice, bob = await two(world)
        await act(alice, "request", BOB)
        world.clock.seconds += DAY
        assert await act(bob, "accept", ALICE) == "cancel item-not-found"
        assert await act(bob, "request", ALICE) == "asking"
        assert await halves(world) == ("asked", "asking")


@pytest.mark.asyncio
async def test_caps_on_friends_and_requests_of_both_ways() -> None:
    async with world_of(friends=1, asking=1, asked=1) as world:
        alice, bob, carol = *await two(world), await world.login("carol")
        await world.app.accounts.create("dora@localhost", "secret")
        dora = await world.login("dora")
        assert await act(alice, "request", BOB) == "asking"
        assert await act(alice, "request", CAROL) == "wait resource-constraint"
        assert await act(carol, "request", BOB) == "wait resource-constraint"
        assert await act(bob, "accept", ALICE) == "friend"
        assert await act(carol, "request", BOB) == "wait resource-constraint"
        assert await act(alice, "request", CAROL) == "wait resource-constraint"
        assert await act(carol, "request", "dora@localhost") == "asking"
        await call(world, "friend part", one=ALICE, other=BOB)
        assert await act(alice, "request", CAROL) == "asking"
        assert await act(dora, "accept", CAROL) == "friend"
        assert await act(carol, "accept", ALICE) == "wait resource-constraint"
        assert await halves(world, ALICE, CAROL) == ("asking", "asked")


# blocks


@pytest.mark.asyncio
async def test_blocks_win_over_requests_and_friendship() -> None:
    async with world_of("blocking") as world:
        alice, bob = await two(world)
        block = f"<block xmlns='{ns.BLOCKING}'><item jid='{ALICE}'/></block>"
        await act(alice, "request", BOB)
        await asked(bob, "set", block)
        await world.settle()
        assert await halves(world) == ("none", "none")
        assert await act(alice, "request", BOB) == "cancel item-not-found"
        assert await act(bob, "request", ALICE) == "modify not-acceptable"
        with pytest.raises(CommandError, match="blocked the other"):
            await call(world, "friend befriend", one=ALICE, other=BOB)
        assert await halves(world) == ("none", "none")
        await asked(bob, "set", f"<unblock xmlns='{ns.BLOCKING}'/>")
        await call(world, "friend befriend", one=ALICE, other=BOB)
        assert await halves(world) == ("both", "both")
        await asked(bob, "set", block)
        await world.settle()
        assert await halves(world) == ("none", "none")


# lists


@pytest.mark.asyncio
async def test_the_list_has_names_notes_groups_and_when_friends_were_there() -> None:
    async with world_of("players", "last") as world:
        alice, bob = await two(world)
        await asked(bob, "set", "<player xmlns='urn:xmppd:players:0' name='Zoe#EUW'/>")
        await call(world, "friend befriend", one=ALICE, other="Zoe#EUW")
        for payload in (
            f"<note xmlns='{NS}' jid='{BOB}'>plays support</note>",
            f"<groups xmlns='{NS}' name='Zoe#EUW'><group>Raid</group><group>Guild</group></groups>",
            f"<group xmlns='{NS}' name='Raid' priority='2'/>",
            f"<group xmlns='{NS}' name='Guild' priority='1'/>",
        ):
            assert (await asked(alice, "set", payload)).get("type") == "result", payload
        await world.advance(10)
        await bob.drop()
        await world.advance(10)
        answer = (await asked(alice, "get", LIST))[0]
        friend = answer.find(FRIEND)
        assert friend is not None
        assert dict(friend.attrib) == {
            "jid": BOB,
            "state": "friend",
            "name": "Zoe#EUW",
            "since": "2023-11-14T22:13:20Z",
            "last-online": "2023-11-14T22:13:30Z",
        }
        assert [(it.tag.rpartition("}")[2], it.text) for it in friend] == [
            ("group", "Raid"),
            ("group", "Guild"),
            ("note", "plays support"),
        ]
        groups = [(it.get("name"), it.get("priority")) for it in answer.findall(f"{{{NS}}}group")]
        assert groups == [("Guild", "1"), ("Raid", "2")]
        roster = await asked(alice, "get", f"<query xmlns='{ns.ROSTER}'/>")
        assert [it.text for it in roster[0][0]] == ["Raid", "Guild"]
        assert (await call(world, "friend list", player=ALICE))[0]["note"] == "plays support"
        await asked(alice, "set", f"<note xmlns='{NS}' jid='{BOB}'/>")
        await asked(alice, "set", f"<group xmlns='{NS}' name='Raid'/>")
        answer = (await asked(alice, "get", LIST))[0]
        assert answer.find(f".//{{{NS}}}note") is None
        assert [it.get("name") for it in answer.findall(f"{{{NS}}}group")] == ["Guild"]


@pytest.mark.asyncio
async def test_groups_with_priority_are_bounded() -> None:
    async with world_of(groups=1) as world:
        alice = await world.login("alice")
        one, two = (f"<group xmlns='{NS}' name='{name}' priority='1'/>" for name in "ab")
        assert (await asked(alice, "set", one)).get("type") == "result"
        assert refusal(await asked(alice, "set", two)) == "wait resource-constraint"
        assert (await asked(alice, "set", one)).get("type") == "result"
        long = f"<note xmlns='{NS}' jid='{BOB}'>{'x' * 501}</note>"
        await call(world, "friend befriend", one=ALICE, other=BOB)
        assert refusal(await asked(alice, "set", long)) == "modify not-acceptable"


@pytest.mark.asyncio
async def test_who_played_together_lately() -> None:
    async with world_of(recent=2, recent_days=1) as world:
        alice = await world.login("alice")
        await world.app.accounts.create("dora@localhost", "secret")
        await call(world, "friend played", player=[ALICE, BOB], what="match 1")
        await world.advance(5)
        await call(world, "friend played", player=[ALICE, CAROL, "dora@localhost"], what="match 2")
        answer = (await asked(alice, "get", f"<recent xmlns='{NS}'/>"))[0]
        assert [(it.get("jid"), it.get("what")) for it in answer] == [
            (CAROL, "match 2"),
            ("dora@localhost", "match 2"),
        ]
        assert len((await world.plugin("friends").met.scan(ALICE)).rows) == 2
        world.clock.seconds += DAY
        assert len((await asked(alice, "get", f"<recent xmlns='{NS}'/>"))[0]) == 0
        with pytest.raises(CommandError, match="2 to 100"):
            await call(world, "friend played", player=[ALICE])


# accounts that go


@pytest.mark.asyncio
async def test_whoever_has_the_name_next_has_no_friends() -> None:
    async with world_of() as world:
        alice, bob = await two(world)
        await call(world, "friend befriend", one=ALICE, other=BOB)
        await act(alice, "request", CAROL)
        await call(world, "friend played", player=[ALICE, BOB])
        await call(world, "user remove", account=ALICE)
        assert await world.plugin("friends").recent_of(BOB) == []
        assert await friends_in(bob) == {}
        await world.app.accounts.create(ALICE, "secret")
        assert await friends_in(await world.login("alice")) == {}
        assert await call(world, "friend check", player=BOB) == []
        assert await act(bob, "request", ALICE) == "asking"


@pytest.mark.asyncio
@pytest.mark.parametrize("is_renamed", [False, True])
async def test_who_asked_for_the_list_is_told_of_accounts_that_go(is_renamed: bool) -> None:
    async with world_of() as world:
        alice, _bob = await two(world)
        assert await friends_in(alice) == {}
        await call(world, "friend befriend", one=ALICE, other=BOB)
        await call(world, "friend request", one=CAROL, other=ALICE)
        await world.settle()
        await alice.receive_all()
        for account, new in ((BOB, "rob@localhost"), (CAROL, "karol@localhost")):
            if is_renamed:
                await call(world, "account rename", old=account, new=new)
            else:
                await call(world, "user remove", account=account)
        await world.settle()
        found = [friend for it in await alice.receive_all() for friend in it.iter(f"{{{NS}}}friend")]
        told = {friend.get("jid"): friend.get("state") for friend in found}
        gone = {BOB: "none", CAROL: "none"}
        followed = {"rob@localhost": "friend", "karol@localhost": "asked"}
        assert told == (gone | followed if is_renamed else gone)


@pytest.mark.asyncio
@pytest.mark.parametrize("new", ["aaron@localhost", "zoe@localhost"])
async def test_friends_follow_who_is_renamed(new: str) -> None:
    async with world_of() as world:
        await two(world)
        await call(world, "friend befriend", one=BOB, other=ALICE)
        await call(world, "friend request", one=BOB, other=CAROL)
        await call(world, "account rename", old=BOB, new=new)
        await world.settle()
        assert await halves(world, ALICE, new) == ("both", "both")
        assert await world.plugin("friends").are_friends(ALICE, new)
        assert await call(world, "friend check", player=new) == []
        assert await call(world, "friend accept", one=CAROL, other=new) == {
            "account": CAROL,
            "friend": new,
            "state": "friend",
        }
        assert [row["friend"] for row in await call(world, "friend list", player=CAROL)] == [new]


@pytest.mark.asyncio
@pytest.mark.parametrize("is_blocked", [False, True])
async def test_what_was_done_in_the_moment_of_a_renaming_is_finished(is_blocked: bool) -> None:
    async with world_of("blocking") as world:
        new, server = "zoe@localhost", world.app.server
        await call(world, "friend befriend", one=BOB, other=ALICE)
        await call(world, "account rename", old=BOB, new=new)
        await world.settle()
        await server.rosters.part(ALICE, new)
        if is_blocked:
            await server.blocks.block(ALICE, [new])
        await world.advance(400)
        end = "none" if is_blocked else "both"
        assert await halves(world, ALICE, new) == (end, end)
        assert await world.plugin("friends").are_friends(ALICE, new) != is_blocked
