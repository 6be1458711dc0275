"""A plugin with hooks, requests, a port, a route, a timer and tasks, loaded again and again under load."""

import asyncio
import json
from pathlib import Path

import pytest

from xmppd.store.table import Store
from xmppd.testing import Client, World

BUSY = '''
import asyncio
from copy import deepcopy
from xmppd import hooks
from xmppd.plugin import *

VERSION = %d

class Hello(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"%%d" %% VERSION)
        transport.close()

class Busy(Plugin):
    """Everything at once."""
    asked = SessionSlot(0)
    messages = Counter("Messages seen.")
    book = Table(partition=("name",), columns={"times": "int"}, person=nobody("a test"))
    beats = Kept(list)
    instances = Kept(list)

    async def start(self):
        await self.book.put({"name": "start", "times": VERSION})
        self.work = self.spawn(self.last())
        self.instances.append(self.work)

    async def last(self):
        await asyncio.Event().wait()

    @hooks.message_sent.at(hooks.FILTER)
    async def mark(self, session, message):
        await self.book.get("start")
        tree = deepcopy(message.xml)
        tree.append(element("{urn:x}v", None, str(VERSION)))
        return stanza_of(tree)

    @hooks.message_routed
    def count(self, origin, message, account, outcome):
        self.messages.inc()

    @iq_get("{urn:x}x")
    async def answer(self, request):
        self.asked[request.session] += 1
        await self.book.get("start")
        return element("{urn:x}x", {"n": str(self.asked[request.session])})

    @listener(port=0)
    def hello(self):
        return Hello()

    @route("GET", "/version", scope=PUBLIC)
    async def version(self, request):
        await asyncio.sleep(0)
        return VERSION

    @every(1)
    async def beat(self):
        self.beats.append(self.now())
        await self.book.get("start")
'''
RELOADS = 15
MESSAGES = 300


async def talk(sender: Client, to: str) -> None:
    """Many messages, and a question behind each third."""
    for number in range(MESSAGES):
        sender.write(f"<message to='{to}' type='chat' id='{number}'><body>x</body></message>")
        if number % 3 == 0:
            sender.write(f"<iq type='get' id='q{number}' to='localhost'><x xmlns='urn:x'/></iq>")
        sender.pump()
        await asyncio.sleep(0)


async def knock(port: int, heard: list[int], over: asyncio.Event) -> None:
    while not over.is_set():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        heard.append(int(await asyncio.wait_for(reader.read(), 10)))
        writer.close()


async def call(world: World, heard: list[int], over: asyncio.Event) -> None:
    async def nothing(most: int) -> bytes:
        return b""

    while not over.is_set():
        response = await world.app.routes.serve("GET", "/version", {}, nothing, "")
        assert response.status == 200
        heard.append(json.loads(response.body))
        await asyncio.sleep(0.001)


@pytest.mark.one_node("each node loads its own plugins, and two in one process share their modules")
@pytest.mark.asyncio
async def test_nothing_is_lost_and_nobody_notices(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "busy.py"
    file.write_text(BUSY % 0)
    async with World(plugins=("busy",), plugin_folders=(tmp_path,), store=store) as world:
        await world.app.listeners.open(100)
        port = world.app.listeners.ports["busy.hello"]
        clients = [await world.login(name) for name in ("alice", "bob", "carol")]
        over, told, served = asyncio.Event(), list[int](), list[int]()
        crowd = [asyncio.create_task(knock(port, told, over)) for _ in range(3)]
        crowd.append(asyncio.create_task(call(world, served, over)))
        talks = [
            asyncio.create_task(talk(client, clients[index - 1].jid)) for index, client in enumerate(clients)
        ]
        for version in range(1, RELOADS + 1):
            file.write_text(BUSY % version)
            assert await world.app.loader.load(world.config) == ["busy"]
            world.clock.seconds += 1
            world.app.timers.tick()
            await asyncio.sleep(0.01)
        await asyncio.gather(*talks)
        over.set()
        await asyncio.gather(*crowd)
        await world.settle()

        for client in clients:
            received = await client.receive_all()
            messages = [tree for tree in received if tree.tag.endswith("message")]
            assert [tree.get("id") for tree in messages] == [str(number) for number in range(MESSAGES)]
            versions = [int(tree[1].text or "") for tree in messages]
            assert versions == sorted(versions)
            answers = [tree for tree in received if tree.tag.endswith("iq")]
            assert [tree.get("id") for tree in answers] == [f"q{n}" for n in range(0, MESSAGES, 3)]
            assert [int(tree[0].get("n", "")) for tree in answers] == list(range(1, len(answers) + 1))
        assert set(told) <= set(range(RELOADS + 1)) and len(set(told)) > 1
        assert served == sorted(served)
        busy = world.plugin("busy")
        assert world.app.server.metrics["busy_messages"].shown == 3 * MESSAGES
        assert [task.cancelled() for task in busy.instances] == [True] * RELOADS + [False]
        assert len(set(busy.beats)) == len(busy.beats), "two instances kept time at once"
        assert world.app.listeners.ports == {"busy.hello": port}
        assert world.app.hooks.failures == world.app.lasting.failed == world.app.router.errors == 0
