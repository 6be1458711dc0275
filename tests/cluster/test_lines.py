"""Lines over a bus that loses: what is missing is found, and the trunk goes on behind what was taken."""

import asyncio
import random

import pytest
import pytest_asyncio
from memorybus import MemoryBus
from meshes import NotingMesh, Time

from xmppd.cluster.framing import framed
from xmppd.cluster.hello import GREETING_SECONDS, Hello
from xmppd.cluster.lines import MARK_SECONDS, OPEN_SECONDS, OPENINGS, PACKET, WINDOW, Kind
from xmppd.cluster.link import REDIAL_SECONDS, Dialer
from xmppd.cluster.records import Hint
from xmppd.cluster.trunk import Trunk
from xmppd.errors import TrustLost

pytestmark = pytest.mark.asyncio


class TrunkMesh(NotingMesh):
    """One that has a trunk with each node, and notes the records that come."""

    def __init__(self, name, clock, **options):
        super().__init__(name, clock, **options)
        self.clock = clock
        self.real = {}
        self.records = []

    def hello_of(self, name):
        trunk = self.real.get(name)
        number, taken = (trunk.number, trunk.taken) if trunk is not None else (0, 0)
        return Hello(
            name=self.name,
            incarnation=self.incarnation,
            trunk=number,
            taken=taken,
            addresses=self.addresses,
        )

    def connected(self, greeting, connection):
        super().connected(greeting, connection)
        name = greeting.peer.name
        if not greeting.is_resumed:
            self.real[name] = Trunk(self.clock, greeting.trunk)
        taken = greeting.peer.taken if greeting.is_resumed else 0
        connection.write(self.real[name].resume(taken, greeting.said))

    def received(self, connection, frame):
        try:
            taken = self.real[connection.name].take(frame)
        except TrustLost:
            connection.close("no trust")
        else:
            self.records += taken.records if taken is not None else ()

    def tick(self):
        for name, connection in self.connections.items():
            self.real[name].beat()
            connection.write(self.real[name].flush())


class Net:
    """Nodes on one bus."""

    def __init__(self):
        self.time = Time()
        self.bus = MemoryBus(asyncio.get_running_loop().call_soon, self.time.call_later, self.time)
        self.meshes = {}
        self.lines = {}
        self._ticks = 0

    def node(self, name, *, life=1, kind=NotingMesh):
        mesh = self.meshes[name] = kind(name, self.time, incarnation=life)
        self.lines[name] = self.bus.listen(name, mesh.links, life)
        connect = self.bus.host(name).connect
        mesh.dialer = Dialer(name, mesh.links, mesh, self.time, connect=connect, sleep=self.time.sleep)
        return mesh

    async def joined(self, *, kind=NotingMesh):
        a, b = self.node("a", kind=kind), self.node("b", kind=kind)
        a.dialer.want("b", ["b"])
        await self.settle()
        return a, b

    async def settle(self, seconds=0.0):
        end = self.time.now + seconds
        while True:
            for _ in range(60):
                await asyncio.sleep(0)
            if self.time.now >= end - 1e-9:
                return
            self.time.advance(min(0.05, end - self.time.now))
            if self.time.now >= (self._ticks + 1) * MARK_SECONDS - 1e-9:
                self._ticks += 1
                for mesh in self.meshes.values():
                    if isinstance(mesh, TrunkMesh):
                        mesh.tick()
                for lines in self.bus.lines.values():
                    lines.mark()

    async def close(self):
        for mesh in self.meshes.values():
            await mesh.dialer.close()


@pytest_asyncio.fixture
async def net():
    net = Net()
    yield net
    await net.close()


def once(*kinds):
    """Loses the next packet of these kinds."""
    left = [1]

    def loses(channel, packet):
        if packet.kind in kinds and left:
            left.pop()
            return True
        return False

    return loses


async def test_a_missing_piece_ends_the_line_and_the_next_one_begins_behind_what_was_taken(net):
    a, b = await net.joined(kind=TrunkMesh)
    trunk = a.real["b"]
    for lost in (False, True, False):
        trunk.send(Hint(f"x{trunk.queued}"))
        if lost:
            net.bus.loses = once(Kind.PIECE)
        a.connections["b"].write(trunk.flush())
    await net.settle(REDIAL_SECONDS)
    assert [record.account for record in b.records] == ["x0", "x1", "x2"]
    assert a.told("disconnected", "resumed") == [("disconnected", "b", "closed-there"), ("resumed", "b")]
    assert b.told("disconnected")[0] == ("disconnected", "a", "lost-on-the-bus")


async def test_that_the_last_piece_is_missing_is_found_as_well(net):
    a, b = await net.joined()
    net.bus.loses = once(Kind.PIECE)
    b.connections["a"].write([framed(b"the last word")])
    await net.settle(3 * MARK_SECONDS)
    assert a.told("disconnected") == [("disconnected", "b", "lost-on-the-bus")]
    assert a.told("resumed") == [("resumed", "b")]


