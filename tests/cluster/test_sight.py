"""What plugins let be seen, and of whom they ask where he is, on several nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from several import several

from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

ALICE, BOB = "alice@localhost", "bob@localhost"

VEIL = """
from xmppd import hooks
from xmppd.plugin import Kept, Plugin, cluster_signal

class Veil(Plugin):
    hidden = Kept(set)

    @hooks.sees
    def sees(self, viewer, owner):
        return (viewer, owner.partition("/")[0]) not in self.hidden

    @cluster_signal
    def change(self, viewer, owner, is_hidden):
        (self.hidden.add if is_hidden else self.hidden.discard)((viewer, owner))

    def hide(self, viewer, owner):
        self.server.hide_presence(owner, viewer)
        self.change.tell(viewer, owner, True)

    def show(self, viewer, owner):
        self.change.tell(viewer, owner, False)
        self.server.show_presence(owner, viewer)
"""


def veiled(folder: Path, redis_url: str) -> World:
    (folder / "veil.py").write_text(VEIL)
    return World(plugins=("veil",), plugin_folders=(folder,), settings=several(redis_url), nodes=3)


async def seen(client: Client) -> list[tuple[str | None, str | None]]:
    """Who came or went."""
    await client.world.settle()
    return sorted((one.get("from"), one.get("type")) for one in await client.receive_all())  # type: ignore[type-var]


async def test_who_is_hidden_from_somebody_sees_him_all_the_same(tmp_path: Path, redis_url: str) -> None:
    async with veiled(tmp_path, redis_url) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        world.plugin("veil").hide(BOB, ALICE)
        await world.settle()
        await bob.receive_all()
        other = await world.bind("alice", node=2)
        await other.send("<presence/>")
        assert (bob.jid, None) in await seen(other)
        assert await seen(bob) == []


@pytest.mark.parametrize("node", [0, 1, 2])
async def test_a_plugin_hides_and_shows_who_is_anywhere_from_who_is_anywhere(
    tmp_path: Path, redis_url: str, node: int
) -> None:
    async with veiled(tmp_path, redis_url) as world:
        alices = [await world.login("alice", node=0), await world.login("alice", node=2)]
        bobs = [await world.login("bob", node=0), await world.login("bob", node=1)]
        await world.befriend(alices[0], bobs[0])
        await world.settle()
        for client in world.clients:
            await client.receive_all()
        veil = world.plugin("veil", node)
        veil.hide(ALICE, BOB)
        for alice in alices:
            assert await seen(alice) == sorted((bob.jid, "unavailable") for bob in bobs)
        await bobs[1].send("<presence><show>away</show></presence>")
        assert [await seen(alice) for alice in alices] == [[], []]
        veil.show(ALICE, BOB)
        for alice in alices:
            assert await seen(alice) == sorted((bob.jid, None) for bob in bobs)


async def test_nothing_is_shown_to_strangers(tmp_path: Path, redis_url: str) -> None:
    async with veiled(tmp_path, redis_url) as world:
        alice, _ = await world.login("alice", node=0), await world.login("bob", node=1)
        veil = world.plugin("veil", 2)
        veil.hide(ALICE, BOB)
        veil.show(ALICE, BOB)
        assert await seen(alice) == []


async def test_who_is_asked_for_is_found_on_any_node(tmp_path: Path, redis_url: str) -> None:
    async with veiled(tmp_path, redis_url) as world:
        near, far = await world.login("bob", priority=1, node=0), await world.login("bob", node=1)
        await world.bind("bob", node=2)
        for app in world.apps:
            found = sorted((target.full, target.priority) for target in app.server.locate(BOB))
            assert found == sorted([(near.jid, 1), (far.jid, 0)])
            assert app.server.is_connected(BOB) and not app.server.is_connected(ALICE)
            assert app.server.connected() == {BOB}
            assert app.server.has_other_nodes
        assert [bool(app.server.sessions(BOB)) for app in world.apps] == [True] * 3
        assert (near.app.server.session(near.jid), near.app.server.session(far.jid)) == (near.session, None)
        await far.drop()
        for app in world.apps:
            assert [target.full for target in app.server.locate(BOB)] == [near.jid]


NOTES = """
from xmppd.plugin import Kept, Plugin, cluster_signal

class Notes(Plugin):
    heard = Kept(list)

    @cluster_signal
    def note(self, text, *, number=0):
        self.heard.append((text, number))

    @cluster_signal
    async def fail(self):
        raise OSError("no")
"""


async def test_a_cluster_signal_reaches_each_node_once_and_in_order(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "notes.py").write_text(NOTES)
    settings = several(redis_url)
    async with World(plugins=("notes",), plugin_folders=(tmp_path,), settings=settings, nodes=3) as world:
        notes = world.plugins("notes")
        notes[0].note.tell("a", number=1)
        assert notes[0].heard == [("a", 1)], "at once"
        world.cut(0, 2)
        notes[0].note.tell("\N{SNOWMAN}")
        notes[0].note("here")
        notes[0].fail.tell()
        notes[0].note.tell("c")
        world.connect_nodes(0, 2)
        await world.settle()
        told = [("a", 1), ("\N{SNOWMAN}", 0), ("c", 0)]
        assert [one.heard for one in notes] == [[*told[:2], ("here", 0), told[2]], told, told]
        assert [app.hooks.failures for app in world.apps] == [1, 1, 1]


async def test_a_node_without_the_plugin_is_not_bothered_by_its_signals(
    tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "notes.py").write_text(NOTES)
    settings = several(redis_url)
    async with World(plugins=("notes",), plugin_folders=(tmp_path,), settings=settings, nodes=2) as world:
        notes = world.plugins("notes")
        await world.apps[1].loader.close()
        notes[0].note.tell("a")
        await world.settle()
        assert [one.heard for one in notes] == [[("a", 0)], []]
