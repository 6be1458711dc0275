"""A relay before a port that can be cut: silent as a lost network, with its answers held up, or with every
connection reset.
"""

import asyncio
import contextlib
from collections.abc import Callable


def nobody(_first: bytes) -> str:
    """Where it does not matter who connects."""
    return ""


class Relay:
    """Takes connections on `port` of `host`, and passes them on to `target`, a host and a port.

    `whose` says by the first bytes of a connection who made it, so that one of them can be cut off.
    """

    def __init__(
        self,
        port: int,
        target: tuple[str, int],
        whose: Callable[[bytes], str] = nobody,
        *,
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self.port = port
        self._target = target
        self._whose = whose
        self._silent: set[str] = set()
        self._hushed: set[str] = set()
        self._changed = asyncio.Event()
        self._pairs: dict[asyncio.StreamWriter, str] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, unless it does."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port)

    def close(self) -> None:
        """Refuse whoever comes, and end what is there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset(*{*self._pairs.values()})

    def silence(self, *whose: str) -> None:
        """Nothing more of theirs goes through; what is under way arrives when it is healed."""
        self._silent.update(whose)

    def hush(self, *whose: str) -> None:
        """What they ask arrives, and the answers only when it is healed."""
        self._hushed.update(whose)

    def reset(self, *whose: str) -> None:
        """End all their connections at once."""
        for writer, who in [*self._pairs.items()]:
            if who in whose:
                writer.transport.abort()

    def heal(self) -> None:
        """Let everything through again."""
        self._silent.clear()
        self._hushed.clear()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _may_pass(self, who: str, *, is_answer: bool) -> None:
        while who in self._silent or (is_answer and who in self._hushed):
            await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            first = await reader.read(4096)
            who = self._whose(first)
            self._pairs[writer] = who
            await self._may_pass(who, is_answer=False)
            back, onward = await asyncio.open_connection(*self._target)
            self._pairs[onward] = who
            onward.write(first)
            pumps = [
                self._pump(reader, onward, who, is_answer=False),
                self._pump(back, writer, who, is_answer=True),
            ]
            tasks = [asyncio.create_task(pump) for pump in pumps]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
        except OSError:
            pass  # nobody listens there: the caller finds its connection ended
        finally:
            for end in (writer, onward):
                if end is not None:
                    self._pairs.pop(end, None)
                    end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._may_pass(who, is_answer=is_answer)
                writer.write(data)
                await writer.drain()
