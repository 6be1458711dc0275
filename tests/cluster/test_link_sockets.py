"""Connections of nodes over TCP and Unix sockets, on both event loops."""

import asyncio
import socket
import time

import pytest
import uvloop
from meshes import NotingMesh

from xmppd.admin.socket import bind
from xmppd.cluster import link
from xmppd.cluster.framing import framed
from xmppd.cluster.link import Dialer, SocketCarrier, connect
from xmppd.net.listener import Listener

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request):
    """Runs a coroutine to its end."""

    def run(work):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(work, 20))

    return run


class Watched:
    """Notes how much came in each turn of the loop."""

    def __init__(self):
        self.turns = [0]

    def begin(self):
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self):
        self.turns.append(0)
        asyncio.get_running_loop().call_soon(self._turn)

    def received(self, data):
        self.turns[-1] += len(data)

    def overdue(self):
        pass

    def ended(self, reason):
        pass


def test_much_that_comes_at_once_is_taken_in_many_turns(run):
    async def work():
        watched = Watched()
        ours, theirs = socket.socketpair()
        carriers = []
        for end, connection in ((ours, watched), (theirs, Watched())):
            end.setblocking(False)
            made = SocketCarrier(lambda _, connection=connection: connection)
            await asyncio.get_running_loop().create_connection(lambda made=made: made, sock=end)
            carriers.append(made)
        carriers[1].write([bytes(1_000_000)])
        await until(lambda: sum(watched.turns) == 1_000_000)
        assert max(watched.turns) <= link.TURN_BYTES
        for carrier in carriers:
            carrier.close()

    run(work())


class Nodes:
    """Nodes of one test, each with a listener of its own."""

    def __init__(self):
        self._tasks = set()
        self._closing = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for mesh, listener in self._closing:
            await mesh.dialer.close()
            listener.close()
            mesh.links.close()
        await asyncio.sleep(0.05)

    async def node(self, name, *, path=None, address="127.0.0.1", **options):
        mesh = NotingMesh(name, time.monotonic, **options)
        listener = Listener(lambda: SocketCarrier(mesh.links.accepted), self._spawn)
        if path is not None:
            listener.adopt(bind(path))
            listener.begin()
            mesh.addresses = (f"unix:{path}",)
        else:
            await listener.open(address, 0, 16)
            host = f"[{address}]" if ":" in address else address
            mesh.addresses = (f"{host}:{listener.port}",)
        mesh.dialer = Dialer(name, mesh.links, mesh, time.monotonic)
        mesh.listener = listener
        self._closing.append((mesh, listener))
        return mesh

    def _spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def until(condition):
    while not condition():  # noqa: ASYNC110 - there is no event for what a test waits for
        await asyncio.sleep(0.005)


async def joined(nodes, **options):
    a, b = await nodes.node("a"), await nodes.node("b", **options)
    a.dialer.want("b", b.addresses)
    await until(lambda: "b" in a.connections and "a" in b.connections)
    return a, b


@pytest.mark.parametrize("kind", ["tcp", "ipv6", "unix"])
def test_frames_go_both_ways(run, kind, tmp_path):
    options = {"tcp": {}, "ipv6": {"address": "::1"}, "unix": {"path": tmp_path / "trunk.sock"}}[kind]

    async def work():
        async with Nodes() as nodes:
            a, b = await joined(nodes, **options)
            large = bytes(range(256)) * 20_000
            a.connections["b"].write([framed(b"one"), framed(large), framed(b"three")])
            b.connections["a"].write([framed(b"four")])
            await until(lambda: len(b.frames) == 3 and a.frames)
            assert b.frames == [("a", b"one"), ("a", large), ("a", b"three")]
            assert a.frames == [("b", b"four")]
            assert b.connections["a"].address == {"tcp": "127.0.0.1", "ipv6": "::1", "unix": ""}[kind]

    run(work())


def test_small_frames_are_not_held_back(run, monkeypatch):
    made = []
    before = SocketCarrier.connection_made

    def connection_made(self, transport):
        before(self, transport)
        made.append(transport.get_extra_info("socket"))

    monkeypatch.setattr(SocketCarrier, "connection_made", connection_made)

    async def work():
        async with Nodes() as nodes:
            await joined(nodes)
            assert [it.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0 for it in made] == [True] * 2

    run(work())


def test_what_is_unsent_can_be_seen(run):
    """Of who does not read, as a stopped process: here, whose loop is kept from it."""

    async def work():
        async with Nodes() as nodes:
            a, b = await joined(nodes)
            b.connections["a"]._carrier._transport.pause_reading()
            a.connections["b"].write([framed(bytes(8_000_000))] * 2)
            await asyncio.sleep(0.1)
            assert 1_000_000 < a.connections["b"].unsent <= 16_000_008
            b.connections["a"]._carrier._transport.resume_reading()
            await until(lambda: len(b.frames) == 2)
            assert a.connections["b"].unsent == 0

    run(work())


