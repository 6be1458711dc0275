"""Ports of plugins are the server's: a reload refuses nobody."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from xmppd.errors import CommandError
from xmppd.section import changed
from xmppd.testing import World

GREETER = '''"""Says what it is to whoever connects, and counts seconds."""

import asyncio

from xmppd.plugin import *


class GreeterConfig(PluginConfig):
    port: int = 0


class Greeting(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"%s")
        transport.close()


class Greeter(Plugin):
    Config = GreeterConfig
    ticks = Kept(list)

    @listener(port=lambda self: self.config.port)
    def greeting(self):
        return Greeting()

    @every(1)
    def tick(self):
        self.ticks.append("%s")
'''


def world_with(folder: Path, text: str, **config: Any) -> World:
    """A server with the greeter."""
    (folder / "greeter.py").write_text(text)
    return World(plugins=("greeter",), plugin_folders=(folder,), plugin_config={"greeter": config})


async def greeted(world: World) -> bytes:
    """What somebody who connects now is told."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.app.listeners.ports["greeter.greeting"])
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_a_reload_under_load_refuses_nobody_and_keeps_time(tmp_path: Path) -> None:
    async with world_with(tmp_path, GREETER % ("0", "0")) as world:
        await world.app.listeners.open(100)
        port = world.app.listeners.ports["greeter.greeting"]
        heard: list[bytes] = []
        is_over = False

        async def crowd() -> None:
            while not is_over:
                heard.append(await greeted(world))

        callers = [asyncio.create_task(crowd()) for _ in range(8)]
        for number in range(1, 21):
            (tmp_path / "greeter.py").write_text(GREETER % (number, number))
            await world.app.loader.reload("greeter", world.config)
            assert await greeted(world) == str(number).encode()
            # Not by `advance`, which waits for a moment without newcomers: with some Pythons none comes.
            world.clock.seconds += 1
            world.app.timers.tick()
        is_over = True
        await asyncio.gather(*callers)
        await world.settle()
        assert world.app.listeners.ports == {"greeter.greeting": port}
        assert set(heard) <= {str(number).encode() for number in range(21)} and len(heard) > 20
        assert world.plugin("greeter").ticks == [str(number) for number in range(1, 21)]


@pytest.mark.asyncio
async def test_a_port_is_closed_when_its_plugin_goes_for_good(tmp_path: Path) -> None:
    async with world_with(tmp_path, GREETER % ("x", "x")) as world:
        await world.app.listeners.open(100)
        port = world.app.listeners.ports["greeter.greeting"]
        plugins = changed(world.config.plugins, enabled=())
        await world.app.loader.load(changed(world.config, plugins=plugins))
        assert world.app.listeners.ports == {}
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.asyncio
async def test_nothing_listens_where_no_process_serves(tmp_path: Path) -> None:
    async with world_with(tmp_path, GREETER % ("x", "x")) as world:
        assert world.app.listeners.ports == {}


@pytest.mark.asyncio
async def test_an_address_with_colons_is_told_from_its_port(tmp_path: Path) -> None:
    text = (GREETER % ("x", "x")).replace("port=lambda", "address='2001:db8::1', port=lambda")
    async with world_with(tmp_path, text, port=6301) as world:
        with pytest.raises(CommandError, match=r"cannot listen on \[2001:db8::1\]:6301: "):
            await world.app.listeners.open(100)


@pytest.mark.asyncio
async def test_a_port_that_is_taken_refuses_the_plugin_and_leaves_the_old_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with world_with(tmp_path, GREETER % ("old", "old")) as world:
            await world.app.listeners.open(100)
            before = world.app.listeners.ports
            config = {"greeter": {"port": taken.getsockname()[1]}}
            plugins = changed(world.config.plugins, config=config)
            with pytest.raises(CommandError, match=r"greeter.greeting cannot listen on 127.0.0.1:"):
                await world.app.loader.load(changed(world.config, plugins=plugins))
            assert world.app.listeners.ports == before
            assert await greeted(world) == b"old"


@pytest.mark.asyncio
async def test_a_port_that_moves_is_open_at_the_new_place_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with world_with(tmp_path, GREETER % ("x", "x")) as world:
        await world.app.listeners.open(100)
        before = world.app.listeners.ports["greeter.greeting"]
        plugins = changed(world.config.plugins, config={"greeter": {"port": port}})
        await world.app.loader.load(changed(world.config, plugins=plugins))
        assert world.app.listeners.ports == {"greeter.greeting": port}
        assert await greeted(world) == b"x"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", before)


@pytest.mark.asyncio
async def test_a_protocol_that_cannot_be_made_costs_its_connection_only(tmp_path: Path) -> None:
    broken = (GREETER % ("x", "x")).replace("return Greeting()", "return 1 / 0")
    async with world_with(tmp_path, broken) as world:
        await world.app.listeners.open(100)
        assert await greeted(world) == b""
        assert world.app.jobs.failed == 1
        (tmp_path / "greeter.py").write_text(GREETER % ("mended", "x"))
        await world.app.loader.reload("greeter", world.config)
        assert await greeted(world) == b"mended"
