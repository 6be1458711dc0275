"""Which plugins are at work on other nodes, and archives of which some nodes have none (XEP-0313)."""

from collections.abc import Collection
from pathlib import Path

import pytest
from archives import chat, find, world

from xmppd.section import changed
from xmppd.testing import World

pytestmark = [pytest.mark.asyncio, pytest.mark.one_node("names its nodes itself")]

WATCH = """
from xmppd import hooks
from xmppd.plugin import Plugin


class Watch(Plugin):
    async def start(self) -> None:
        self.heard = []

    @hooks.node_runs
    def runs(self, node, plugins, anew) -> None:
        self.heard.append((node, sorted(plugins), sorted(anew)))
"""


async def enable(w: World, node: int, *plugins: str) -> None:
    """Have just these at work on a node."""
    section = changed(w.config.plugins, enabled=plugins)
    await w.apps[node].loader.load(changed(w.config, plugins=section))
    await w.settle()


async def test_nodes_say_what_they_run(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(WATCH)
    async with World(plugins=("watch", "ping"), plugin_folders=(tmp_path,), nodes=2) as w:
        heard: Collection[object] = w.plugins("watch")[0].heard
        assert heard == [("node1:5270", ["ping", "watch"], [])]
        await enable(w, 1, "watch", "time")
        await enable(w, 1, "watch", "time")
        await w.apps[1].loader.reload("time", w.apps[1].config)
        await w.settle()
        assert [*heard][1:] == [
            ("node1:5270", ["time", "watch"], ["time"]),
            ("node1:5270", ["time", "watch"], ["time"]),
        ]
        server = w.app.server
        assert server.runs("node1:5270", "time") and not server.runs("node1:5270", "ping")


async def test_a_node_without_an_archive_is_not_waited_for() -> None:
    async with world(nodes=2) as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", node=1)
        await enable(w, 1)
        await chat(alice, "bob@localhost", "one", "two")
        assert [stanza.get("id") for stanza in await bob.receive_all()] == ["one", "two"]
        assert (await find(alice)).texts == ["one", "two"]
        await enable(w, 1, "archive")
        await chat(alice, "bob@localhost", "three")
        await chat(bob, "alice@localhost", "four")
        assert (await find(bob)).texts == (await find(alice)).texts == ["one", "two", "three", "four"]


async def test_what_is_under_way_when_an_archive_ends_elsewhere_goes_on() -> None:
    async with world(nodes=2) as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", node=1)
        order = w.plugin("archive", 1).order
        order.hear = lambda *said: None  # it hangs
        await chat(alice, "bob@localhost", "one")
        await bob.expect_nothing()
        await enable(w, 1)
        assert [stanza.get("id") for stanza in await bob.receive_all()] == ["one"]


async def test_a_node_that_begins_without_an_archive_holds_up_nothing() -> None:
    async with world(nodes=2) as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", node=1)
        await enable(w, 1)
        for node in (0, 1):
            mesh = w.cluster(node).mesh
            mesh.give_up(next(iter(mesh.members.values())), "it is cut off")
        await w.settle()
        w.connect_nodes(0, 1, trunk=2)
        await w.settle()
        await chat(alice, "bob@localhost", "one")
        assert [stanza.get("id") for stanza in await bob.receive_all()] == ["one"]
