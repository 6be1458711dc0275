"""What several nodes, sessions and back ends say at once ends in one state, whatever comes first: on every
node, and as the store has it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mortal import dawdle

from plugins.game.moderation.rates import Rates, Rule
from xmppd.errors import CommandError, StanzaError
from xmppd.testing import Client, World

RICH, EVENTS, INVITES = "urn:xmppd:rich-presence:0", "urn:xmppd:game-events:0", "urn:xmppd:invites:0"
ALICE, BOB = "alice@localhost", "bob@localhost"
NODES = 3
TEXT = {"type": "string"}
ELO = {"type": "integer", "by": "server"}
GAMES = {
    name: {
        "name": name,
        "status": f"{name} {{mode}} {{elo}}",
        "says": {"properties": {"mode": TEXT, "elo": ELO}},
    }
    for name in ("go", "chess")
}
UNHURRIED = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


async def call(world: World, command: str, node: int = 0, **arguments: Any) -> Any:
    return await world.apps[node].commands.call(command, arguments)


async def at_once(world: World, deeds: Sequence[Any]) -> None:
    """All of it, each of them slowly."""
    for done in await asyncio.gather(*deeds, return_exceptions=True):
        if isinstance(done, BaseException) and not isinstance(done, CommandError | StanzaError):
            raise done
    for _ in range(5):
        await world.settle()


# rich presence


def shown(stanzas: Sequence[Element]) -> dict[str, Any]:
    """What presences show, by resource: the status, and each game with what is said of it."""
    found: dict[str, Any] = {}
    for it in stanzas:
        if not it.tag.endswith("}presence") or it.get("type") is not None:
            continue
        games = {
            game.get("id"): (game.findtext(f"{{{RICH}}}state"), game.findtext(f"{{{RICH}}}sure"))
            for game in it.iter(f"{{{RICH}}}game")
        }
        found[it.get("from", "")] = it.findtext("{jabber:client}status"), games
    return found


async def said(client: Client, game: str, mode: str) -> None:
    state = f'<state>{{"mode": "{mode}"}}</state>' if mode else ""
    await client.send(f"<iq type='set' id='s'><game xmlns='{RICH}' id='{game}'>{state}</game></iq>")


async def seen_after(updates: Sequence[tuple[str, str, str]], dawdles: int = 0) -> list[dict[str, Any]]:
    """What a friend on each node sees after updates: of what a session says of a game, or the back end."""
    config = {"rich_presence": {"games": GAMES, "window": 0.0, "changes_per_minute": 10_000}}
    async with World(plugins=("rich_presence",), plugin_config=config, nodes=NODES) as world:
        viewers = [await world.login("bob", f"v{node}", node=node) for node in range(NODES)]
        sessions = {
            name: await world.login("alice", name, node=node) for node, name in enumerate(("pc", "tv"))
        }
        await world.befriend(sessions["pc"], viewers[0])
        for place, (who, game, value) in enumerate(updates):
            if who in sessions:
                await said(sessions[who], game, value)
            else:
                fields = f'{{"elo": {value}}}' if value else "{}"
                await call(world, "game set", place % NODES, account=ALICE, game=game, fields=fields)
                await world.settle()
        found = []
        for viewer in viewers:
            await viewer.receive_all()
            await viewer.send(f"<presence type='probe' to='{ALICE}'/>")
            found.append(shown(await viewer.receive_all()))
        return found


@st.composite
def interleaved(draw: Any) -> tuple[list[Any], list[Any]]:
    """The same updates in two orders; what one source says keeps its own."""
    sources = {
        "pc": st.lists(
            st.tuples(st.just("pc"), st.sampled_from(list(GAMES)), st.sampled_from(("a", "b", ""))),
            max_size=3,
        ),
        "tv": st.lists(
            st.tuples(st.just("tv"), st.sampled_from(list(GAMES)), st.sampled_from(("a", ""))), max_size=2
        ),
        "go": st.lists(
            st.tuples(st.just("sure"), st.just("go"), st.sampled_from(("1", "2", ""))), max_size=2
        ),
        "chess": st.lists(
            st.tuples(st.just("sure"), st.just("chess"), st.sampled_from(("1", ""))), max_size=2
        ),
    }
    lines = [draw(it) for it in sources.values()]
    orders = []
    for _ in range(2):
        marks = draw(st.permutations([place for place, line in enumerate(lines) for _ in line]))
        left = [iter(line) for line in lines]
        orders.append([next(left[place]) for place in marks])
    return orders[0], orders[1]


@pytest.mark.own_engine
@UNHURRIED
@given(orders=interleaved())
def test_parts_of_games_and_sessions_are_joined_in_any_order(orders: tuple[list[Any], list[Any]]) -> None:
    async def play() -> None:
        one, other = [await seen_after(order) for order in orders]
        assert one == other
        assert one[0] == one[1] == one[2]

    asyncio.run(play())


@pytest.mark.own_engine
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(4))
async def test_what_back_ends_say_at_once_is_the_same_on_all_nodes(seed: int) -> None:
    chance = random.Random(seed)
    async with World(
        plugins=("rich_presence",), plugin_config={"rich_presence": {"games": GAMES}}, nodes=NODES
    ) as world:
        dawdle(world, chance)
        for _ in range(4):
            sets = [
                call(
                    world,
                    "game set",
                    node,
                    account=ALICE,
                    game="go",
                    fields=f'{{"elo": {chance.randrange(99)}}}',
                )
                for node in range(NODES)
            ]
            await at_once(world, sets)
            plugins = world.plugins("rich_presence")
            row = await plugins[0].sure.get(ALICE, "go")
            known = [plugin._sure.get((ALICE, "go")) for plugin in plugins]
            assert {it.fields for it in known} == {row["fields"]}


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_what_the_back_end_said_of_another_game_stays_when_nodes_have_met() -> None:
    config = {"rich_presence": {"games": GAMES, "window": 0.0}}
    async with World(plugins=("rich_presence",), plugin_config=config, nodes=2) as world:
        alice = await world.login("alice", "pc", node=0)
        await said(alice, "go", "a")
        await said(alice, "chess", "a")
        await call(world, "game set", account=ALICE, game="go", fields='{"elo": 5}')
        await world.settle()
        for plugin in world.plugins("rich_presence"):
            plugin.doubt("node1:5270")
        await alice.receive_all()
        await said(alice, "chess", "b")
        _, games = shown(await alice.receive_all())[alice.jid]
        assert '"elo":5' in (games["go"][1] or "")


# who hides


@pytest.mark.own_engine
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(6))
async def test_from_whom_one_hides_is_the_same_on_all_nodes(seed: int) -> None:
    chance = random.Random(seed)
    async with World(plugins=("rich_presence",), nodes=NODES) as world:
        there = [await world.login("alice", f"r{node}", node=node) for node in range(NODES)]
        bob = await world.login("bob")
        await world.befriend(there[0], bob)
        dawdle(world, chance)
        kinds: list[dict[str, Any]] = [{}, {"all": True}, {"friend": [BOB]}, {"group": ["school"]}]
        for _ in range(4):
            deeds = [
                call(world, "presence hide", node, account=ALICE, **chance.choice(kinds))
                for node in range(NODES)
            ]
            await at_once(world, deeds)
            plugins = world.plugins("rich_presence")
            hidden = {row["to"] for row in await call(world, "presence hidden", account=ALICE)}
            is_hidden = bool({"all", "friend"} & hidden)
            for app, plugin in zip(world.apps, plugins, strict=True):
                assert app.server.appears_offline(ALICE, BOB) == is_hidden, (hidden, plugin.away)
            assert len({repr(plugin.away) for plugin in plugins}) == 1


# sanctions


@pytest.mark.own_engine
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(6))
async def test_sanctions_of_several_moderators_hold_on_all_nodes(seed: int) -> None:
    chance = random.Random(seed)
    async with World(plugins=("moderation",), nodes=NODES) as world:
        for node in range(NODES):
            await world.login("alice", f"r{node}", node=node)
        dawdle(world, chance)
        for _ in range(4):
            rows = await call(world, "moderation sanctions", account=ALICE)
            deeds = [
                call(world, "moderation lift", chance.randrange(NODES), account=ALICE, id=it["id"])
                for it in rows[:2]
            ]
            deeds += [
                call(
                    world,
                    "moderation sanction",
                    node,
                    account=ALICE,
                    kind=chance.choice(("mute", "chat-limit")),
                )
                for node in range(NODES)
            ]
            await at_once(world, deeds)
            held = {row["id"] for row in await call(world, "moderation sanctions", account=ALICE)}
            for plugin in world.plugins("moderation"):
                assert {it.id for it in plugin.standing.get(ALICE, ())} == held


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_sanction_is_not_forgotten_by_what_is_told_late() -> None:
    async with World(plugins=("moderation",), nodes=2) as world:
        await world.login("alice", node=1)
        await call(world, "moderation sanction", account=ALICE, kind="chat-limit")
        await world.settle()
        there = world.plugin("moderation", 1)
        late = there.standing[ALICE].plain
        await call(world, "moderation sanction", account=ALICE, kind="mute")
        await world.settle()
        there.stands(ALICE, late, world.apps[0].server.node)
        for _ in range(3):
            await world.settle()
        assert there.is_sanctioned(ALICE, "mute")
        assert there.is_sanctioned(ALICE, "chat-limit")


# rates


@given(
    takes=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab")), max_size=24),
    order=st.randoms(use_true_random=False),
)
def test_what_was_taken_anywhere_counts_everywhere_in_any_order(
    takes: list[tuple[int, str]], order: random.Random
) -> None:
    """Each node hears of what others took, once, in whatever order and pieces."""

    def node() -> Rates:
        return Rates({"message": Rule(1.0, 30, 1.0)}, lambda: 0.0, lambda: True)

    nodes = [node() for _ in range(3)]
    waiting: list[tuple[int, dict[str, int]]] = []
    for place, who in takes:
        assert nodes[place].take("message", who, is_told=True) == 0.0
        if order.random() < 0.4:
            news = nodes[place].said()
            waiting += [(other, news) for other in range(3) if other != place]
        if waiting and order.random() < 0.5:
            other, news = waiting.pop(order.randrange(len(waiting)))
            nodes[other].heard(news)
    for place, it in enumerate(nodes):
        waiting += [(other, it.said()) for other in range(3) if other != place][:1]
        last = waiting[-1][1] if waiting else {}
        waiting += [(other, last) for other in range(3) if other != place][1:]
    order.shuffle(waiting)
    for other, news in waiting:
        nodes[other].heard(news)
    for who in "ab":
        count = sum(1 for _, name in takes if name == who)
        left = [sum(1 for _ in range(40) if it.take("message", who) == 0.0) for it in nodes]
        assert left == [30 - count] * 3


# events, invites and names


@pytest.mark.own_engine
@UNHURRIED
@given(
    pushes=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 9)), min_size=1, max_size=9
    ),
    seed=st.integers(0, 99),
)
def test_the_last_version_wins_in_any_order(pushes: list[tuple[int, str, int]], seed: int) -> None:
    async def play() -> None:
        async with World(plugins=("game_events",), nodes=NODES) as world:
            clients = [await world.bind("alice", f"r{node}", node=node) for node in range(NODES)]
            for client in clients:
                await client.ask("set", f"<enable xmlns='{EVENTS}'/>")
            dawdle(world, random.Random(seed), 4)
            deeds = [
                call(world, "game-events push", node, resource=what, version=version, to=[ALICE])
                for node, what, version in pushes
            ]
            await at_once(world, deeds)
            best = {what: max(it for _, one, it in pushes if one == what) for _, what, _ in pushes}
            for client in clients:
                told: dict[str, list[int]] = {}
                for stanza in await client.receive_all():
                    for event in stanza.iter(f"{{{EVENTS}}}event"):
                        told.setdefault(event.get("resource", ""), []).append(int(event.get("version", "")))
                assert all(seen == sorted(set(seen)) for seen in told.values())
                assert {what: seen[-1] for what, seen in told.items()} == best
            for node in range(NODES):
                rows = await call(world, "game-events show", node, account=ALICE)
                assert {row["resource"]: row["version"] for row in rows} == best

    asyncio.run(play())


@pytest.mark.own_engine
@UNHURRIED
@given(
    answers=st.lists(
        st.tuples(st.sampled_from(("accept", "decline", "cancel")), st.integers(0, 2)), min_size=1, max_size=5
    ),
    seed=st.integers(0, 99),
)
def test_an_invite_comes_to_one_end_on_all_nodes(answers: list[tuple[str, int]], seed: int) -> None:
    async def play() -> None:
        config = {"invites": {"message": "", "senders": "anybody"}}
        async with World(plugins=("invites",), plugin_config=config, nodes=NODES) as world:
            mine = [await world.login("alice", f"a{node}", node=node) for node in range(NODES)]
            theirs = [await world.login("bob", f"b{node}", node=node) for node in range(NODES)]
            for client in (*mine, *theirs):
                await client.ask("get", f"<invites xmlns='{INVITES}'/>")
            invite = f"<invite xmlns='{INVITES}' to='{BOB}' kind='match' target='m' seconds='60'/>"
            await mine[0].send(f"<iq type='set' id='i'>{invite}</iq>")
            id = (await call(world, "invite list", account=BOB))[0]["id"]
            dawdle(world, random.Random(seed))
            for number, (what, node) in enumerate(answers):
                client = (mine if what == "cancel" else theirs)[node]
                client.write(f"<iq type='set' id='w{number}'><{what} xmlns='{INVITES}' id='{id}'/></iq>")
            for _ in range(60):
                await world.settle()
            ends = set()
            for client in (*mine, *theirs):
                pushed = [it[0].get("state") for it in await client.receive_all() if it.get("type") == "set"]
                ends.add(tuple(it for it in pushed if it != "pending"))
            assert len(ends) == 1 and len(next(iter(ends))) == 1, ends
            states = [
                (await call(world, "invite list", node, account=who))[0]["state"]
                for node in range(NODES)
                for who in (ALICE, BOB)
            ]
            assert set(states) == set(next(iter(ends)))

    asyncio.run(play())


@pytest.mark.own_engine
@UNHURRIED
@given(
    order=st.permutations(
        [(name, what) for name in ("alice", "bob", "carol") for what in ("name", "steam", "psn")]
    ),
    seed=st.integers(0, 99),
)
def test_names_and_platforms_are_given_in_any_order(order: list[tuple[str, str]], seed: int) -> None:
    async def play() -> None:
        async with World(plugins=("players",), nodes=NODES) as world:
            dawdle(world, random.Random(seed))
            deeds = []
            for place, (name, what) in enumerate(order):
                account, node = f"{name}@localhost", place % NODES
                if what == "name":
                    deeds.append(call(world, "player rename", node, account=account, name=f"{name}#EUW"))
                else:
                    deeds.append(call(world, "player link", node, account=account, platform=what, id=name))
            await at_once(world, deeds)
            for plugin in world.plugins("players"):
                for name in ("alice", "bob", "carol"):
                    account = f"{name}@localhost"
                    assert await plugin.account_of(f"{name.upper()}#euw") == account
                    assert await plugin.links_of(account) == {"steam": name, "psn": name}
                    assert await plugin.accounts_on("steam", [name]) == {name: account}

    asyncio.run(play())
