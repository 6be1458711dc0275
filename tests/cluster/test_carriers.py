"""Sockets that a node opens for others: a port, and for those of its machine a Unix socket."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from meshes import NotingMesh
from ports import free_ports

from xmppd.carriers import Direct
from xmppd.cluster.connection import Connection
from xmppd.cluster.link import Dialer, Make, connect

pytestmark = pytest.mark.asyncio


class Node(NotingMesh):
    """One that is reached in the way of a server process."""

    def __init__(self, name: str, folder: Path | None) -> None:
        super().__init__(name, time.monotonic)
        self._tasks: set[asyncio.Future[Any]] = set()
        self.way = Direct(name, f"127.0.0.1:{free_ports(1)[0]}", 16, self.links, self._spawn, folder)
        self.dialer = Dialer(name, self.links, self, time.monotonic, connect=self.way.connect)

    def _spawn(self, work: Any) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    async def close(self) -> None:
        await self.dialer.close()
        self.way.shut()
        self.links.close()
        await asyncio.sleep(0.05)


def sockets(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if stat.S_ISSOCK(path.stat().st_mode)]


async def connected(one: Node, other: str) -> Any:
    async with asyncio.timeout(10):
        while other not in one.connections:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    return one.connections[other]


async def test_nodes_of_one_machine_use_a_unix_socket(tmp_path: Path) -> None:
    left = tmp_path / "trunk-0123456789abcdef.sock"  # of a process that was killed
    left.touch()
    a, b = Node("a", None), Node("b", tmp_path)
    await a.way.open()
    await b.way.open()
    [path] = sockets(tmp_path)
    assert not left.exists() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b.way.addresses == (f"unix:{path}", "b")
    a.dialer.want("b", b.way.addresses)
    await connected(a, "b")
    assert (await connected(b, "a")).address == "", "it has none: it is no connection by TCP"
    await a.close()
    await b.close()
    assert sockets(tmp_path) == []


async def connect_as_another_user(address: str, make: Make) -> Connection:
    """Reach others as a user who may not open the socket of another one."""
    if address == "unix:/of/another/user.sock":
        raise PermissionError
    return await connect(address, make)


async def test_those_of_others_do_not_find_it_and_use_the_port() -> None:
    a, b = Node("a", None), Node("b", None)
    a.dialer = Dialer("a", a.links, a, time.monotonic, connect=connect_as_another_user)
    await a.way.open()
    await b.way.open()
    port = b.way._listener.port
    a.dialer.want("b", ("unix:/of/another/machine.sock", "unix:/of/another/user.sock", f"127.0.0.1:{port}"))
    assert (await connected(a, "b")).address == "127.0.0.1"
    b.way.shut()
    (await connected(a, "b")).close()
    async with asyncio.timeout(10):
        while not a.told("failed"):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert a.told("failed")[0] == ("failed", "b", "connection-refused", True), (
        "as if there were the port alone"
    )
    await a.close()
    await b.close()


async def test_a_path_that_is_too_long_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    b = Node("b", folder)
    await b.way.open()
    assert b.way.addresses == ("b",) and sockets(folder) == []
    await b.close()
