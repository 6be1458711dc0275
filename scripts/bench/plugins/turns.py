"""What the turns of the loop cost while it is asked to watch: for `scripts/bench/worst`."""

import asyncio
import time
from xml.etree.ElementTree import Element

from xmppd.plugin import SERVER, Plugin, Request, element, iq_get

TURNS = "{urn:xmppd:bench:turns}turns"
IDLE = 20e-6
"""Seconds that a turn takes in which nothing happens, watching included."""


class Turns(Plugin):
    """Runs once in each turn, and adds up the processor time that passed in between."""

    async def start(self) -> None:
        """Nobody watches yet."""
        self._is_on = False
        self._last = self._longest = self._sum = 0.0

    @iq_get(TURNS, SERVER)
    def watch(self, request: Request) -> Element:
        """Seconds of the longest turn and of all, since the last such request; `on` says whether to go on."""
        result = element(TURNS, {"longest": f"{self._longest:.7f}", "sum": f"{self._sum:.7f}"})
        self._longest = self._sum = 0.0
        was_on, self._is_on = self._is_on, request.payload.get("on") == "1"
        self._last = time.thread_time()
        if self._is_on and not was_on:
            asyncio.get_running_loop().call_soon(self._turn)
        return result

    def _turn(self) -> None:
        if not self._is_on:
            return
        now = time.thread_time()
        spent, self._last = now - self._last, now
        if spent > IDLE:
            self._longest = max(self._longest, spent)
            self._sum += spent
        asyncio.get_running_loop().call_soon(self._turn)
