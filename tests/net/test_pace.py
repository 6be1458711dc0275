"""Turns: whoever has much to say is stopped after a slice of time, and nothing is lost or out of order."""

import asyncio
import itertools

import pytest
from patience import PATIENCE

from xmppd.core.reports import Reports
from xmppd.net.pace import FEW, LONGEST_PAUSE, SLICE_SECONDS, Pause, Slice, Tempo, Turns, paced
from xmppd.net.wire import LITTLE, MUCH, READ_SIZE, Shared, Wire, WireRules
from xmppd.stream.bucket import TokenBucket
from xmppd.testing import MemoryTransport, World
from xmppd.xml.scan import StreamClose
from xmppd.xml.stanza import Stanza


def stanza(number):
    return Stanza("presence", {"id": str(number)}, b"<presence/>", 9)


def ticking(step):
    ticks = itertools.count()
    return lambda: next(ticks) * step


def tempo(clock, share=1.0):
    found = Tempo(clock, share)
    found.slice = Slice(clock)
    return found


def test_a_slice_of_time_is_followed_by_a_pause_and_nothing_is_lost():
    events = [*map(stanza, range(40)), StreamClose()]
    found = list(paced(events, None, tempo(ticking(SLICE_SECONDS / 8))))
    pauses = [place for place, event in enumerate(found) if isinstance(event, Pause)]
    assert [event for event in found if not isinstance(event, Pause)] == events
    assert len(pauses) == 4
    assert all(8 <= after - before <= 10 for before, after in itertools.pairwise(pauses))
    assert {found[place].seconds for place in pauses} == {0.0}


def test_who_was_at_work_rests_in_proportion():
    events = [*map(stanza, range(40))]
    found = paced(events, None, tempo(ticking(SLICE_SECONDS / 8), share=0.25))
    rests = [event.seconds for event in found if isinstance(event, Pause)]
    assert len(rests) == 4
    assert all(3 * SLICE_SECONDS < seconds < 4.5 * SLICE_SECONDS for seconds in rests)


def test_without_much_work_there_is_no_pause():
    events = [stanza(number) for number in range(1000)]
    assert list(paced(events, None, tempo(lambda: 0.0))) == events


@pytest.mark.asyncio
async def test_waiting_is_no_work(monkeypatch):
    now, turns = [0.0], []
    monkeypatch.setattr(Turns, "call", lambda self, work: turns.append(work))

    async def slow(_session, _message):
        await asyncio.sleep(0)
        now[0] += 10 * SLICE_SECONDS

    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.receive_all()
        world.app.service.tempo.slice = Slice(lambda: now[0])
        world.app.hooks.message_sent = ((slow,), (), ())
        await alice.send(f"<message to='{bob.jid}'><body>x</body></message>" * 3 * FEW)
        assert len(await bob.receive_all()) == 3 * FEW
        assert not turns


def test_a_bucket_pauses_before_each_stanza_that_is_too_early():
    now = [0.0]
    bucket = TokenBucket(10, 2, lambda: now[0])
    found = []
    for event in paced([stanza(number) for number in range(4)], bucket, tempo(lambda: 0.0)):
        found.append(event.seconds if isinstance(event, Pause) else event.id)
        if isinstance(event, Pause):
            now[0] += event.seconds
    assert found == ["0", "1", pytest.approx(0.1), "2", pytest.approx(0.1), "3"]


def test_a_read_takes_its_tokens_together_or_none():
    now = [0.0]
    bucket = TokenBucket(10, 4, lambda: now[0])
    assert bucket.take_all(3)
    assert not bucket.take_all(2)
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(0.1)
    now[0] += 60.0  # no more than the burst is ever saved up
    assert not bucket.take_all(5)
    assert bucket.take_all(4)


@pytest.mark.asyncio
async def test_a_read_beyond_the_rate_waits():
    async with World(settings={"limits": {"stanza_rate": 0.5, "stanza_burst": 3}}) as world:
        alice = await world.login("alice")
        alice.write("<iq type='get' id='x'><query xmlns='jabber:iq:roster'/></iq>" * FEW)
        assert not alice.transport.is_reading()


def test_no_pause_is_long():
    bucket = TokenBucket(0.01, 1, lambda: 0.0)
    events = paced([stanza(0), stanza(1)], bucket, tempo(lambda: 0.0))
    next(events)
    assert next(events) == Pause(LONGEST_PAUSE)


@pytest.mark.asyncio
async def test_one_turn_in_each_turn_of_the_loop():
    turns, order = Turns(), []

    async def work(name, times):
        for _ in range(times):
            await turns.next()
            order.append(name)

    tasks = [asyncio.create_task(work(name, 3)) for name in "abc"]
    seen = []
    while not all(task.done() for task in tasks):
        before = len(order)
        await asyncio.sleep(0)
        seen.append(len(order) - before)
    assert order == list("abc" * 3)
    assert max(seen) == 1


