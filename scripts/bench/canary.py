"""One client that pings all the time, and the longest turn of the loop of the server that it is on."""

from __future__ import annotations

import asyncio
import re
import threading
import time

from stream import Stream, connect

PAUSE = 0.02
TURNS = "urn:xmppd:bench:turns"


class Canary:
    """Pings from a thread of its own inside `with`. `seconds`: how long each answer took."""

    def __init__(self, port: int, user: str, *, watches_turns: bool = False) -> None:
        self.seconds: list[float] = []
        self.longest_turn = 0.0
        self._port = port
        self._user = user
        self._watches = watches_turns
        self._is_over = threading.Event()
        self._is_there = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))

    def __enter__(self) -> Canary:
        self._thread.start()
        self._is_there.wait(60)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ping no more."""
        self._is_over.set()
        self._thread.join()

    def quantile(self, share: float) -> float:
        """So many of the answers did not take longer than this."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    async def _live(self) -> None:
        stream = await connect(self._port)
        await stream.log_in(self._user, "secret")
        if self._watches:
            await self._turns(stream, is_on=True)
        self._is_there.set()
        while not self._is_over.is_set():
            began = time.monotonic()
            await stream.ping()
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(PAUSE)
        if self._watches:
            self.longest_turn = await self._turns(stream, is_on=False)
        stream.cut()

    @staticmethod
    async def _turns(stream: Stream, *, is_on: bool) -> float:
        answer = await stream.ask("get", f"<turns xmlns='{TURNS}' on='{int(is_on)}'/>", to="localhost")
        longest = re.search(rb"longest=['\"]([\d.]+)", answer)
        return float(longest[1]) if longest is not None else 0.0
