"""Announcements to a part of all, at a pace: preview, list, cancel, reload, and who is not online."""

from pathlib import Path
from typing import Any

import pytest
from sasl2 import BIND, PHONE, agent, opened, scram
from several import bodies
from stores import new_store

from xmppd.errors import CommandError, StoreError
from xmppd.testing import World

NAMES = ("alice", "bob", "carol", "dave", "erin")
ADDRESSES = [f"{name}@localhost" for name in NAMES]


async def send(world: World, text: str = "tea", **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = await world.app.commands.call("announce send", {"text": text, **options})
    return found


async def listed(world: World) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await world.app.commands.call("announce list", {})
    return rows


async def ended(world: World) -> dict[str, Any]:
    """The row of the only announcement, when it is over: time goes on until then."""
    for _ in range(60):
        [row] = await listed(world)
        if row["state"] not in ("running", "interrupted"):
            return row
        await world.advance(1)
    raise AssertionError(row)


def counted(preview: dict[str, Any]) -> dict[str, int]:
    """How many receivers were counted on all nodes, one or several, and offline."""
    found: dict[str, int] = {}
    for line in preview["nodes"]:
        where, count = line.rsplit(": ", 1)
        kind = where if where == "offline" else "nodes"
        found[kind] = found.get(kind, 0) + int(count)
    return found


async def heard(world: World) -> dict[str, list[str]]:
    """What each client was told, by user and resource."""
    return {client.jid.replace("@localhost", ""): await bodies(client) for client in world.clients}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "who"),
    [
        ({"prefix": ["a", "bo"]}, {"alice", "bob"}),
        ({"client": ["phone"]}, {"alice", "carol"}),
        ({"client": ["phone"], "prefix": ["c"]}, {"carol"}),
        ({"account": ["bob@localhost", "CAROL@localhost", "dave@localhost"]}, {"bob", "carol"}),
        ({"accounts": "bob@localhost\n\nbob@localhost\n"}, {"bob"}),
        ({"domain": ["localhost"]}, {"alice", "bob", "carol"}),
        ({"type": "chat"}, {"alice", "bob", "carol"}),
    ],
)
async def test_only_some_are_told(options: dict[str, Any], who: set[str]) -> None:
    async with World(plugins=("announce",), accounts=NAMES) as world:
        for name, resource in (("alice", "phone.1"), ("bob", "desk"), ("carol", "phone.2")):
            await world.login(name, resource)
        await heard(world)
        preview = await send(world, preview=True, **options)
        assert preview["receivers"] == len(who) and preview["complete"]
        assert preview["examples"] == sorted(f"{name}@localhost" for name in who)
        assert counted(preview) == {"nodes": len(who)}
        assert not any((await heard(world)).values())
        begun = await send(world, **options)
        row = await ended(world)
        assert {name.split("/")[0] for name, texts in (await heard(world)).items() if texts == ["tea"]} == who
        assert (row["id"], row["state"], row["sent"]) == (begun["id"], "done", len(who))
        assert row["told"] == row["receivers"] == begun["receivers"]


