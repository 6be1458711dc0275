"""Messages that are written down before they go on, in the order of their sender."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from xmppd import ns
from xmppd.core.later import MANY
from xmppd.errors import CommandError, StoreUnavailable
from xmppd.testing import Client, World, refusal

pytestmark = [pytest.mark.asyncio, pytest.mark.one_node("looks into the plugin of one node")]

RECORDER = '''
from xmppd import hooks
from xmppd.plugin import Plugin, Stanza, insert_child

class Written(hooks.Recorded):
    """One that is under way."""

    def __init__(self, message, number, all_shown):
        super().__init__(message)
        self.number = number
        self.all_shown = all_shown

    def shown(self):
        self.all_shown.append(self.number)

class Recorder(Plugin):
    """Writes down what has a body, when it is let."""

    async def start(self):
        self.under_way = []
        self.shown = []
        self.unknown = None

    @hooks.message_recorded
    def record(self, origin, message, to):
        if b"<body>" not in message.raw:
            return None
        if self.unknown is not None and not self.unknown.done():
            return self.unknown
        number = len(self.under_way) + 1
        marked = insert_child(message.raw, "message", f"<n>{number}</n>".encode())
        self.under_way.append(Written(Stanza("message", message.attrs, marked), number, self.shown))
        return self.under_way[-1]
'''
BODY = f"{{{ns.CLIENT}}}body"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recorder.py").write_text(RECORDER)
    return tmp_path


def world_with(folder: Path, *more: str) -> World:
    return World(plugins=("recorder", *more), plugin_folders=(folder,))


async def turns(world: World) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
        for client in world.clients:
            client.pump()


async def write(world: World, client: Client, *stanzas: str) -> Any:
    for stanza in stanzas:
        client.write(stanza)
    await turns(world)
    [recorder] = world.plugins("recorder")
    return recorder


def chat(to: str, text: str) -> str:
    return f"<message to='{to}' id='{text}' type='chat'><body>{text}</body></message>"


async def kinds(client: Client) -> list[str]:
    """What it was sent, by body, chat state, or name."""
    found = []
    await turns(client.world)
    for stanza in await client.receive_all():
        body = stanza.findtext(BODY)
        found.append(body or (stanza.get("id") or stanza.tag.partition("}")[2]))
    return found


async def test_it_goes_on_when_it_is_written_and_as_it_was_recorded(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        recorder = await write(world, alice, chat(bob.jid, "one"))
        await bob.expect_nothing()
        assert recorder.shown == []
        recorder.under_way[0].go_on()
        [message] = await bob.receive_all()
        assert message.findtext(f"{{{ns.CLIENT}}}n") == "1"
        assert recorder.shown == [1]


async def test_several_are_written_side_by_side_and_go_on_in_their_order(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob, carol = [await world.login(name) for name in ("alice", "bob", "carol")]
        stanzas = [chat(bob.jid, "one"), chat("carol@localhost", "two"), chat("bob@localhost", "three")]
        recorder = await write(world, alice, *stanzas)
        assert len(recorder.under_way) == 3
        recorder.under_way[2].go_on()
        recorder.under_way[1].go_on()
        await bob.expect_nothing()
        await carol.expect_nothing()
        recorder.under_way[0].go_on()
        assert await kinds(bob) == ["one", "three"] and await kinds(carol) == ["two"]
        assert recorder.shown == [1, 2, 3]


async def test_what_is_not_recorded_comes_behind_what_is(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        state = f"<message to='{bob.jid}' id='state' type='chat'><active xmlns='{ns.CHAT_STATES}'/></message>"
        presence = f"<presence to='{bob.jid}' id='presence'/>"
        iq = f"<iq type='get' id='iq' to='{bob.jid}'><query xmlns='{ns.VERSION}'/></iq>"
        recorder = await write(world, alice, chat(bob.jid, "one"), state, presence, state, iq)
        await bob.expect_nothing()
        recorder.under_way[0].go_on()
        assert await kinds(bob) == ["one", "state", "presence", "state", "iq"]


async def test_an_error_comes_in_its_turn_and_nobody_gets_what_was_not_written(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        stanzas = [
            chat(bob.jid, "one"),
            chat("nobody@localhost", "lost"),
            chat("@@", "bad"),
            chat(bob.jid, "two"),
        ]
        recorder = await write(world, alice, *stanzas)
        assert len(recorder.under_way) == 1, "nothing is begun behind somebody who has to be looked for"
        await alice.expect_nothing()
        recorder.under_way[0].error = StoreUnavailable("away")
        recorder.under_way[0].go_on()
        assert await kinds(alice) == ["one", "lost", "bad"]
        await bob.expect_nothing()
        assert len(recorder.under_way) == 2, "what is refused is not written down"
        recorder.under_way[1].go_on()
        assert await kinds(bob) == ["two"]
        assert recorder.shown == [1, 2]


async def test_who_has_too_many_under_way_is_not_read_from(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        recorder = await write(world, alice, *(chat(bob.jid, str(number)) for number in range(MANY + 5)))
        assert len(recorder.under_way) == MANY
        for written in recorder.under_way[:3]:
            written.go_on()
        await turns(world)
        assert len(recorder.under_way) == MANY + 3
        while not all(written.is_ready for written in recorder.under_way):
            for written in recorder.under_way:
                if not written.is_ready:
                    written.go_on()
            await turns(world)
        assert await kinds(bob) == [str(number) for number in range(MANY + 5)]


async def test_what_has_to_be_known_first_is_waited_for(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        [recorder] = world.plugins("recorder")
        recorder.unknown = asyncio.get_running_loop().create_future()
        await write(world, alice, chat(bob.jid, "one"), chat(bob.jid, "two"))
        assert recorder.under_way == []
        recorder.unknown.set_result(None)
        await turns(world)
        recorder.under_way[0].go_on()
        await turns(world)
        recorder.under_way[1].go_on()
        assert await kinds(bob) == ["one", "two"]


async def test_who_leaves_meanwhile_has_sent_it_all_the_same(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        recorder = await write(world, alice, chat(bob.jid, "one"), chat(bob.jid, "two"))
        await alice.drop()
        await turns(world)
        for written in recorder.under_way:
            written.go_on()
        await turns(world)
        assert await kinds(bob) == ["one", "two"]


async def test_somebody_who_goes_before_it_is_written_finds_it_later(folder: Path) -> None:
    async with world_with(folder, "offline") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        recorder = await write(world, alice, chat("bob@localhost", "one"))
        await bob.drop()
        await turns(world)
        recorder.under_way[0].go_on()
        await turns(world)
        bob = await world.bind("bob")
        await bob.send("<presence/>")
        assert "one" in await kinds(bob)


async def test_a_refusal_of_what_is_not_written_is_resource_constraint(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        recorder = await write(world, alice, chat(bob.jid, "one"))
        recorder.under_way[0].error = StoreUnavailable("away")
        recorder.under_way[0].go_on()
        [answer] = await alice.receive_all()
        assert refusal(answer) == "wait resource-constraint"


async def test_only_one_plugin_records(folder: Path) -> None:
    (folder / "another.py").write_text(RECORDER.replace("class Recorder", "class Another"))
    with pytest.raises(CommandError, match="records by the hook message_recorded, and so does"):
        async with world_with(folder, "another"):
            """It does not start."""


async def test_it_counts_as_handled_when_it_has_gone_on(folder: Path) -> None:
    async with world_with(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<enable xmlns='{ns.SM}'/>")
        await alice.receive()
        state = f"<message to='{bob.jid}' type='chat'><active xmlns='{ns.CHAT_STATES}'/></message>"
        recorder = await write(world, alice, state, chat(bob.jid, "one"), state, f"<r xmlns='{ns.SM}'/>")
        await alice.expect_nothing()
        recorder.under_way[0].go_on()
        await turns(world)
        [answer] = await alice.receive_all()
        assert answer.get("h") == "3"
        assert (await kinds(bob))[1:2] == ["one"]
