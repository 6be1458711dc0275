"""Well-behaved clients that notice what is done to them, in a process of their own; only for `attack.py`.

On two cores they share one with the attacker, and would measure him more than the server. So they have a
real-time priority where they may, and the latency that counts begins when a client calls `send` and ends
when the kernel puts the server's bytes into the receiver's socket, by the kernel's own time stamp. What they
noticed themselves, with the millisecond by which epoll is late, is counted beside it.
"""

import contextlib
import multiprocessing
import os
import re
import socket
import struct
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from swarm import CHUNK, Client, Swarm

STAMP = re.compile(rb"<body>t(\d+) (\d+) (\d+)</body>")
SO_TIMESTAMPNS = 35
"""Not in Python's `socket`: the kernel's time of arrival comes with what is read (Linux, socket(7))."""


@dataclass
class Seen:
    """What the pairs noticed since they were asked last: milliseconds from `send` to the arrival at the
    receiver's socket, and from when a message was due to when it was read; and counts of logins that failed,
    of pairs that were cut off, and of messages that never came though a later one did.
    """

    latencies: list[float] = field(default_factory=list)
    felt: list[float] = field(default_factory=list)
    logins: list[float] = field(default_factory=list)
    failed: int = 0
    lost: int = 0
    missing: int = 0


def quantile(values: list[float], part: float) -> float:
    """0 when there is none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


class Stamped(Client):
    """A client that knows when what it read had arrived: `arrived` is in ns of `time.time_ns`."""

    def __init__(self, swarm: Swarm, port: int, user: str) -> None:
        super().__init__(swarm, port, user)
        self.arrived = 0
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def receive(self) -> bytes:
        data, extras, _, _ = self.sock.recvmsg(CHUNK, 128)
        self.arrived = time.time_ns()
        for level, kind, value in extras:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("ll", value[: struct.calcsize("ll")])
                self.arrived = seconds * 10**9 + nanoseconds
        return data


class Pairs:
    """Pairs that chat at a fixed rate, whatever happens; they never wait for an answer before they send. The
    user behind the last of them logs in once a second.
    """

    def __init__(self, swarm: Swarm, port: int, count: int, rate: float) -> None:
        self.swarm, self.port = swarm, port
        self.seen = Seen()
        self.clients = [Stamped(swarm, port, f"user{number}") for number in range(2 * count)]
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
        body = f"<body>t{time.time_ns()} {int(self._due * 1e9)} {self._turn}</body>"
        to = f"user{number ^ 1}@localhost"
        self.clients[number].send(f"<message to='{to}' type='chat' id='a'>{body}</message>".encode())
        self._due += self._gap
        self.swarm.at(self._due, self._send)

    def _receive(self, number: int, data: bytes) -> None:
        text = self._rests[number] + data
        end = 0
        for found in STAMP.finditer(text):
            self.seen.latencies.append((self.clients[number].arrived - int(found[1])) / 1e6)
            self.seen.felt.append((time.monotonic() - int(found[2]) / 1e9) * 1e3)
            turn = int(found[3])
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
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
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
