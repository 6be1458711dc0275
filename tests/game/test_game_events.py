"""Events of a game's back ends (`urn:xmppd:game-events:0`)."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from managing import enable as manage
from managing import managed, resume
from sasl2 import BIND, login, opened

from xmppd.errors import CommandError, StoreUnavailable
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Prepared
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

NS = "urn:xmppd:game-events:0"
EVENT = f"{{{NS}}}event"
TOKEN = "a" * 32
SUM = "3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547"
HTTP = {"http": {"tokens": [{"name": "backend", "sha256": SUM, "scopes": ["game-events:push"]}]}}


@asynccontextmanager
async def game(nodes: int = 0, **config: Any) -> AsyncIterator[World]:
    more: dict[str, Any] = {"nodes": nodes} if nodes else {}
    world = World(
        plugins=("game_events",),
        plugin_config={"game_events": config},
        settings=HTTP,
        **more,
    )
    async with world:
        yield world


async def push(world: World, resource: str, version: int, node: int = 0, **more: Any) -> dict[str, Any]:
    arguments = {"resource": resource, "version": version, **more}
    if not {"to", "group", "players"} & more.keys():
        arguments["to"] = ["alice@localhost"]
    result = await world.apps[node].commands.call("game-events push", arguments)
    await world.settle()
    return dict(result)


async def enabled(world: World, user: str = "alice", have: str = "", **where: Any) -> Client:
    client = await world.bind(user, **where)
    await enable(client, have)
    return client


async def enable(client: Client, have: str = "") -> None:
    answer = await client.ask("set", f"<enable xmlns='{NS}'>{have}</enable>")
    assert answer.get("type") == "result"


async def events(client: Client) -> list[tuple[str, int, str]]:
    """What a client was told since it was asked last."""
    found = []
    for stanza in await client.receive_all():
        assert stanza.get("type") == "headline"
        assert stanza.get("from") == "localhost"
        for event in stanza.iterfind(EVENT):
            version = int(event.get("version", ""))
            found.append((event.get("resource", ""), version, event.text or ""))
    return found


async def test_an_event_reaches_who_wants_it_and_nobody_else() -> None:
    async with game() as world:
        alice = await enabled(world)
        plain, bob = await world.login("alice", "plain"), await enabled(world, "bob")
        outcome = await push(world, "store/offers", 7, payload='{"sale": "<50%>"}')
        assert await events(alice) == [("store/offers", 7, '{"sale": "<50%>"}')]
        assert await plain.receive_all() == await bob.receive_all() == []
        assert outcome == {
            "recipients": 1, "unknown": 0, "kept": 1, "stale": 0, "reached": 1, "sessions": 1, "silent": [],
        }  # fmt: skip


async def test_a_version_is_told_once_and_an_older_one_never() -> None:
    async with game() as world:
        alice = await enabled(world)
        assert (await push(world, "wallet", 5))["stale"] == 0
        again = await push(world, "wallet", 5)
        assert (again["reached"], again["sessions"]) == (1, 0)
        older = await push(world, "wallet", 4)
        assert (older["stale"], older["kept"], older["reached"]) == (1, 0, 0)
        await push(world, "bag", 1)
        assert await events(alice) == [("wallet", 5, ""), ("bag", 1, "")]


async def test_the_last_version_is_shown_at_the_next_login() -> None:
    async with game() as world:
        for version in (1, 3, 2):
            await push(world, "wallet", version, payload=str(version))
        await push(world, "bag", 9)
        alice = await enabled(world)
        assert sorted(await events(alice)) == [("bag", 9, ""), ("wallet", 3, "3")]
        await alice.drop()
        alice = await enabled(world, have="<have resource='wallet' version='3'/>")
        assert await events(alice) == [("bag", 9, "")]


@pytest.mark.own_engine
async def test_it_is_not_kept_for_ever() -> None:
    async with game(keep_hours=1) as world:
        await push(world, "wallet", 3)
        await world.advance(3601)
        assert await events(await enabled(world)) == []


async def test_the_oldest_are_left_out_where_there_are_too_many() -> None:
    async with game(resources=2) as world:
        for number in range(3):
            await push(world, f"r{number}", 1)
            await world.advance(1)
        assert await events(await enabled(world)) == [("r1", 1, ""), ("r2", 1, "")]


async def test_many_are_told_in_pieces() -> None:
    async with game() as world:
        for number in range(5):
            await push(world, f"r{number}", 1, payload="x" * 3000)
        alice = await enabled(world)
        stanzas = await alice.receive_all()
        assert [len(stanza.findall(EVENT)) for stanza in stanzas] == [2, 2, 1]


async def test_what_is_transient_is_for_who_is_there() -> None:
    async with game() as world:
        alice = await enabled(world)
        outcome = await push(world, "ping", 1, transient=True, to=["alice@localhost", "nobody@localhost"])
        assert (outcome["kept"], outcome["reached"], outcome["recipients"]) == (0, 1, 2)
        assert await events(alice) == [("ping", 1, "")]
        assert await events(await enabled(world)) == []


async def test_who_wants_none_any_more_is_told_none() -> None:
    async with game() as world:
        alice = await enabled(world)
        assert (await alice.ask("set", f"<disable xmlns='{NS}'/>")).get("type") == "result"
        assert (await push(world, "wallet", 1))["reached"] == 0
        assert await events(alice) == []
        await enable(alice)
        assert await events(alice) == [("wallet", 1, "")]


@pytest.mark.parametrize(
    ("inner", "condition"),
    [
        ("<have/>", "bad-request"),
        ("<have resource='a b' version='1'/>", "bad-request"),
        ("<have resource='a' version='-1'/>", "bad-request"),
        ("<have resource='a' version='1.0'/>", "bad-request"),
        ("<have resource='a' version='99999999999999999999'/>", "bad-request"),
        ("<have resource='a' version='9223372036854775808'/>", "bad-request"),
        ("<have resource='a' version='1'/>" * 257, "policy-violation"),
    ],
)
async def test_what_a_client_may_not_say(inner: str, condition: str) -> None:
    async with game() as world:
        alice = await world.bind("alice")
        answer = await alice.ask("set", f"<enable xmlns='{NS}'>{inner}</enable>")
        assert refusal(answer) == f"modify {condition}"
        assert (await push(world, "wallet", 1))["reached"] == 0


async def test_nobody_enables_them_for_somebody_else() -> None:
    async with game() as world:
        alice, bob = await world.bind("alice"), await world.login("bob")
        answer = await alice.ask("set", f"<enable xmlns='{NS}'/>", to="bob@localhost")
        assert answer.get("type") == "error"
        await push(world, "wallet", 1, to=["bob@localhost"])
        assert await events(bob) == []


async def test_together_with_the_resource() -> None:
    async with game() as world:
        await push(world, "wallet", 4)
        client = await opened(world)
        inner = BIND.replace("/>", f"><enable xmlns='{NS}'/></bind>")
        await login(client, "alice", inner)
        await world.settle()
        assert await events(client) == [("wallet", 4, "")]


async def test_a_session_that_waits_for_its_client_has_them_when_it_returns() -> None:
    async with game(nodes=1) as world:
        alice, id = await managed(world, "alice", "phone")
        await enable(alice)
        await alice.drop()
        await push(world, "wallet", 1)
        again = await resume(world, alice, id, 1)
        found = [one for one in await again.receive_all() if one.find(EVENT) is not None]
        assert len(found) == 1


# several nodes


async def test_a_player_on_another_node_is_reached() -> None:
    async with game(nodes=3) as world:
        here, there = await enabled(world, node=0), await enabled(world, "bob", node=1)
        outcome = await push(world, "match", 1, to=["alice@localhost", "bob@localhost", "carol@localhost"])
        assert await events(here) == await events(there) == [("match", 1, "")]
        assert (outcome["reached"], outcome["sessions"], outcome["kept"]) == (2, 2, 3)
        assert outcome["silent"] == []


async def test_no_node_lets_an_older_version_overtake() -> None:
    async with game(nodes=2) as world:
        alice = await enabled(world, node=0)
        await asyncio.gather(*(push(world, "wallet", version, node=version % 2) for version in range(40)))
        told = [version for _, version, _ in await events(alice)]
        assert told == sorted(set(told))
        assert told[-1] == 39
        for node in range(2):
            await push(world, "wallet", 5, node=node)
            assert [version for _, version, _ in await events(await enabled(world, node=node))] == [39]


async def test_a_node_that_is_silent_is_named() -> None:
    async with game(nodes=2) as world:
        await enabled(world, node=1)
        world.cut(0, 1)
        call = {"resource": "wallet", "version": 1, "to": ["alice@localhost"]}
        pushing = asyncio.create_task(world.app.commands.call("game-events push", call))
        while not world.plugin("game_events").pushes.waits_for:
            await world.settle()  # the store takes its own time, in which no node may be given up
        await world.advance(3)
        outcome = await pushing
        assert (outcome["reached"], outcome["silent"]) == (0, ["node1:5270"])


async def test_who_was_cut_off_is_shown_what_he_missed() -> None:
    async with game(nodes=2) as world:
        alice = await enabled(world, node=1)
        world.cut(0, 1)
        await world.advance(30)
        assert not world.app.server.other_nodes()
        await push(world, "wallet", 1)
        assert await events(alice) == []
        world.connect_nodes(0, 1, trunk=2)
        await world.settle()
        assert await events(alice) == [("wallet", 1, "")]


# callers


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"resource": ""}, "resource"),
        ({"resource": "a b"}, "resource"),
        ({"resource": "x" * 256}, "resource"),
        ({"resource": "a\x00"}, "resource"),
        ({"version": -1}, "version"),
        ({"version": 2**63}, "version"),
        ({"payload": "x" * 4097}, "payload"),
        ({"payload": "\x1b"}, "payload"),
        ({"to": []}, "to"),
        ({"to": ["a@b@c"]}, "to"),
        ({"to": ["alice@elsewhere"]}, "to"),
        ({"to": ["localhost"] * 10_001}, "to"),
        ({"to": [], "group": ["none"]}, "group"),
        ({"to": [], "group": ["a b"]}, "name"),
    ],
)
async def test_what_cannot_be_told(wrong: dict[str, Any], field: str) -> None:
    async with game() as world:
        with pytest.raises(CommandError) as refused:
            await push(world, **{"resource": "wallet", "version": 1, "to": ["alice"], **wrong})
        assert refused.value.field == field


async def test_by_http_once() -> None:
    async with game() as world:
        alice = await enabled(world)
        body = json.dumps({"resource": "wallet", "version": 1, "to": ["alice"]}).encode()
        headers = {"Idempotency-Key": '"one"'}
        for _ in range(2):
            response = await world.http(
                "POST", "/api/v1/game-events/push", token=TOKEN, body=body, headers=headers
            )
            assert response.status == 200, response.body
            assert json.loads(response.body)["sessions"] == 1
        assert len(await events(alice)) == 1
        assert (await world.http("POST", "/api/v1/game-events/group-add", token=TOKEN)).status == 403


async def test_too_many_at_once_are_told_to_come_later() -> None:
    async with game(rate=10.0, burst=10) as world:
        lines = "\n".join(f"p{number}" for number in range(10))
        assert (await push(world, "a", 1, players=lines))["unknown"] == 10
        with pytest.raises(CommandError, match="just now"):
            await push(world, "a", 1)
        await world.advance(1)
        await push(world, "a", 1)


async def test_nothing_is_kept_for_who_is_not_there() -> None:
    async with game() as world:
        outcome = await push(world, "wallet", 1, to=["alice", "ghost", "ghost@localhost"])
        assert (outcome["recipients"], outcome["unknown"], outcome["kept"]) == (2, 1, 1)
        rows = [row async for row in world.plugin("game_events").held.everything()]
        assert [row["account"] for row in rows] == ["alice@localhost"]


async def test_what_is_kept_goes_with_the_account() -> None:
    async with game() as world:
        await push(world, "wallet", 1)
        call = world.app.commands.call
        await call("game-events group-add", {"name": "blue", "to": ["alice", "bob"]})
        await call("user remove", {"account": "alice@localhost"})
        plugin = world.plugin("game_events")
        assert [row async for row in plugin.held.everything()] == []
        assert await call("game-events group-show", {"name": "blue"}) == [{"account": "bob@localhost"}]


async def test_a_group_follows_who_is_called_otherwise() -> None:
    async with game() as world:
        call = world.app.commands.call
        await call("game-events group-add", {"name": "blue", "to": ["alice"]})
        await push(world, "wallet", 1)
        await call("account rename", {"old": "alice@localhost", "new": "zoe@localhost"})
        await world.settle()
        assert await call("game-events group-show", {"name": "blue"}) == [{"account": "zoe@localhost"}]
        shown = await call("game-events show", {"account": "zoe@localhost"})
        assert [(row["resource"], row["version"]) for row in shown] == [("wallet", 1)]


async def test_groups() -> None:
    async with game(members=3) as world:
        call = world.app.commands.call
        added = await call("game-events group-add", {"name": "blue", "players": "alice\nbob\nghost\n"})
        assert added == {"added": 2, "unknown": 1, "members": 2}
        assert (await call("game-events group-add", {"name": "blue", "to": ["bob"]}))["added"] == 0
        alice, carol = await enabled(world), await enabled(world, "carol")
        await push(world, "match", 1, group=["blue"], to=["carol", "alice"])
        assert await events(alice) == await events(carol) == [("match", 1, "")]
        with pytest.raises(CommandError, match="at most 3"):
            await call("game-events group-add", {"name": "blue", "to": ["carol", "dan"]})
        assert await call("game-events group-remove", {"name": "blue", "to": ["bob"]}) == {
            "removed": 1,
            "members": 1,
        }
        assert (await call("game-events group-remove", {"name": "blue", "all": True}))["members"] == 0
        with pytest.raises(CommandError, match="no group blue"):
            await push(world, "match", 2, group=["blue"])


async def test_it_is_an_event_for_web_hooks() -> None:
    async with game() as world:
        heard: list[Any] = []
        plugin = world.plugin("game_events")
        world.app.events.compile([type(plugin).told.kind], [(heard.append, ["game-event.pushed"])])
        await push(world, "wallet", 1)
        assert [dict(event.data) for event in heard] == [
            {"resource": "wallet", "version": 1, "recipients": 1, "reached": 0}
        ]


async def test_a_stale_session_of_stream_management_is_told_as_a_headline() -> None:
    async with game(nodes=1) as world:
        alice = await world.login("alice", "phone")
        await manage(alice)
        await enable(alice)
        await push(world, "wallet", 1)
        await alice.drop()
        again = await world.login("alice", "desk")
        assert await again.receive_all() == []


class SlowStore(SqliteStore):
    """A store whose next write of rows waits for `gate`, and fails if that does."""

    gate: "asyncio.Future[None] | None" = None

    def write(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> "asyncio.Future[Any]":
        gate, self.gate = self.gate, None
        if gate is None:
            return super().write(rows, ttl=ttl)
        return asyncio.ensure_future(self._write_later(gate, rows, ttl))

    async def _write_later(
        self, gate: "asyncio.Future[None]", rows: Sequence[Prepared], ttl: float | None
    ) -> None:
        await gate
        await super().write(rows, ttl=ttl)


async def turns() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.own_engine
async def test_a_write_that_is_under_way_is_waited_for() -> None:
    store = SlowStore(":memory:")
    async with World(plugins=("game_events",), store=store, nodes=1) as world:
        gate = store.gate = asyncio.get_running_loop().create_future()
        first = asyncio.create_task(push(world, "wallet", 1))
        await turns()
        second = asyncio.create_task(push(world, "wallet", 2))
        other = asyncio.create_task(push(world, "bag", 1))
        await turns()
        assert not second.done(), "else the first would be written over it"
        await other
        gate.set_result(None)
        await asyncio.gather(first, second)
        assert sorted(await events(await enabled(world))) == [("bag", 1, ""), ("wallet", 2, "")]
        assert not world.plugin("game_events").busy


@pytest.mark.own_engine
async def test_what_the_store_did_not_take_is_told_nobody_and_may_be_pushed_again() -> None:
    store = SlowStore(":memory:")
    async with World(plugins=("game_events",), store=store, nodes=1) as world:
        alice = await enabled(world)
        gate = store.gate = asyncio.get_running_loop().create_future()
        gate.set_exception(StoreUnavailable("it is away"))
        with pytest.raises(CommandError, match="it is away"):
            await push(world, "wallet", 1)
        assert await events(alice) == []
        assert (await push(world, "wallet", 1))["sessions"] == 1
        assert await events(alice) == [("wallet", 1, "")]


async def join(world: World, trunk: int) -> None:
    """Have nodes meet again that have given each other up."""
    await world.advance(20)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        if world.cluster(other).mesh.name not in world.cluster(one).mesh.members:
            world.connect_nodes(one, other, trunk=trunk)
    await world.settle()


STEPS = st.tuples(
    st.integers(0, 2), st.integers(0, 5), st.sampled_from(["push", "push", "come", "cut", "join"])
)


@given(steps=st.lists(STEPS, max_size=20))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.own_engine
async def test_whatever_happens_no_session_goes_back(steps: list[tuple[int, int, str]]) -> None:
    async with game(nodes=3) as world:
        clients = [await enabled(world, node=number) for number in range(3)]
        told: list[list[int]] = [[] for _ in range(8)]
        whole, best = True, -1
        for number, (node, version, what) in enumerate([*steps, (0, 0, "join")]):
            if what == "push":
                pushing = asyncio.create_task(push(world, "wallet", version, node=node))
                while not pushing.done():
                    await world.advance(1)
                best = max(best, version)
            elif what == "come" and len(clients) < len(told):
                clients.append(await enabled(world, node=node))
            elif what == "cut" and whole:
                whole = False
                world.cut(node, (node + 1) % 3)
            elif what == "join" and not whole:
                await join(world, 10 + number)
                whole = True
            await world.settle()
            for seen, client in zip(told, clients, strict=False):
                seen += [one for _, one, _ in await events(client)]
        assert all(seen == sorted(set(seen)) for seen in told)
        assert best < 0 or all(seen[-1] == best for seen, _ in zip(told, clients, strict=False))


class Names:
    """What is asked of the plugin `players`."""

    async def account_of(self, text: str) -> str | None:
        return {"Kiva#1234": "alice@localhost"}.get(text)


async def test_a_player_by_the_name_that_people_see() -> None:
    async with game() as world:
        for plugin in world.plugins("game_events"):
            plugin.players = Names()
        alice = await enabled(world)
        await push(world, "wallet", 1, to=["Kiva#1234"])
        assert await events(alice) == [("wallet", 1, "")]
        with pytest.raises(CommandError, match="is no player"):
            await push(world, "wallet", 1, to=["Kiva#1"])