async def test_nothing_is_said_where_nothing_is_missing(net):
    a, b = await net.joined()
    for mesh, name in ((a, "b"), (b, "a")) * 2:
        mesh.connections[name].write([framed(b"x")])
        await net.settle()
    before = len(net.bus.packets)
    await net.settle(10 * MARK_SECONDS)
    said = net.bus.packets[before:]
    assert len(said) <= 12 and {packet.kind for _, packet in said} <= {Kind.MARK}


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.ACCEPT, Kind.PIECE, Kind.END])
async def test_no_packet_is_needed(net, kind):
    net.bus.loses = once(kind)
    a, _ = await net.joined()
    if kind is Kind.END:
        net.lines["b"].turned(False)
        net.lines["b"].turned(True)
        a.connections["b"].write([framed(b"to nobody")])
    await net.settle(GREETING_SECONDS + 1.0)
    assert a.links.of("b") is a.connections["b"]
    assert len(a.told("disconnected")) == (kind is Kind.END)
    assert not a.connections["b"].is_over and not net.meshes["b"].connections["a"].is_over


async def test_nobody_answers(net):
    a = net.node("a")
    a.dialer.want("b", ["b"])
    await net.settle(OPEN_SECONDS * OPENINGS - 0.1)
    assert a.events == [] and net.bus.said(Kind.OPEN) == [("b", 0)] * OPENINGS
    await net.settle(0.2)
    assert a.events == [("failed", "b", "unreachable", False)], "a process that ended cannot be told apart"


async def test_an_address_of_a_socket_is_of_no_use(net):
    a = net.node("a")
    for address in ("127.0.0.1:5290", "unix:/trunk.sock", "bus:a"):
        with pytest.raises(OSError, match="no address"):
            await net.lines["a"].connect(address, lambda carrier: a.links.dialed(carrier, "b", is_knock=True))


async def test_what_is_for_a_node_that_does_not_read_waits_at_the_sender(net):
    a, b = await net.joined()
    before = len(net.bus.packets)
    held = []
    net.lines["b"].received, take = held.append, net.lines["b"].received
    frames = [framed(bytes([number]) * 10_000) for number in range(100)]
    a.connections["b"].write(frames)
    await net.settle(0.3)
    published = sum(len(packet.data) for _, packet in net.bus.packets[before:])
    assert WINDOW <= published < WINDOW + PACKET
    assert a.connections["b"].unsent >= sum(map(len, frames))
    del net.lines["b"].received
    for data in held:
        take(data)
    for _ in range(10):  # what is answered says how far it was taken
        b.connections["a"].write([framed(b"")])
        await net.settle()
    assert [frame for _, frame in b.frames] == [frame[4:] for frame in frames]
    assert a.connections["b"].unsent == 0


async def test_a_frame_may_be_larger_than_all_that_may_be_under_way(net):
    a, b = await net.joined()
    b.connections["a"].write([framed(b"")])
    await net.settle()
    large = bytes(WINDOW * 4)
    a.connections["b"].write([framed(large), framed(b"behind it")])
    await net.settle()
    assert [len(frame) for _, frame in b.frames] == [len(large)]
    b.connections["a"].write([framed(b"")])
    await net.settle()
    assert [len(frame) for _, frame in b.frames] == [len(large), 9]


async def test_a_loss_in_a_full_window_is_found(net):
    a, b = await net.joined()
    net.bus.loses = lambda channel, packet: packet.kind is Kind.PIECE
    a.connections["b"].write([framed(bytes(60_000)) for _ in range(20)])
    await net.settle()
    net.bus.loses = lambda channel, packet: False
    await net.settle(3 * MARK_SECONDS)
    assert b.told("disconnected") == [("disconnected", "a", "lost-on-the-bus")]


async def test_the_last_words_go_out_before_the_end(net):
    a, b = await net.joined()
    a.dialer.forget("b")
    frames = [framed(bytes(60_000)) for _ in range(12)]
    a.connections["b"].write([*frames, framed(b"bye")])
    a.connections["b"].close()
    for _ in range(4):
        await net.settle(0.1)
        if "a" in b.connections:
            b.connections["a"].write([framed(b"read")])
    assert [len(frame) for _, frame in b.frames] == [60_000] * 12 + [3]
    assert a.frames == [], "nothing is read on a line that was closed"
    assert b.told("disconnected") == [("disconnected", "a", "closed-there")]


async def test_but_not_for_ever(net):
    a, b = await net.joined()
    a.dialer.forget("b")
    a.connections["b"].write([framed(bytes(60_000)) for _ in range(12)])
    a.connections["b"].close()
    await net.settle(1.1)
    assert b.told("disconnected") == [("disconnected", "a", "closed-there")]
    assert 0 < len(b.frames) < 12


