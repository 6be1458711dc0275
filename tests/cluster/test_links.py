"""Who is connected with whom, on a network and on a bus in memory: greetings, one connection a pair, dialing
again.
"""

import asyncio

import pytest
import pytest_asyncio
from memorybus import MemoryBus
from memorynet import MemoryNetwork
from meshes import NotingMesh, Time

from xmppd.cluster.connection import STRANGERS
from xmppd.cluster.framing import framed
from xmppd.cluster.lines import MARK_SECONDS
from xmppd.cluster.link import REDIAL_SECONDS
from xmppd.cluster.link import Dialer as Dialing
from xmppd.errors import TrunkError


class Net:
    """Nodes on one network, or on one bus."""

    def __init__(self, kind):
        self.time = Time()
        call_soon = asyncio.get_running_loop().call_soon
        if kind == "bus":
            self.memory = MemoryBus(call_soon, self.time.call_later, self.time)
        else:
            self.memory = MemoryNetwork(call_soon)
        self.is_bus = kind == "bus"
        self.dialers = []

    def node(self, name, **options):
        mesh = NotingMesh(name, self.time, **options)
        self.memory.listen(name, mesh.links)
        mesh.dialer = Dialing(
            name,
            mesh.links,
            mesh,
            self.time,
            connect=self.memory.host(name).connect,
            sleep=self.time.sleep,
        )
        self.dialers.append(mesh.dialer)
        return mesh

    async def settle(self, seconds=0.0):
        """Let time pass, and all be done that can be done by then."""
        end = self.time.now + seconds
        while True:
            for _ in range(60):
                await asyncio.sleep(0)
            if self.time.now >= end - 1e-9:
                return
            self.time.advance(min(0.05, end - self.time.now))
            if self.is_bus and self.time.now % MARK_SECONDS < 0.05:
                for lines in self.memory.lines.values():
                    lines.mark()


@pytest_asyncio.fixture(params=["network", "bus"])
async def net(request):
    net = Net(request.param)
    yield net
    for dialer in net.dialers:
        await dialer.close()


on_a_network = pytest.mark.parametrize("net", ["network"], indirect=True)
"""A bus neither says that nobody is there nor keeps what cannot pass: test_lines.py has what it does."""


@pytest.mark.asyncio
async def test_two_that_want_each_other_have_one_connection(net):
    a, b = net.node("a"), net.node("b")
    b.dialer.want("a", ["a"])
    a.dialer.want("b", ["b"])
    await net.settle(1.0)
    assert a.told("connected", "disconnected") == [("connected", "b")]
    assert b.told("connected", "disconnected") == [("connected", "a")]
    assert a.trunks["b"] == b.trunks["a"]
    assert a.links.of("b") is a.connections["b"]


