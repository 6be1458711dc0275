"""A way to a server that is lost as in a tunnel: first nothing gets through, then connections are gone."""

import asyncio
import contextlib
import socket

STEP = 65536


class Tunnel:
    """A loopback port, `port`, of which each connection is led to another one as long as the way is open."""

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._silent = False
        self._open = True

    async def start(self) -> None:
        """Let connections in."""
        self._server = await asyncio.start_server(self._lead, sock=self._listener)

    def silence(self) -> None:
        """What is sent from now on, in either direction, is lost; nobody is told."""
        self._silent = True

    def cut(self) -> None:
        """Reset all connections, and each new one until `mend`."""
        self._open = False
        for end in self._ends:
            end.transport.abort()

    def mend(self) -> None:
        """New connections are led through again."""
        self._open, self._silent = True, False

    async def close(self) -> None:
        """End it with all connections."""
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, back}
        self._ends |= ends
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        for end in ends:
            end.transport.abort()
        self._ends -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(STEP):
            if not self._silent:
                writer.write(data)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
