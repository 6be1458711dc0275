"""Clients in programs of their own: each is told what to do, and tells what happens, by lines of JSON."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

SECONDS = 20.0

Event = dict[str, Any]


class Driven:
    """Such a program. What it tells has a kind, `event`, and is kept until it is heard.

    What it hears of and sends over its stream is told as `received` and `sent`, with the element as `xml`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._events: list[Event] = []
        self._said = ""
        self._more = asyncio.Event()
        self._ended = False
        self._numbers = 0

    async def start(self, **settings: Any) -> None:
        """Begin it, with these settings."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment, limit=2**24
        )
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._complaints())]
        self.tell("settings", **settings)

    def tell(self, do: str, **more: Any) -> None:
        """Have it do something."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")

    def send(self, xml: str) -> None:
        """Have it send an element."""
        self.tell("send", xml=xml)

    async def hear(self, event: str, fits: Callable[[Event], bool] = lambda _: True) -> Event:
        """The first event of a kind that fits, which is taken out."""
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    for one in self._events:
                        if one["event"] == event and fits(one):
                            self._events.remove(one)
                            return one
                    if self._ended:
                        break
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            pass
        raise AssertionError(f"no {event}, but {self.told}; {self._said}")

    async def element(
        self, event: str, tag: str, fits: Callable[[ET.Element], bool] = lambda _: True
    ) -> ET.Element:
        """The first element that it has `received` or `sent`, by its Clark name, which is taken out."""

        def is_it(one: Event) -> bool:
            try:
                element = ET.fromstring(one["xml"])
            except ET.ParseError:  # the beginning of a stream
                return False
            return element.tag == tag and fits(element)

        return ET.fromstring((await self.hear(event, is_it))["xml"])

    async def received(self, tag: str, fits: Callable[[ET.Element], bool] = lambda _: True) -> ET.Element:
        """As `element`."""
        return await self.element("received", tag, fits)

    async def sent(self, tag: str, fits: Callable[[ET.Element], bool] = lambda _: True) -> ET.Element:
        """As `element`."""
        return await self.element("sent", tag, fits)

    async def ask(self, kind: str, payload: str, to: str = "") -> ET.Element:
        """The answer to an iq."""
        self._numbers += 1
        identifier = f"asked{self._numbers}"
        address = f" to='{to}'" if to else ""
        self.send(f"<iq xmlns='jabber:client' type='{kind}' id='{identifier}'{address}>{payload}</iq>")
        return await self.received("{jabber:client}iq", lambda iq: iq.get("id") == identifier)

    @property
    def told(self) -> str:
        """What nobody has heard yet, a line for each."""
        return "".join(f"\n{one}" for one in self._events)

    def heard(self, event: str) -> list[Event]:
        """All events of a kind that nobody has heard yet; they are taken out."""
        found = [one for one in self._events if one["event"] == event]
        self._events = [one for one in self._events if one["event"] != event]
        return found

    async def close(self) -> None:
        """End it, if it has not ended."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            self._events.append(json.loads(line))
            self._more.set()
        self._ended = True
        self._more.set()

    async def _complaints(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in self._process.stderr:
            self._said += line.decode(errors="replace")