CAPS = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://arena.example/{}' ver='x'/>"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("client", "who"),
    [
        (["ARENA.example/win"], {"alice", "bob"}),
        (["monal"], {"carol"}),
        (["pocket", "/mac"], {"carol", "dave"}),
        (["resource-7"], {"bob"}),
        (["https://arena"], {"alice", "bob", "dave"}),
        (["nobody's"], set()),
    ],
)
async def test_clients_are_known_by_the_names_of_their_software(client: list[str], who: set[str]) -> None:
    async with World(plugins=("announce",), accounts=NAMES) as world:
        for number, (name, node) in enumerate((("alice", "win"), ("bob", "win"), ("dave", "mac"))):
            one = await world.bind(name, f"resource-{number + 6}", node=number % len(world.apps))
            await one.send(f"<presence>{CAPS.format(node)}</presence>")
        carol = await opened(world)
        await scram(carol, "carol", agent(PHONE, "Monal", "Pocket &amp; Co") + BIND)
        await carol.send("<presence/>")
        silent = await world.bind("erin", "resource-7-too")  # it is not available
        await world.settle()
        await heard(world)
        preview = await send(world, preview=True, client=client)
        assert set(preview["examples"]) == {f"{name}@localhost" for name in who}
        accounts = [f"{name}@localhost" for name in ("alice", "carol", "erin")]
        some = await send(world, preview=True, client=client, account=accounts)
        assert {it.partition("@")[0] for it in some["examples"]} == who & {"alice", "carol"}
        await send(world, client=client)
        assert (await ended(world))["state"] == "done"
        assert {it.split("/")[0] for it, texts in (await heard(world)).items() if texts == ["tea"]} == who
        await silent.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"domain": ["elsewhere"]}, "elsewhere is not a domain of this server"),
        ({"account": ["bob@elsewhere"]}, "account 1: bob@elsewhere is no account of this server"),
        ({"accounts": "alice@localhost\nbob@localhost/desk"}, "account 2: .* is no account"),
        ({"accounts": "alice@localhost\n@"}, "account 2: '@' is no address"),
        ({"accounts": "\n"}, "no account is named"),
        ({"accounts": "\n".join(f"a{n}@localhost" for n in range(10_001))}, "at most 10000"),
        ({"node": ["nowhere"]}, "no node nowhere"),
        ({"all": True, "client": ["phone"]}, "leave out --all"),
        ({"all": True, "type": "headline"}, "kept for nobody"),
        ({"type": "groupchat"}, "type must be one of"),
        ({"pace": 0}, "pace must be 1 to 10000"),
        ({"prefix": [""]}, "must not be empty"),
        ({"subject": "bell \x07"}, "control characters"),
        ({"text": "x" * 10_001, "pace": 5}, "at most 10000 characters"),
    ],
)
async def test_what_is_refused(options: dict[str, Any], why: str) -> None:
    async with World(plugins=("announce",)) as world:
        alice = await world.login("alice")
        with pytest.raises(CommandError, match=why):
            await send(world, **options)
        await alice.expect_nothing()
        assert await listed(world) == []


@pytest.mark.asyncio
async def test_who_is_not_online_gets_it_later() -> None:
    async with World(plugins=("announce", "offline"), accounts=NAMES) as world:
        alice = await world.login("alice")
        preview = await send(world, all=True, preview=True)
        assert (preview["receivers"], counted(preview)) == (5, {"nodes": 1, "offline": 4})
        begun = await send(world, all=True, subject="News", prefix=["a", "b", "c"])
        assert begun["receivers"] is None
        row = await ended(world)
        assert (row["state"], row["told"], row["sent"], row["refused"]) == ("done", 3, 3, 0)
        own = f"id='{begun['id']}' type='normal' from='localhost' to='alice@localhost'"
        await alice.expect(f"<message {own}><subject>News</subject><body>tea</body></message>")
        for name, texts in (("carol", ["tea"]), ("dave", [])):
            late = await world.bind(name)
            await late.send("<presence/>")
            assert await bodies(late) == texts


@pytest.mark.asyncio
async def test_accounts_that_are_named_and_are_not_there_are_refused() -> None:
    async with World(plugins=("announce", "offline")) as world:
        named = ["bob@localhost", "nobody@localhost"]
        assert (await send(world, account=named, all=True))["receivers"] == 2
        row = await ended(world)
        assert (row["state"], row["told"], row["sent"], row["refused"]) == ("done", 2, 1, 1)
        assert [row async for row in world.plugin("announce").receivers.everything()] == []


@pytest.mark.asyncio
async def test_a_pace_is_kept_and_a_cancelled_one_ends() -> None:
    async with World(plugins=("announce",), accounts=NAMES) as world:
        for name in NAMES:
            await world.login(name)
        await heard(world)
        begun = await send(world, pace=1)
        assert begun["receivers"] == 5
        await world.settle()
        told = 0
        for second in range(1, 4):
            told += sum(texts == ["tea"] for texts in (await heard(world)).values())
            assert told <= second
            await world.advance(1)
        assert told > 0
        [row] = await listed(world)
        assert (row["state"], row["receivers"], row["pace"]) == ("running", 5, 1)
        assert (await world.app.commands.call("announce cancel", {"id": begun["id"]}))["receivers"] == 5
        await world.settle()
        told += sum(texts == ["tea"] for texts in (await heard(world)).values())
        await world.advance(20)
        assert not any((await heard(world)).values())
        [row] = await listed(world)
        assert (row["state"], row["told"], row["sent"]) == ("cancelled", told, told) and told < 5
        with pytest.raises(CommandError, match="is cancelled"):
            await world.app.commands.call("announce cancel", {"id": begun["id"]})


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [1, 4], ids=["in the middle", "when all are told"])
async def test_one_that_is_cancelled_unheard_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    async with World(plugins=("announce",), accounts=NAMES) as world:
        for name in NAMES:
            await world.login(name)
        begun = await send(world, pace=1)
        await world.advance(seconds)
        for crier in world.plugin("announce").criers.values():
            monkeypatch.setattr(crier, "cancel", lambda: None)
        await world.app.commands.call("announce cancel", {"id": begun["id"]})
        await world.advance(10)
        [row] = await listed(world)
        told = sum(texts == ["tea"] for texts in (await heard(world)).values())
        assert (row["state"], row["told"], row["sent"]) == ("cancelled", told, told)
        assert told <= seconds + 2