@pytest.mark.asyncio
async def test_who_does_not_wait_any_more_takes_no_turn():
    turns = Turns()
    gone, here = turns.next(), turns.next()
    gone.cancel()
    await asyncio.wait_for(here, PATIENCE)


MANY = READ_SIZE // len(b"<presence/>")


@pytest.mark.asyncio
async def test_a_read_full_of_stanzas_does_not_keep_others_waiting():
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        message = f"<message to='{alice.jid}' type='chat'><body>in between</body></message>"
        await bob.send(message)  # whatever the store is asked for that is known from now on
        await alice.receive_all()
        alice.raw = b""
        alice.app.service.tempo.slice = Slice(ticking(SLICE_SECONDS / 8))  # by what is done, on any machine
        alice.write(b"<presence/>" * MANY)
        bob.write(message)
        await world.settle()
        before, _, behind = alice.raw.partition(b"in between")
        assert before.count(b"<presence") + behind.count(b"<presence") == MANY
        assert behind.count(b"<presence") > MANY / 2


@pytest.mark.asyncio
async def test_a_connection_that_ends_in_its_turn_is_gone():
    async with World() as world:
        alice = await world.login("alice")
        alice.write(b"<presence/>" * (MANY - 2))
        await alice.drop()
        await world.settle()
        assert not world.app.sessions.by_full
        assert not world.app.service.connections


@pytest.mark.asyncio
async def test_few_stanzas_are_taken_at_once():
    async with World() as world:
        alice = await world.login("alice")
        alice.write(b"<presence id='x'/>" * FEW)
        assert alice.session.presence is not None
        assert alice.transport.is_reading()


class Ear:
    """A stream that only listens, and its wire."""

    is_busy = False

    def __init__(self, shared=None):
        self.bytes = 0
        self.wire = Wire(shared or Shared(WireRules(), Tempo(lambda: 0.0), Reports(lambda: 0.0)))
        self.wire.stream = self
        self.transport = MemoryTransport("127.0.0.1")
        self.wire.connection_made(self.transport)

    def begun(self):
        pass

    def received(self, data):
        self.bytes += len(data)


@pytest.mark.asyncio
async def test_after_a_large_read_others_read_first():
    ear = Ear()
    transport = ear.transport
    ear.wire.buffer_updated(MUCH)
    assert transport.is_reading()
    ear.wire.buffer_updated(READ_SIZE)
    assert not transport.is_reading()
    await asyncio.sleep(0)
    assert transport.is_reading()
    assert ear.bytes == MUCH + READ_SIZE


class Costly(Ear):
    """A stream that takes its time over what it is told."""

    def __init__(self, costs):
        self.costs, self.now = costs, 0.0
        super().__init__(Shared(WireRules(), Tempo(lambda: self.now, 0.25), Reports(lambda: 0.0)))

    def received(self, data):
        super().received(data)
        self.now += self.costs


@pytest.mark.asyncio
async def test_who_causes_much_work_is_read_after_a_rest_three_times_as_long():
    ear = Costly(0.01)
    loop = asyncio.get_running_loop()
    began = loop.time()
    ear.wire.buffer_updated(LITTLE + 1)
    for _ in range(3):
        await asyncio.sleep(0)
        ear.wire.regulate()
        assert not ear.transport.is_reading()
    async with asyncio.timeout(10):
        while not ear.transport.is_reading():  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(0.001)
    assert loop.time() - began > 0.025


@pytest.mark.asyncio
async def test_small_pieces_of_work_add_up():
    ear = Costly(0.0001)
    for _ in range(3):
        ear.wire.buffer_updated(LITTLE + 1)
        assert ear.transport.is_reading()
    ear.wire.buffer_updated(LITTLE + 1)
    assert not ear.transport.is_reading()


@pytest.mark.asyncio
async def test_who_lets_time_pass_between_pieces_of_work_does_not_rest():
    ear = Costly(0.0003)
    for _ in range(20):
        ear.wire.buffer_updated(LITTLE + 1)
        assert ear.transport.is_reading()
        ear.now += 0.001


@pytest.mark.asyncio
async def test_of_many_with_much_to_say_one_reads_in_each_turn():
    shared = Shared(WireRules(), Tempo(lambda: 0.0), Reports(lambda: 0.0))
    ears = [Ear(shared) for _ in range(3)]
    for ear in ears:
        ear.wire.buffer_updated(READ_SIZE)
    reading = []
    for _ in range(4):
        reading.append([ear.transport.is_reading() for ear in ears])
        await asyncio.sleep(0)
    assert reading == [[place < turn for place in range(3)] for turn in range(4)]


@pytest.mark.asyncio
async def test_after_a_full_read_a_clogged_connection_is_not_read():
    ear = Ear()
    transport = ear.transport
    ear.wire.buffer_updated(READ_SIZE)
    ear.wire.pause_writing()
    await asyncio.sleep(0)
    assert not transport.is_reading()