async def test_a_greeting_has_its_time(net):
    net.node("b")
    lines = net.bus.listen("stranger", net.node("stranger").links)
    net.bus.stop("stranger")  # it hears nothing
    lines.say("b", Kind.OPEN, 5)
    await net.settle(4.9)
    assert ("stranger", 0) not in net.bus.said(Kind.END)
    await net.settle(0.2)
    assert ("stranger", 0) in net.bus.said(Kind.END)


# lives


async def test_a_node_that_began_anew_ends_the_lines_of_its_former_life(net):
    a, b = await net.joined()
    await b.dialer.close()
    net.node("b", life=2)
    a.connections["b"].write([framed(b"to the former one")])
    await net.settle(REDIAL_SECONDS)
    assert a.told("connected", "resumed", "disconnected") == [
        ("connected", "b"),
        ("disconnected", "b", "closed-there"),
        ("connected", "b"),
    ]


async def test_a_frozen_one_that_awakes_leaves_the_lines_of_its_successor_alone(net):
    former = net.node("b", life=1)
    await former.dialer.close()
    frozen = net.lines["b"]
    a = net.node("a")
    net.node("b", life=2)
    a.dialer.want("b", ["b"])
    await net.settle()
    heard = net.lines["b"].received

    def both(data):
        heard(data)
        frozen.received(data)

    net.lines["b"].received = both
    for _ in range(3):
        a.connections["b"].write([framed(b"x")])
        await net.settle(1.0)
    assert a.told("disconnected") == [] and former.events == []
    assert len(net.meshes["b"].frames) == 3


# the bus


async def test_without_the_bus_there_is_no_line(net):
    a, b = await net.joined()
    net.lines["a"].turned(False)
    await net.settle(1.0)
    assert a.told("disconnected", "failed")[:2] == [
        ("disconnected", "b", "bus-away"),
        ("failed", "b", "unreachable", False),
    ]
    assert b.told("disconnected") == [], "it was not told"
    net.lines["a"].turned(True)
    await net.settle(REDIAL_SECONDS)
    assert a.told("resumed") == [("resumed", "b")]
    assert b.told("disconnected") == [("disconnected", "a", "replaced")]


async def test_who_asks_for_a_line_while_the_bus_goes_away_is_told(net):
    a = net.node("a")
    asked = asyncio.ensure_future(
        net.lines["a"].connect("bus:b", lambda carrier: a.links.dialed(carrier, "b", is_knock=False))
    )
    await net.settle(0.1)
    net.lines["a"].turned(False)
    with pytest.raises(OSError, match="bus-away"):
        await asked


async def test_a_line_that_comes_when_nobody_wants_it_any_more_is_closed(net):
    a, b = net.node("a"), net.node("b")
    asked = asyncio.ensure_future(
        net.lines["a"].connect("bus:b", lambda carrier: a.links.dialed(carrier, "b", is_knock=False))
    )
    while not net.bus.said(Kind.PIECE):  # noqa: ASYNC110 - to the very turn
        await asyncio.sleep(0)
    asked.cancel()
    await net.settle()
    assert net.lines["a"]._lines == net.lines["b"]._lines == {}
    assert b.told("connected") == []


async def test_who_is_about_to_leave_takes_no_lines(net):
    a, b = await net.joined()
    net.lines["b"].is_taking = False
    b.connections["a"].close()
    await net.settle(3.0)
    assert a.told("resumed") == [] and ("failed", "b", "unreachable", False) in a.events


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91" * 2000, b"\x95\x09\x01\xa1a\x01\x01"])
async def test_rubbish_is_told_and_harmless(net, data, caplog):
    caplog.set_level("INFO")
    a, b = await net.joined()
    net.lines["a"].received(data)
    a.connections["b"].write([framed(b"x")])
    await net.settle()
    assert b.frames == [("a", b"x")]
    assert [record.reason for record in caplog.records if record.message == "trunk-refused"] == ["rubbish"]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_lost_each_record_comes_once_and_in_order(net, seed):
    chance = random.Random(seed)
    a, b = net.node("a", kind=TrunkMesh), net.node("b", kind=TrunkMesh)
    a.dialer.want("b", ["b"])
    await net.settle()
    share = chance.choice([0.02, 0.1, 0.3])
    net.bus.loses = lambda channel, packet: chance.random() < share
    sent = {"a": [], "b": []}
    for number in range(400):
        mesh, other = chance.choice([(a, "b"), (b, "a")])
        trunk = mesh.real[other]
        trunk.send(Hint(str(number)))
        sent[mesh.name].append(str(number))
        if other in mesh.connections:
            mesh.connections[other].write(trunk.flush())
        await net.settle(chance.choice([0.0, 0.0, 0.1]))
    net.bus.loses = lambda channel, packet: False
    await net.settle(5.0)
    assert len(a.told("connected")) == 1, "it is one trunk"
    assert a.told("resumed")
    assert [record.account for record in b.records] == sent["a"]
    assert [record.account for record in a.records] == sent["b"]
