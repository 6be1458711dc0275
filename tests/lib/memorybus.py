"""A bus in memory, for tests with several nodes in one process: it loses and cuts what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xmppd.cluster.connection import Carrier, Connection, Links
from xmppd.cluster.lines import BUS, Kind, Lines, Packet, Timer, unpacked


class MemoryBus:
    """Channels by name, with the same ways to go wrong as `memorynet.MemoryNetwork`; `loses` is asked of
    each packet, with its channel. `packets`: all that was said, in order.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float],
    ) -> None:
        self.loses: Callable[[str, Packet], bool] = lambda channel, packet: False
        self.packets: list[tuple[str, Packet]] = []
        self.lines: dict[str, Lines] = {}
        self._call_soon = call_soon
        self._call_later = call_later
        self._clock = clock
        self._cuts: set[frozenset[str]] = set()

    def listen(self, name: str, links: Links, life: int = 1) -> Lines:
        """A node with a channel of this name."""
        lines = Lines(name, life, self.publish, links.accepted, self._call_later, self._clock)
        lines.turned(True)
        self.lines[name] = lines
        return lines

    def host(self, own: str) -> _Host:
        """The bus as the node of this name has it."""
        return _Host(self.lines[own])

    def publish(self, name: str, data: bytes) -> None:
        """Say something in a channel."""
        packet = unpacked(data)
        self.packets.append((name, packet))
        if not self.is_cut(packet.sender, name) and not self.loses(name, packet):
            self._call_soon(lambda: self._arrive(name, data))

    def _arrive(self, name: str, data: bytes) -> None:
        lines = self.lines.get(name)
        if lines is not None and lines.is_up:
            lines.received(data)

    def cut(self, one: str, other: str) -> None:
        """What the two say to each other is lost."""
        self._cuts.add(frozenset((one, other)))

    def heal(self, one: str, other: str) -> None:
        """It arrives again."""
        self._cuts.discard(frozenset((one, other)))

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between the two."""
        return frozenset((one, other)) in self._cuts

    def reset(self, one: str, other: str) -> None:
        """Lines between the two end."""
        for own, peer in ((one, other), (other, one)):
            for line in [*self.lines[own]._lines.values()]:
                if line.peer == peer:
                    line.lose("reset")

    def stop(self, name: str) -> None:
        """Nobody hears this channel any more, as after the end of a process."""
        self.lines.pop(name, None)

    def said(self, *kinds: Kind) -> list[tuple[str, int]]:
        """Channel and number of the packets of these kinds."""
        return [(name, packet.number) for name, packet in self.packets if packet.kind in kinds]


class _Host:
    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def connect(self, address: str, make: Callable[[Carrier], Connection]) -> Any:
        """Connect to the node of a name; OSError."""
        return await self._lines.connect(BUS + address, make)
