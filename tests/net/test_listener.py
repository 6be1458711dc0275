"""Listening sockets that close while clients are connecting, where several processes share a port."""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from pathlib import Path
from threading import Event, Thread
from typing import cast

import pytest
import uvloop
from patience import PATIENCE, until

from xmppd.net import listener
from xmppd.net.listener import Listener

CONNECTS = 4


class Greeter(asyncio.Protocol):
    """Says a word, and ends the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's own is none by its class
        transport.write(b"hello")
        transport.close()


@pytest.fixture
def families():
    """Addresses that can be listened at."""
    found = []
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family) as trying:
            trying.bind((host, 0))
            found.append(host)
    return found


def spawned(tasks):
    def spawn(work):
        tasks.append(asyncio.ensure_future(work))

    return spawn


def dial(host, port, is_over, outcomes):
    while not is_over.is_set():
        try:
            with socket.create_connection((host, port), timeout=PATIENCE) as peer:
                outcomes[peer.recv(8)] += 1
        except OSError as error:
            outcomes[repr(error)] += 1


@pytest.mark.asyncio
async def test_no_client_is_reset_where_another_process_has_the_port(families):
    for host in families:
        tasks: list[asyncio.Future[None]] = []
        stays, goes = (Listener(Greeter, spawned(tasks)) for _ in range(2))
        await stays.open(host, 0, 128, reuse_port=True)
        is_over, outcomes = Event(), Counter()
        threads = [Thread(target=dial, args=(host, stays.port, is_over, outcomes)) for _ in range(CONNECTS)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            await goes.open(host, stays.port, 128, reuse_port=True)
            await asyncio.sleep(0.05)
            await goes.drain()
        await asyncio.sleep(1.2)  # until who was not heard has said it again
        is_over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        stays.close()
        assert set(outcomes) == {b"hello"}, host
        assert outcomes[b"hello"] > 10


@pytest.mark.asyncio
async def test_who_has_not_begun_yet_is_left_to_the_other_process():
    with contextlib.ExitStack() as sockets:
        shared = [
            sockets.enter_context(listener.bound(socket.AF_INET, ("127.0.0.1", 0), 64, reuse_port=True))
        ]
        place = shared[0].getsockname()
        shared.append(sockets.enter_context(listener.bound(socket.AF_INET, place, 64, reuse_port=True)))
        assert listener.refuse_newcomers(shared[1])
        peers = [asyncio.to_thread(socket.create_connection, place, PATIENCE) for _ in range(20)]
        opening = asyncio.gather(*peers)
        await asyncio.sleep(0.2)
        with pytest.raises(BlockingIOError):
            shared[1].accept()
        shared[1].close()
        for peer in await opening:
            peer.close()


def test_a_port_of_its_own_has_no_filter():
    with listener.bound(socket.AF_INET, ("127.0.0.1", 0), 64) as alone:
        assert not listener.refuse_newcomers(alone)


LOOPS = pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_a_protocol_that_cannot_be_made_is_a_job_that_failed_and_ends_the_connection(make_loop) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(fail_to_make())


async def fail_to_make() -> None:
    def make() -> asyncio.Protocol:
        raise LookupError("no protocol today")

    tasks: list[asyncio.Future[None]] = []
    listening = Listener(make, spawned(tasks))
    await listening.open("127.0.0.1", 0, 8)
    reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
    assert await reader.read() == b""
    assert listening.coming == 0
    [job] = tasks
    with pytest.raises(LookupError):
        await job
    writer.close()
    listening.make = Greeter
    reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
    assert await reader.read() == b"hello"
    assert listening.coming == 0
    writer.close()
    listening.close()


def open_sockets() -> int:
    """How many sockets this process has."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


@LOOPS
def test_the_descriptor_of_a_connection_is_closed_with_it_and_only_once(make_loop) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(come_and_go())


async def come_and_go() -> None:
    listening = Listener(Greeter, spawned([]))
    await listening.open("127.0.0.1", 0, 8)
    before = open_sockets()
    others: dict[socket.socket, int] = {}
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
        # They take the numbers that are free now, and nobody else may close them.
        others |= {other: os.fstat(other.fileno()).st_ino for other in socket.socketpair()}
    await until(lambda: open_sockets() <= before + len(others), lambda: asyncio.sleep(0.01))
    assert listening.coming == 0
    for other, inode in others.items():
        assert os.fstat(other.fileno()).st_ino == inode
        other.close()
    listening.close()