@pytest.mark.asyncio
async def test_a_preview_looks_at_so_many_accounts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("announce",), accounts=NAMES) as world:
        module = type(world.plugin("announce"))._preview.__globals__
        monkeypatch.setitem(module, "MOST_COUNTED", 2)
        monkeypatch.setitem(module, "SLICE", 1)
        found = await send(world, all=True, prefix=["nobody"], preview=True)
        assert (found["receivers"], found["complete"]) == (0, False)


@pytest.mark.asyncio
async def test_there_is_none_of_that_name() -> None:
    async with World(plugins=("announce",)) as world:
        with pytest.raises(CommandError, match="there is no announcement 'x'"):
            await world.app.commands.call("announce cancel", {"id": "x"})


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [{}, {"all": True}, {"account": ADDRESSES}])
async def test_it_goes_on_over_a_reload(options: dict[str, Any]) -> None:
    async with World(plugins=("announce", "offline"), accounts=NAMES) as world:
        for name in NAMES:
            await world.login(name)
        await heard(world)
        await send(world, pace=1, **options)
        await world.advance(1)
        await world.app.loader.reload("announce", world.config)
        assert len(world.plugin("announce").criers) == 0
        row = await ended(world)
        assert list((await heard(world)).values()) == [["tea"]] * 5
        assert (row["state"], row["told"], row["sent"]) == ("done", 5, 5)


@pytest.mark.asyncio
async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "xmppd.sqlite"
    async with World(plugins=("announce", "offline"), accounts=NAMES, store=new_store(path)) as world:
        await send(world, pace=1, all=True)
        await world.advance(1)
        crier = next(iter(world.plugin("announce").criers.values()))
        crier.leave = lambda: None  # it is killed
        for task in world.plugin("announce")._tasks:
            task.cancel()
    async with World(plugins=("announce", "offline"), accounts=(), store=new_store(path)) as world:
        [row] = await listed(world)
        assert row["state"] == "interrupted"
        row = await ended(world)
        assert (row["state"], row["told"]) == ("done", 5)
        for name in NAMES:
            client = await world.bind(name)
            await client.send("<presence/>")
            assert set(await bodies(client)) == {"tea"}


@pytest.mark.asyncio
async def test_a_store_that_cannot_keep_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("announce", "offline")) as world:
        server, asked = world.plugin("announce").server, []
        send_one = server.send

        async def failing(stanza: Any) -> None:
            asked.append(stanza.get("to"))
            if asked.count("bob@localhost") < 3 and stanza.get("to") == "bob@localhost":
                raise StoreError("it is away")
            await send_one(stanza)

        monkeypatch.setattr(server, "send", failing)
        await send(world, all=True)
        row = await ended(world)
        assert sorted(asked) == ["alice@localhost", *["bob@localhost"] * 3, "carol@localhost"]
        assert (row["state"], row["sent"], row["refused"]) == ("done", 3, 0)


@pytest.mark.asyncio
async def test_no_more_go_on_than_there_may_be_and_old_ones_are_forgotten() -> None:
    async with World(plugins=("announce",)) as world:
        await world.login("alice")
        for number in range(120):
            await send(world, f"{number}", prefix=["nobody"])
            world.clock.seconds += 0.01
            await world.settle()
        rows = await listed(world)
        assert len(rows) == 100 and rows[0]["text"] == "119"
        await world.login("bob")
        for _ in range(10):
            await send(world, pace=1)
        with pytest.raises(CommandError, match="10 announcements go on already"):
            await send(world, pace=1)