@pytest.mark.asyncio
async def test_frames_come_whole_and_in_order(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    await net.settle()
    a.connections["b"].write([framed(b"1"), framed(b"22")[:3]])
    a.connections["b"].write([framed(b"22")[3:], framed(b"")])
    b.connections["a"].write([framed(b"x" * 100_000)])
    await net.settle()
    assert b.frames == [("a", b"1"), ("a", b"22"), ("a", b"")]
    assert a.frames == [("b", b"x" * 100_000)]


@on_a_network
@pytest.mark.asyncio
async def test_what_has_not_arrived_is_unsent(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    await net.settle()
    a.connections["b"].write([framed(b"1"), framed(b"22")])
    assert a.connections["b"].unsent == 5 + 6
    await net.settle()
    assert a.connections["b"].unsent == 0 and len(b.frames) == 2


@pytest.mark.asyncio
async def test_who_has_the_larger_name_knocks_and_is_dialed(net):
    a, b = net.node("a"), net.node("b")
    b.dialer.want("a", ["a"])
    await net.settle()
    assert a.events == [("met", "b")] and b.events == [("met", "a")]
    a.wanting = a.dialer
    await net.settle(REDIAL_SECONDS)
    assert a.told("connected") == [("connected", "b")] and b.told("connected") == [("connected", "a")]


@pytest.mark.asyncio
async def test_a_lost_connection_is_made_again_at_once(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    await net.settle(1.0)
    net.memory.reset("a", "b")
    await net.settle()
    assert a.told("connected", "resumed", "disconnected") == [
        ("connected", "b"),
        ("disconnected", "b", "reset"),
        ("resumed", "b"),
    ]
    assert b.told("resumed") == [("resumed", "a")]


@pytest.mark.asyncio
async def test_who_is_about_to_leave_greets_nobody(net):
    a, b, c = net.node("a"), net.node("b"), net.node("c")
    a.dialer.want("b", ["b"])
    await net.settle(1.0)
    b.links.shut()
    c.dialer.want("b", ["b"])
    b.dialer.want("c", ["c"])
    await net.settle(1.0)
    assert b.told("connected", "disconnected") == [("connected", "a")], "who has greeted stays"
    b.connections["a"].close()
    await net.settle(1.0)
    assert b.told("connected", "resumed") == [("connected", "a")]


@pytest.mark.asyncio
async def test_but_not_more_often_than_every_fifth_of_a_second(net):
    a, b = net.node("a"), net.node("b")
    b.raises = TrunkError("not you")
    a.dialer.want("b", ["b"])
    for _ in range(10):
        await net.settle(0.1)
        if "b" in a.connections:
            a.connections["b"].write([framed(b"x")])
    assert 4 <= len(a.told("connected", "resumed")) <= 6


@on_a_network
@pytest.mark.asyncio
async def test_nobody_there_is_told_and_tried_again(net, caplog):
    a = net.node("a")
    a.dialer.want("b", ["b"])
    await net.settle(1.0)
    failures = a.told("failed")
    assert 5 <= len(failures) <= 6
    assert set(failures) == {("failed", "b", "connection-refused", True)}
    net.memory.cut("a", "b")
    await net.settle(REDIAL_SECONDS)
    assert a.events[-1] == ("failed", "b", "unreachable", False)
    told = [record.reason for record in caplog.records if record.message == "node-unreachable"]
    assert told == ["connection-refused", "unreachable"], "once each"
    net.memory.heal("a", "b")
    b = net.node("b")
    await net.settle(REDIAL_SECONDS)
    assert b.told("connected") == [("connected", "a")]


@on_a_network
@pytest.mark.asyncio
async def test_who_knocks_learns_that_nobody_is_there(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    b.dialer.want("a", ["a"])
    await net.settle(1.0)
    await a.dialer.close()
    net.memory.stop("a")
    await net.settle(0.1)
    assert b.told("disconnected") == [("disconnected", "a", "reset")]
    assert b.told("failed") == [("failed", "a", "connection-refused", True)]


@pytest.mark.asyncio
async def test_each_address_is_tried_until_one_is_that_of_the_node(net):
    a, _c = net.node("a"), net.node("c")
    b = net.node("b")
    net.memory.listen("10.0.0.2", b.links)
    a.dialer.want("b", ["nowhere", "c", "10.0.0.2"])
    await net.settle(3.0)
    assert a.events == [("met", "b"), ("connected", "b")]


@pytest.mark.asyncio
async def test_an_address_of_another_node_is_told(net, caplog):
    a, c = net.node("a"), net.node("c")
    a.dialer.want("b", ["c"])
    await net.settle()
    assert a.events == [("failed", "b", "not-me", False)]
    assert c.events == []
    assert [record.reason for record in caplog.records if record.message == "node-unreachable"] == ["not-me"]


@pytest.mark.asyncio
async def test_a_wrong_secret_is_told_on_both_sides(net, caplog):
    caplog.set_level("INFO")
    a, b = net.node("a"), net.node("b", secrets=(b"another",))
    a.dialer.want("b", ["b"])
    await net.settle()
    assert a.events == [("failed", "b", "wrong-secret", False)]
    assert b.events == []
    told = {(record.message, record.reason) for record in caplog.records if hasattr(record, "reason")}
    assert told == {("node-unreachable", "wrong-secret"), ("trunk-refused", "wrong-secret")}


@pytest.mark.asyncio
async def test_nobody_is_tried_any_more(net):
    a = net.node("a")
    a.dialer.want("b", ["b"])
    await net.settle(1.0)
    a.dialer.forget("b")
    count = len(a.events)
    await net.settle(1.0)
    assert len(a.events) == count
    a.dialer.forget("b")


@pytest.mark.asyncio
async def test_a_connection_stays_when_it_is_no_more_wanted(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    await net.settle()
    a.dialer.forget("b")
    await net.settle()
    a.connections["b"].write([framed(b"still here")])
    await net.settle()
    assert b.frames == [("a", b"still here")]


@pytest.mark.asyncio
async def test_a_greeting_ends_when_it_is_no_more_wanted(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    await asyncio.sleep(0)
    a.dialer.forget("b")
    await net.settle()
    assert a.told("connected") == [] and b.links.of("a") is None


@on_a_network
@pytest.mark.asyncio
async def test_what_waits_at_a_cut_arrives_when_it_is_healed(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    await net.settle()
    net.memory.cut("a", "b")
    a.connections["b"].write([framed(b"x")])
    await net.settle(1.0)
    assert b.frames == [] and a.connections["b"].unsent == 5
    net.memory.heal("a", "b")
    await net.settle()
    assert b.frames == [("a", b"x")]


@pytest.mark.asyncio
async def test_what_was_written_before_the_end_arrives(net):
    a, b = net.node("a"), net.node("b")
    a.dialer.want("b", ["b"])
    await net.settle()
    connection = a.connections["b"]
    connection.write([framed(b"bye")])
    connection.close()
    connection.write([framed(b"too late")])
    await net.settle()
    assert b.frames == [("a", b"bye")]
    assert b.told("disconnected") == [("disconnected", "a", "closed-there")]


# who is at a seed


@on_a_network
@pytest.mark.asyncio
async def test_who_is_at_an_address(net):
    a, b = net.node("a"), net.node("b")
    knocked = await a.dialer.knock("b")
    assert knocked == b.hello_of("a")
    assert a.events == [("met", "b")] and b.events == [("met", "a")]
    itself = await a.dialer.knock("a")
    assert (itself.name, itself.incarnation) == ("a", 1)
    assert await a.dialer.knock("nowhere") is None


@pytest.mark.asyncio
async def test_nobody_is_known_without_the_secret(net):
    a, b = net.node("a"), net.node("b", secrets=(b"another",))
    assert await a.dialer.knock("b") is None
    assert a.events == b.events == []


@pytest.mark.asyncio
async def test_a_namesake_is_met_and_not_connected_to(net):
    old, new = net.node("a", incarnation=1), net.node("a", incarnation=2)
    net.memory.listen("a.example", old.links)
    found = await new.dialer.knock("a.example")
    assert found.incarnation == 1
    assert old.events == [("met", "a")] and new.events == [("met", "a")]


# one connection after the other


class Wire:
    """A carrier that nobody reads."""

    def __init__(self):
        self.peer = "192.0.2.1"
        self.unsent = 0
        self.sent = b""
        self.is_closed = False

    def write(self, pieces):
        self.sent += b"".join(pieces)

    def close(self):
        self.is_closed = True


def enter(listening, dialing):
    """A connection of one mesh to another, taken without a network."""
    here, there = Wire(), Wire()
    taken = listening.links.accepted(there)
    dialed = dialing.links.dialed(here, listening.name, is_knock=False)
    dialed.begin()
    for wire, other in [(here, taken), (there, dialed)] * 2:
        data, wire.sent = wire.sent, b""
        other.received(data)
    return taken, dialed


def test_a_new_connection_takes_the_place_of_one_that_ended_unnoticed():
    b = NotingMesh("b", lambda: 0.0)
    first, _ = enter(b, NotingMesh("a", lambda: 0.0))
    second, _ = enter(b, NotingMesh("a", lambda: 0.0))
    assert first.is_over and first.reason == "replaced" and not second.is_over
    assert b.events == [
        ("met", "a"),
        ("connected", "a"),
        ("met", "a"),
        ("disconnected", "a", "replaced"),
        ("connected", "a"),
    ]
    assert b.links.of("a") is second
    first.close()
    assert b.links.of("a") is second and len(b.events) == 5


def test_who_stood_still_until_another_had_its_name_does_not_take_its_place():
    b = NotingMesh("b", lambda: 0.0)
    second, _ = enter(b, NotingMesh("a", lambda: 0.0, incarnation=2))
    first, _ = enter(b, NotingMesh("a", lambda: 0.0, incarnation=1))
    assert first.is_over and first.reason == "superseded"
    assert b.links.of("a") is second and not second.is_over
    assert b.told("connected", "disconnected") == [("connected", "a")]


def test_what_has_changed_since_it_was_said_is_said_again():
    a, b = NotingMesh("a", lambda: 0.0), NotingMesh("b", lambda: 0.0)
    here, there = Wire(), Wire()
    taken = b.links.accepted(there)
    dialed = a.links.dialed(here, "b", is_knock=False)
    dialed.begin()
    taken.received(here.sent)
    b.trunks["a"] = 5
    here.sent = b""
    dialed.received(there.sent)
    taken.received(here.sent)
    assert taken.is_over and taken.reason == "changed-meanwhile"
    assert b.told("connected") == []


def test_a_frame_that_cannot_be_taken_ends_the_connection():
    a, b = NotingMesh("a", lambda: 0.0), NotingMesh("b", lambda: 0.0)
    taken, _ = enter(b, a)
    b.raises = TrunkError("a frame is missing")
    taken.received(framed(b"1") + framed(b"2"))
    assert taken.is_over
    assert b.told("disconnected") == [("disconnected", "a", "a frame is missing")]


def test_one_that_is_too_long_does_so_too():
    taken, _ = enter(NotingMesh("b", lambda: 0.0), NotingMesh("a", lambda: 0.0))
    taken.received(b"\xff\xff\xff\xff")
    assert taken.is_over and "are allowed" in taken.reason


def test_a_mistake_above_ends_it_and_is_logged(caplog):
    b = NotingMesh("b", lambda: 0.0)
    taken, _ = enter(b, NotingMesh("a", lambda: 0.0))
    b.raises = RuntimeError("a mistake")
    taken.received(framed(b"1"))
    assert taken.is_over and b.told("disconnected") == [("disconnected", "a", "failed-here")]
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message == "trunk-failed" and record.node == "a"


def test_nothing_is_taken_of_a_connection_that_is_over():
    b = NotingMesh("b", lambda: 0.0)
    taken, _ = enter(b, NotingMesh("a", lambda: 0.0))
    taken.close()
    taken.received(framed(b"1"))
    assert b.frames == []


def test_a_frame_that_ends_the_connection_is_the_last_one():
    b = NotingMesh("b", lambda: 0.0)
    taken, _ = enter(b, NotingMesh("a", lambda: 0.0))
    frames = []
    b.received = lambda connection, frame: (frames.append(frame), connection.close())
    taken.received(framed(b"1") + framed(b"2"))
    assert frames == [b"1"]


def test_strangers_do_not_keep_nodes_out():
    b = NotingMesh("b", lambda: 0.0)
    strangers = [b.links.accepted(Wire()) for _ in range(STRANGERS)]
    assert not any(stranger.is_over for stranger in strangers)
    taken, _ = enter(b, NotingMesh("a", lambda: 0.0))
    assert [stranger.is_over for stranger in strangers] == [True] + [False] * (STRANGERS - 1)
    more = b.links.accepted(Wire())
    assert not taken.is_over and not strangers[1].is_over, "who has greeted is no stranger"
    more.close()
    b.links.accepted(Wire())
    assert not strangers[1].is_over, "nor is who has left"


def test_a_greeting_has_its_time():
    b = NotingMesh("b", lambda: 0.0)
    stranger = b.links.accepted(wire := Wire())
    taken, _ = enter(b, NotingMesh("a", lambda: 0.0))
    for connection in (stranger, taken):
        connection.overdue()
    assert stranger.reason == "too-slow" and wire.is_closed
    assert not taken.is_over


def test_who_asks_for_the_end_is_told_of_it():
    taken, _ = enter(NotingMesh("b", lambda: 0.0), NotingMesh("a", lambda: 0.0))
    told = []
    taken.when_over(lambda: told.append(taken.reason))
    taken.close("bye")
    taken.close("again")
    taken.when_over(lambda: told.append("at once"))
    assert told == ["bye", "at once"]


def test_all_end_at_once():
    b = NotingMesh("b", lambda: 0.0)
    stranger = b.links.accepted(Wire())
    taken, _ = enter(b, NotingMesh("a", lambda: 0.0))
    b.links.close()
    assert stranger.is_over and taken.is_over
    assert b.told("disconnected") == [("disconnected", "a", "stopped")]
