"""Six ways to be a nuisance to a server; only for `attack.py`."""

import time
from collections.abc import Callable

from swarm import HEADER, Client, Swarm, Wire

FIRST, BOMB = 300, 400
"""Users of the attacks, and of the presence bomb."""
CONTACTS = 200
SOFT, HARD = 1_048_576, 4_194_304
MIB = 1_048_576
DEAF_SECONDS = 1.0
FREE_MIB, SESSION_KIB, CONNECTION_KIB, HANDSHAKE_KIB = 64, 24, 8, 48


class Attack:
    """One way to be a nuisance. `prepare` logs in, `start` begins, `stop` drops everything.

    `connections`, `handshakes`, `sessions` and `clogged` are what the bound on memory counts.
    """

    name = ""
    connections = handshakes = sessions = clogged = 0

    def __init__(self, swarm: Swarm, port: int, tls_port: int) -> None:
        self.swarm, self.port, self.tls_port = swarm, port, tls_port
        self.wires: list[Wire] = []
        self.is_on = True
        self.ended = 0
        self.did = 0

    def prepare(self) -> None:
        """What is there before the attack begins."""

    def start(self) -> None:
        """Begin."""
        raise NotImplementedError

    def stop(self) -> None:
        """Drop every connection."""
        self.is_on = False
        for wire in self.wires:
            wire.cut()

    def over(self) -> bool:
        """Whether the attack has ended."""
        return not self.is_on

    def login(self, *names: str) -> list[Client]:
        """Clients that are online when this returns; a name is a user, or a user and a resource."""
        clients = []
        for name in names:
            user, _, resource = name.partition("/")
            clients.append(Client(self.swarm, self.port, user, resource or "r"))
        self.wires += clients
        if not self.swarm.run(60, lambda: all(client.is_ready for client in clients)):
            raise SystemExit(f"{self.name}: a login failed")
        return clients

    def bound(self) -> float:
        """MiB of PSS that the attack may take at most; the formula is in docs/performance.md."""
        small = self.connections * CONNECTION_KIB + self.handshakes * HANDSHAKE_KIB
        return FREE_MIB + (small + self.sessions * SESSION_KIB) / 1024 + self.clogged * (HARD / MIB + 1)


def pour(client: Client, chunk: bytes, each: Callable[[], None]) -> None:
    """Send the same bytes again and again, as fast as the server takes them."""

    def more() -> None:
        each()
        client.out += chunk

    client.on_drain = more
    client.send(b" ")


class SlowReader(Attack):
    """Sessions that never read are flooded with large messages, and come again once they were cut off."""

    name = "slow reader"
    count = 5
    sessions = 2 * count
    clogged = count

    def start(self) -> None:
        for number in range(self.count):
            self._deaf(FIRST + number)
        flooders = self.login(*(f"user{FIRST + 50 + n}" for n in range(self.count)))
        for number, flooder in enumerate(flooders):
            to = f"user{FIRST + number}@localhost/deaf"
            text = f"<message to='{to}' type='headline'><body>{'x' * 24_000}</body></message>".encode()
            pour(flooder, text, self._count)

    def _count(self) -> None:
        self.did += 1

    def _deaf(self, number: int) -> None:
        if not self.is_on:
            return
        client = Client(self.swarm, self.port, f"user{number}", "deaf", receive_buffer=4096)
        client.on_ready = client.close_ears
        self.wires.append(client)
        self.swarm.at(time.monotonic() + DEAF_SECONDS, lambda: self._replace(number, client))

    def _replace(self, number: int, client: Client) -> None:
        # The end of the connection is behind all that was not read, so it goes unnoticed too.
        client.cut()
        self.ended += 1
        self._deaf(number)


class Flood(Attack):
    """One session sends small messages to another, as fast as the server takes them."""

    name = "flood"
    sessions = 2

    def prepare(self) -> None:
        self.flooder, self.target = self.login(f"user{FIRST}", f"user{FIRST + 1}")

    def start(self) -> None:
        text = f"<message to='user{FIRST + 1}@localhost' type='chat'><body>{'x' * 40}</body></message>"
        pour(self.flooder, text.encode() * 500, self._count)

    def _count(self) -> None:
        self.did += 500


class HalfOpen(Attack):
    """Connections that say nothing, half of a TLS greeting, or half of a stream header."""

    name = "half-open"
    count = 2000
    connections, handshakes = count // 2, count // 2

    def start(self) -> None:
        for number in range(self.count):
            self._open(number)

    def _open(self, number: int) -> None:
        if not self.is_on:
            return
        kind = number % 4
        wire = Wire(self.swarm, self.tls_port if kind < 2 else self.port, source=1 + number % 8)
        wire.opened = lambda: wire.send((HELLO[:100], b"", HEADER[:50], b"")[kind])  # type: ignore[method-assign]
        wire.on_end = lambda: self._ended(number)  # type: ignore[method-assign]
        self.did += 1
        self.wires.append(wire)

    def _ended(self, number: int) -> None:
        self.ended += 1
        self.swarm.at(time.monotonic() + 0.1, lambda: self._open(number))


HELLO = bytes.fromhex("16030100fa010000f60303") + bytes(range(89))
"""The beginning of a ClientHello of 250 bytes."""


class SlowLoris(HalfOpen):
    """Logins that bring one byte a second."""

    name = "slow loris"
    count = 500
    connections, handshakes = count, 0

    def _open(self, number: int) -> None:
        if not self.is_on:
            return
        wire = Wire(self.swarm, self.port, source=1 + number % 8)
        wire.on_end = lambda: self._ended(number)  # type: ignore[method-assign]
        self.did += 1
        self.wires.append(wire)
        letters = iter(
            HEADER + b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b"A" * 500
        )
        self.swarm.every(1.0, lambda: wire.send(bytes([next(letters)])), lambda: wire.is_over)


class ManySessions(Attack):
    """200 sessions of one account: each says each second something to all of them, and shows a presence."""

    name = "200 sessions"
    count = 200
    sessions = count

    def prepare(self) -> None:
        self.clients = self.login(*(f"user{FIRST}/r{number}" for number in range(self.count)))

    def start(self) -> None:
        turn = iter(range(10**9))
        message = f"<message to='user{FIRST}@localhost' type='chat'><body>{'x' * 60}</body></message>"
        both = message.encode() + b"<presence><show>away</show></presence>"

        def one() -> None:
            self.clients[next(turn) % self.count].send(both)
            self.did += 2

        self.swarm.every(1 / self.count, one, self.over)


class PresenceBomb(Attack):
    """One session appears and disappears 1,000 times a second before 200 contacts."""

    name = "presence bomb"
    sessions = CONTACTS + 1
    rate = 1000

    def prepare(self) -> None:
        self.bomber, *_ = self.login(*(f"user{BOMB + number}" for number in range(CONTACTS + 1)))

    def start(self) -> None:
        turn = iter(range(10**9))

        def flap() -> None:
            if len(self.bomber.out) < MIB:
                self.bomber.send(b"<presence type='unavailable'/>" if next(turn) % 2 else b"<presence/>")
                self.did += 1

        self.swarm.every(1 / self.rate, flap, self.over)


ATTACKS = {
    kind.name.replace(" ", "-"): kind
    for kind in (SlowReader, Flood, HalfOpen, SlowLoris, ManySessions, PresenceBomb)
}