def test_who_does_not_read_cannot_keep_a_connection_that_is_over(run, monkeypatch):
    monkeypatch.setattr(link, "LINGER_SECONDS", 0.05)

    async def work():
        async with Nodes() as nodes:
            a, b = await joined(nodes)
            b.connections["a"]._carrier._transport.pause_reading()
            connection = a.connections["b"]
            a.dialer.forget("b")
            connection.write([framed(bytes(16_000_000))])
            connection.close()
            lost = asyncio.get_running_loop().create_future()
            monkeypatch.setattr(connection._carrier, "connection_lost", lost.set_result)
            await lost

    run(work())


def test_the_last_frames_arrive(run):
    async def work():
        async with Nodes() as nodes:
            a, b = await joined(nodes)
            a.dialer.forget("b")
            a.connections["b"].write([framed(bytes(4_000_000)), framed(b"bye")])
            a.connections["b"].close()
            await until(lambda: b.told("disconnected"))
            assert [len(frame) for _, frame in b.frames] == [4_000_000, 3]
            assert b.told("disconnected") == [("disconnected", "a", "closed-there")]

    run(work())


def test_a_lost_connection_is_made_again(run):
    async def work():
        async with Nodes() as nodes:
            a, b = await joined(nodes)
            b.connections["a"]._carrier._transport.abort()
            await until(lambda: a.told("resumed") and b.told("resumed"))
            assert len(b.told("disconnected")) == 1

    run(work())


@pytest.mark.parametrize("kind", ["tcp", "unix", "both"])
def test_nobody_listens_there(run, kind, tmp_path):
    async def work():
        async with Nodes() as nodes:
            a, gone = await nodes.node("a"), await nodes.node("b")
            gone.listener.close()
            missing = f"unix:{tmp_path / 'nothing.sock'}"
            addresses = {"tcp": gone.addresses, "unix": (missing,), "both": (missing, *gone.addresses)}[kind]
            a.dialer.want("b", addresses)
            await until(lambda: a.events)
            assert a.events[0] == ("failed", "b", "connection-refused", True)

    run(work())


def test_a_host_with_two_addresses_refuses_if_one_does(run, monkeypatch):
    async def work():
        async with Nodes() as nodes:
            gone = await nodes.node("b")
            port = gone.listener.port
            gone.listener.close()
            places = [("255.255.255.255", port), ("127.0.0.1", port)]

            async def both(*_, **__):
                return [(0, 0, 0, "", place) for place in places]

            class Loop:
                """The loop, in which a name has two addresses."""

                def __getattr__(self, name):
                    return both if name == "getaddrinfo" else getattr(loop, name)

            loop = asyncio.get_running_loop()
            monkeypatch.setattr(link.asyncio, "get_running_loop", Loop)
            try:
                with pytest.raises(ConnectionRefusedError):
                    await connect(f"b.example:{port}", lambda carrier: None)
            finally:
                monkeypatch.undo()

    run(work())


@pytest.mark.parametrize("address", ["nobody.invalid:1", "unix:" + "/x" * 100])
def test_an_address_that_is_none(run, address):
    async def work():
        async with Nodes() as nodes:
            a = await nodes.node("a")
            a.dialer.want("b", [address])
            await until(lambda: a.events)
            assert a.events[0] == ("failed", "b", "unreachable", False)
            assert await a.dialer.knock(address) is None

    run(work())


def test_no_answer_is_not_waited_for(run, monkeypatch):
    monkeypatch.setattr(link, "CONNECT_SECONDS", 0.05)

    async def work():
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [socket.socket() for _ in range(8)]
            for it in waiting:
                it.setblocking(False)
                it.connect_ex(full.getsockname())
            async with Nodes() as nodes:
                a = await nodes.node("a")
                a.dialer.want("b", [f"127.0.0.1:{full.getsockname()[1]}"])
                await until(lambda: a.events)
                assert a.events[0] == ("failed", "b", "unreachable", False)
            for it in waiting:
                it.close()

    run(work())


def test_who_says_nothing_is_cut(run, monkeypatch):
    monkeypatch.setattr(link, "GREETING_SECONDS", 0.05)

    async def work():
        async with Nodes() as nodes:
            a, b = await joined(nodes)
            reader, writer = await asyncio.open_connection("127.0.0.1", b.listener.port)
            assert await reader.read() == b""
            writer.close()
            assert not a.told("disconnected"), "who has greeted is not"

    run(work())


def test_a_stranger_is_told_why(run, caplog):
    caplog.set_level("INFO")

    async def work():
        async with Nodes() as nodes:
            b = await nodes.node("b")
            reader, writer = await asyncio.open_connection("127.0.0.1", b.listener.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert b"rubbish" in await reader.read()
            writer.close()

    run(work())
    [record] = [record for record in caplog.records if record.message == "trunk-refused"]
    assert (record.peer, record.reason) == ("127.0.0.1", "rubbish")
