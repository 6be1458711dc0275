"""Well-behaved clients that notice what is done to them, in a process of their own; only for `attack.py`."""

import multiprocessing
import os
import re
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from swarm import Client, Swarm

STAMP = re.compile(rb"<body>t(\d+) (\d+)</body>")


@dataclass
class Seen:
    """What the pairs noticed since they were asked last: milliseconds, and counts of logins that failed, of
    pairs that were cut off, and of messages that never came though a later one did.
    """

    latencies: list[float] = field(default_factory=list)
    logins: list[float] = field(default_factory=list)
    failed: int = 0
    lost: int = 0
    missing: int = 0

    def quantile(self, part: float) -> float:
        """Of the latencies."""
        return quantile(self.latencies, part)


def quantile(values: list[float], part: float) -> float:
    """0 when there is none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


class Pairs:
    """Pairs that chat at a fixed rate, whatever happens: latency counts from when a message was due. The user
    behind the last of them logs in once a second.
    """

    def __init__(self, swarm: Swarm, port: int, count: int, rate: float) -> None:
        self.swarm, self.port = swarm, port
        self.seen = Seen()
        self.clients = [Client(swarm, port, f"user{number}") for number in range(2 * count)]
        self._rests = [b""] * len(self.clients)
        self._last: dict[int, int] = {}
        for number, client in enumerate(self.clients):
            client.on_stanzas = lambda data, number=number: self._receive(number, data)
            client.lost = self._lost
        if not swarm.run(60, lambda: all(client.is_ready for client in self.clients)):
            raise SystemExit("the pairs could not log in")
        self._gap = 1 / (rate * count)
        self._turn = 0
        self._due = time.monotonic() + self._gap
        swarm.at(self._due, self._send)
        swarm.every(1.0, self._try_login, lambda: False)

    def _lost(self) -> None:
        self.seen.lost += 1

    def _send(self) -> None:
        number = self._turn % len(self.clients)
        self._turn += 1
        body = f"<body>t{int(self._due * 1e9)} {self._turn}</body>"
        to = f"user{number ^ 1}@localhost"
        self.clients[number].send(f"<message to='{to}' type='chat' id='a'>{body}</message>".encode())
        self._due += self._gap
        self.swarm.at(self._due, self._send)

    def _receive(self, number: int, data: bytes) -> None:
        text = self._rests[number] + data
        end = 0
        for found in STAMP.finditer(text):
            self.seen.latencies.append((time.monotonic() - int(found[1]) / 1e9) * 1e3)
            turn = int(found[2])
            self.seen.missing += turn - self._last.get(number, turn - len(self.clients)) - len(self.clients)
            self._last[number] = turn
            end = found.end()
        self._rests[number] = text[end:][-200:]

    def _try_login(self) -> None:
        client = Client(self.swarm, self.port, f"user{len(self.clients)}", resource=f"p{time.monotonic_ns()}")

        def done() -> None:
            self.seen.logins.append(client.took * 1e3)
            client.cut()

        def failed() -> None:
            self.seen.failed += 1

        client.on_ready, client.lost = done, failed

    @classmethod
    def main(cls, pipe: Connection, port: int, count: int, rate: float) -> None:
        """The life of their process: log in, say so, and tell what was seen when asked."""
        swarm = Swarm()
        pairs = cls(swarm, port, count, rate)
        pipe.send(None)

        def tell(mask: int) -> None:
            if pipe.recv() == "stop":
                os._exit(0)
            pipe.send(pairs.seen)
            pairs.seen = Seen()

        swarm.watch(pipe.fileno(), tell, 1)
        swarm.run(86400)


class Watch:
    """The process of the pairs, as others see it."""

    def __init__(self, port: int, count: int, rate: float) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=Pairs.main, args=(theirs, port, count, rate), daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def take(self) -> Seen:
        """What was seen since the last call."""
        self._pipe.send("take")
        seen: Seen = self._pipe.recv()
        return seen

    def stop(self) -> None:
        """End the pairs."""
        self._pipe.send("stop")
        self._process.join()
