"""What is remembered of messages that were not simply delivered, and how it is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from xmppd import ns
from xmppd.core import fates
from xmppd.core.fates import Fates
from xmppd.testing import Client, World
from xmppd.xml.stanza import read

pytestmark = pytest.mark.asyncio
ALICE, BOB, CAROL = "alice@localhost", "bob@localhost", "carol@localhost"


async def why(world: World, id: str, node: int = 0, **more: Any) -> list[dict[str, Any]]:
    await world.settle()
    return await world.apps[node].commands.call("message why-not-delivered", {"id": id, **more})


async def told(world: World, id: str, **more: Any) -> list[tuple[str, str]]:
    return [(row["fate"], row.get("rule", "")) for row in await why(world, id, **more)]


def message(to: str, id: str, more: str = "<body>very secret</body>", type: str = "chat") -> str:
    return f"<message to='{to}' type='{type}' id='{id}'>{more}</message>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.py").write_text(
        "from xmppd.hooks import DROP\nfrom xmppd.plugin import Plugin, StanzaError\n"
        "from xmppd import hooks\n\n"
        "class Rules(Plugin):\n"
        "    @hooks.message_sent\n"
        "    def check(self, session, message):\n"
        "        if b'swear' in message.raw:\n"
        "            raise StanzaError('policy-violation', 'No swearing.')\n\n"
        "    @hooks.message_sent.at(hooks.FILTER)\n"
        "    def vanish(self, session, message):\n"
        "        return DROP if b'vanish' in message.raw else message\n\n"
        "    @hooks.message_for\n"
        "    def deaf(self, account, message):\n"
        "        return DROP if b'unwanted' in message.raw else message\n"
    )
    return tmp_path


async def test_each_end_has_its_rule(folder: Path) -> None:
    plugins = ("rules", "offline", "blocking")
    async with World(nodes=1, plugins=plugins, plugin_folders=(folder,)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        block = f"<block xmlns='{ns.BLOCKING}'><item jid='{ALICE}'/></block>"
        await bob.ask("set", block)
        await alice.send(message("nobody@localhost", "m1"))
        await alice.send(message(BOB, "m2"))
        await alice.send(message(BOB, "m3", type="headline"))
        await alice.send(message(CAROL, "m4"))
        await alice.send(message(CAROL, "m5", type="headline"))
        await alice.send(message(CAROL, "m6", "<body>swear</body>"))
        await alice.send(message(CAROL, "m7", "<body>vanish</body>"))
        await alice.send(message(CAROL, "m8", "<body>unwanted</body>"))
        await alice.send(message("x@elsewhere.example", "m9"))
        await alice.send(message(f"{CAROL}/gone", "m10", type="normal"))
        assert await told(world, "m1") == [("refused", "core.messages")]
        assert (await told(world, "m2"))[0] == ("refused", "blocked")
        assert await told(world, "m3") == [("dropped", "blocked")]
        assert await told(world, "m4") == [("kept", "offline")]
        assert await told(world, "m5") == [("dropped", "rfc6121-8.5")]
        [swore] = await why(world, "m6")
        assert swore["fate"] == "refused" and swore["rule"].endswith("rules")
        assert swore["reason"] == "policy-violation: No swearing."
        assert await told(world, "m7") == [("dropped", "rules")]
        assert await told(world, "m8") == [("dropped", "rules")]
        assert (await told(world, "m9"))[0][0] == "refused"
        assert await told(world, "m10") == [("refused", "core.messages")]
        assert "secret" not in repr(world.app.messages.fates._entries)


async def test_one_that_was_delivered_is_not_known_here() -> None:
    async with World(nodes=1) as world:
        alice, _ = await world.login("alice"), await world.login("bob")
        await alice.send(message(BOB, "m1"))
        assert await told(world, "m1") == [("unknown", "")]


async def test_any_id_will_do_and_addresses_narrow_it() -> None:
    async with World(nodes=1, plugins=("offline",)) as world:
        alice = await world.login("alice")
        origin = "<origin-id xmlns='urn:xmpp:sid:0' id='o1'/><body>x</body>"
        await alice.send(message(CAROL, "m1", origin))
        for given, found in (
            ({}, "kept"),
            ({"sender": ALICE}, "kept"),
            ({"sender": alice.jid, "to": CAROL}, "kept"),
            ({"to": BOB}, "unknown"),
        ):
            for id in ("m1", "o1"):
                assert [fate for fate, _ in await told(world, id, **given)] == [found], given


async def test_an_archived_one_is_found_by_the_id_of_its_archive() -> None:
    async with World(nodes=1, plugins=("archive",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(message(BOB, "m1"))
        await world.settle()
        [came] = [it for it in await bob.receive_all() if it.tag.endswith("message")]
        stanza_id = came.find("{urn:xmpp:sid:0}stanza-id")
        assert stanza_id is not None
        found = await told(world, stanza_id.get("id", ""), to=BOB)
        assert found == [("archived", "archive"), ("unknown", "")]


async def test_what_a_client_had_not_acknowledged_is_told() -> None:
    async with World(nodes=1, plugins=("offline",)) as world:
        alice, bob = await world.login("alice"), await managed(world, "bob")
        await alice.send(message(BOB, "m1", type="headline"))
        await alice.send(message(BOB, "m2"))
        await bob.drop()
        await world.settle()
        assert await told(world, "m1") == [("dropped", "left-over")]
        assert await told(world, "m2") == [("kept", "offline")]


async def managed(world: World, name: str) -> Client:
    client = await world.login(name)
    await client.send("<enable xmlns='urn:xmpp:sm:3'/>")
    await client.receive_all()
    return client


async def test_it_forgets_by_number_bytes_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    memory = Fates(lambda: now[0])
    monkeypatch.setattr(fates, "MOST", 3)
    for number in range(5):
        now[0] += 1
        memory.note(read(message(BOB, f"m{number}").encode()), fates.DROPPED, "rule")
    assert [len(memory.of(f"m{number}", "", "")) for number in range(5)] == [0, 0, 1, 1, 1]
    assert memory.since == 1002.0
    monkeypatch.setattr(fates, "MOST_BYTES", 2 * fates.OVERHEAD)
    memory.note(read(message(BOB, "m5").encode()), fates.DROPPED, "rule")
    assert len(memory) == 1
    now[0] += fates.SECONDS + 1
    assert memory.of("m5", "", "") == [] and len(memory) == 0 and memory._bytes == 0


async def test_what_somebody_writes_cannot_make_an_entry_large() -> None:
    memory = Fates(lambda: 0.0)
    ids = "".join(f"<stanza-id xmlns='urn:xmpp:sid:0' by='x' id='{'y' * 5000}{n}'/>" for n in range(50))
    memory.note(read(message(BOB, "x" * 5000, ids).encode()), fates.DROPPED, "rule", "z" * 5000)
    assert memory._bytes < 3000


async def test_all_nodes_are_asked(redis_url: str) -> None:
    settings: Mapping[str, Any] = {"cache": {"redis": redis_url, "prefix": "test-fates"}}
    async with World(settings=settings, nodes=2, plugins=("offline",)) as world:
        alice, _ = await world.login("alice", node=1), await world.login("bob", node=0)
        await alice.send(message("nobody@localhost", "m1"))
        await alice.send(message(CAROL, "m2", type="headline"))
        for id, fate in (("m1", "refused"), ("m2", "dropped")):
            rows = await why(world, id, node=0)
            assert [(row["node"], row["fate"]) for row in rows] == [
                ("node1:5270", fate),
                ("node0:5270", "unknown"),
            ]
