"""The bus on a Redis that goes away, is stopped, refuses, and cuts off who reads too slowly."""

import asyncio
import os
import signal
import time

import pytest
import pytest_asyncio

from tests.store.cache.conftest import RedisServer
from xmppd.store.cache.bus import ECHO_SECONDS, UNHEARD, RedisBus
from xmppd.store.cache.url import Place

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]


class Node:
    """One node's use of the bus: `heard`, and `turns`, each time it could be used or not."""

    def __init__(self, url, name, prefix="test"):
        self.name = name
        self.heard = []
        self.turns = []
        self.bus = RedisBus(Place(url, 1.0), prefix, 1.0)

    async def open(self):
        await self.bus.open(self.name, self.heard.append, self.turns.append)
        return self


async def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def nodes():
    made = []

    async def make(url, *names, **options):
        made.extend([await Node(url, name, **options).open() for name in names])
        return made[-len(names) :]

    yield make
    for node in made:
        await node.bus.close()


async def test_what_is_said_comes_whole_and_in_order(shared_server, nodes):
    a, b = await nodes(shared_server.url, "a:1", "b:1")
    said = [b"x" + bytes([number % 256]) * (number * 97 % 5000) for number in range(500)]
    said.append(bytes(3_000_000))
    for data in said:
        a.bus.publish("b:1", data)
    b.bus.publish("a:1", b"and back")
    await a.bus.echo()
    await b.bus.echo()
    await a.bus.echo()
    assert b.heard == said and a.heard == [b"and back"]
    assert (a.turns, b.turns) == ([True], [True])
    assert (a.bus.said, b.bus.said) == (501, 1)


async def test_two_services_in_one_redis_do_not_hear_each_other(shared_server, nodes):
    [a] = await nodes(shared_server.url, "a:1")
    [other] = await nodes(shared_server.url, "a:1", prefix="other")
    a.bus.publish("a:1", b"to ourselves")
    await a.bus.echo()
    await other.bus.echo()
    assert (a.heard, other.heard) == ([b"to ourselves"], [])


async def test_it_can_be_begun_without_redis_and_comes_when_that_comes(tmp_path, nodes, caplog):
    server = RedisServer(tmp_path / "redis")
    server.kill()
    [a] = await nodes(server.url, "a:1")
    assert a.turns == []
    a.bus.publish("a:1", b"lost")
    await a.bus.echo()
    server.start()
    await until(lambda: a.turns == [True])
    await a.bus.echo()
    assert a.heard == []
    server.kill()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["bus-lost"]


async def test_a_restart_of_redis_is_seen_at_once(own_server, nodes):
    a, b = await nodes(own_server.url, "a:1", "b:1")
    own_server.kill()
    await until(lambda: (a.turns, b.turns) == ([True, False], [True, False]))
    a.bus.publish("b:1", b"lost")
    own_server.start()
    await until(lambda: (a.turns, b.turns) == ([True, False, True], [True, False, True]))
    a.bus.publish("b:1", b"heard")
    await a.bus.echo()
    await b.bus.echo()
    assert b.heard == [b"heard"]


async def test_a_redis_that_stands_still_is_found_out(own_server, nodes, caplog):
    [a] = await nodes(own_server.url, "a:1")
    os.kill(own_server._process.pid, signal.SIGSTOP)
    await until(lambda: a.turns == [True, False])
    os.kill(own_server._process.pid, signal.SIGCONT)
    await until(lambda: a.turns == [True, False, True])
    [told] = [record for record in caplog.records if record.message == "bus-lost"]
    assert told.problem == "nothing comes back from Redis"


async def test_who_reads_too_slowly_is_cut_off_and_comes_back(own_server, nodes, caplog):
    own_server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 1")
    a, b = await nodes(own_server.url, "a:1", "b:1")
    b.bus._hear = lambda data: time.sleep(0.05)
    for _ in range(100):
        a.bus.publish("b:1", bytes(200_000))
    await a.bus.echo()
    await until(lambda: b.turns == [True, False, True])
    b.bus._hear = b.heard.append
    a.bus.publish("b:1", b"heard")
    await a.bus.echo()
    await b.bus.echo()
    assert b.heard[-1] == b"heard" and a.turns == [True]


async def test_what_redis_refuses_is_told_once(own_server, nodes, caplog):
    own_server.ask("ACL", "SETUSER", "poor", "on", ">poor", "~*", "+@all", "resetchannels", "&test:trunk:a:1")
    url = own_server.url.replace("redis://", "redis://poor:poor@")
    [a] = await nodes(url, "a:1")
    assert a.turns == [True]
    a.bus.publish("b:1", b"x")
    await until(lambda: a.turns == [True, False, True])
    [told] = [record for record in caplog.records if record.message == "bus-lost"]
    assert "b:1" in told.problem or "permissions" in told.problem
    [other] = await nodes(url, "b:1")
    await asyncio.sleep(0.5)
    assert other.turns == []
    assert len([record for record in caplog.records if record.message == "bus-lost"]) == 2


async def test_a_mistake_above_costs_one_packet(shared_server, nodes, caplog):
    a, b = await nodes(shared_server.url, "a:1", "b:1")
    b.bus._hear = lambda data: 1 / 0 if data == b"bad" else b.heard.append(data)
    for data in (b"one", b"bad", b"two"):
        a.bus.publish("b:1", data)
    await a.bus.echo()
    await b.bus.echo()
    assert b.heard == [b"one", b"two"] and b.turns == [True]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["bus-failed"]


async def test_the_last_words_are_said(shared_server, nodes):
    a, b = await nodes(shared_server.url, "a:1", "b:1")
    a.bus.publish("b:1", b"bye")
    await a.bus.close()
    await b.bus.echo()
    assert b.heard == [b"bye"]
    assert a.turns == [True, False]


async def test_it_ends_soon_where_redis_stands_still(own_server, nodes):
    [a] = await nodes(own_server.url, "a:1")
    os.kill(own_server._process.pid, signal.SIGSTOP)
    await asyncio.wait_for(a.bus.close(), ECHO_SECONDS * UNHEARD + 5)
    assert a.turns == [True, False]
