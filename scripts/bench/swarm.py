"""Thousands of XMPP clients in one thread: raw sockets, epoll and timers; only for `attack.py`."""

import base64
import functools
import hashlib
import heapq
import hmac
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Generator

HOST = "127.0.0.1"
HEADER = (
    b"<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = (
    b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
    b"<resource>%s</resource></bind></iq>"
)
ENTER = (
    b"<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>"
    b"<iq type='get' id='ready' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"
)
PASSWORD = b"secret"
NOT_NOW = (BlockingIOError, InterruptedError)
CHUNK = 262_144


@functools.cache
def salted(password: bytes, salt: bytes, iterations: int) -> bytes:
    """Derived once, when all accounts share a salt."""
    return hashlib.pbkdf2_hmac("sha1", password, salt, iterations)


class Swarm:
    """The loop that all clients of this process live in."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.taken: dict[int, Callable[[int], None]] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Call something once, at a moment of `time.monotonic`."""
        heapq.heappush(self.timers, (moment, next(self._numbers), call))

    def every(self, seconds: float, call: Callable[[], None], until: Callable[[], bool]) -> None:
        """Call something again and again until `until` says so; what is late is made up for."""

        def tick() -> None:
            nonlocal due
            if until():
                return
            call()
            due += seconds
            self.at(due, tick)

        due = time.monotonic() + seconds
        self.at(due, tick)

    def watch(self, fd: int, call: Callable[[int], None], mask: int) -> None:
        """Have the events of a descriptor."""
        self.taken[fd] = call
        self.poll.register(fd, mask)

    def forget(self, fd: int) -> None:
        """No more events of a descriptor that is about to be closed."""
        if self.taken.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def run(self, seconds: float, is_done: Callable[[], bool] = lambda: False) -> bool:
        """Work for so long, or until it is done; whether it was."""
        end = time.monotonic() + seconds
        while not is_done():
            now = time.monotonic()
            if now >= end:
                return False
            while self.timers and self.timers[0][0] <= now:
                heapq.heappop(self.timers)[2]()
            next_due = self.timers[0][0] if self.timers else end
            wait = max(0.0, min(end, next_due, now + 0.2) - time.monotonic())
            for fd, mask in self.poll.poll(wait, 512):
                call = self.taken.get(fd)
                if call is not None:
                    call(mask)
        return True


class Wire:
    """One connection. `on_data` gets what is read, `on_end` is called when the server ends it."""

    def __init__(self, swarm: Swarm, port: int, *, source: int = 1, receive_buffer: int = 0) -> None:
        self.swarm = swarm
        self.is_open = False
        self.is_over = False
        self.deaf = False
        self.received = 0
        self.started = time.monotonic()
        self.out = bytearray()
        self.on_drain: Callable[[], None] | None = None
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.fd = self.sock.fileno()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.bind((f"127.0.0.{source}", 0))
        self.sock.connect_ex((HOST, port))
        self._watched = select.EPOLLIN | select.EPOLLOUT
        swarm.watch(self.fd, self._event, self._watched)

    def opened(self) -> None:
        """The connection is there."""

    def on_data(self, data: bytes) -> None:
        """Something was read."""

    def on_end(self) -> None:
        """The server, or the network, ended the connection."""

    def _event(self, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT:
                if not self.is_open and not mask & (select.EPOLLERR | select.EPOLLHUP):
                    self.is_open = True
                    self.opened()
                self._flush()
            if mask & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP) and not self.is_over:
                data = self.receive()
                if not data:
                    self._ended()
                    return
                self.received += len(data)
                self.on_data(data)
        except NOT_NOW:
            pass
        except OSError:
            self._ended()

    def receive(self) -> bytes:
        """What can be read now."""
        return self.sock.recv(CHUNK)

    def send(self, data: bytes) -> None:
        """Send, now or when the server takes it."""
        self.out += data
        if self.is_open:
            try:
                self._flush()
            except OSError:
                self._ended()

    def _flush(self) -> None:
        if self.is_over:
            return
        if self.on_drain is not None and not self.out:
            self.on_drain()
        try:
            while self.out:
                sent = self.sock.send(self.out)
                del self.out[:sent]
        except NOT_NOW:
            pass
        self._mask()

    def _mask(self) -> None:
        if self.is_over:
            return
        reading = 0 if self.deaf else select.EPOLLIN
        wants = select.EPOLLOUT if self.out or self.on_drain is not None or not self.is_open else 0
        if self._watched != reading | wants:
            self._watched = reading | wants
            self.swarm.poll.modify(self.fd, self._watched)

    def close_ears(self) -> None:
        """Read nothing from now on."""
        self.deaf = True
        self._mask()

    def _ended(self) -> None:
        if not self.is_over:
            self.cut()
            self.on_end()

    def cut(self) -> None:
        """Drop the connection (RST)."""
        if not self.is_over:
            self.is_over = True
            self.swarm.forget(self.fd)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()


class Client(Wire):
    """A client that logs in by SCRAM-SHA-1, asks for its roster, becomes available and waits for a ping's
    answer; from then on `on_stanzas` gets what is read. `lost` is called when the server ends it.
    """

    def __init__(self, swarm: Swarm, port: int, user: str, resource: str = "r", **options: int) -> None:
        super().__init__(swarm, port, **options)
        self.user = user
        self.resource = resource
        self.is_ready = False
        self.took = 0.0
        self.on_ready: Callable[[], None] = lambda: None
        self.on_stanzas: Callable[[bytes], None] = lambda data: None
        self.lost: Callable[[], None] = lambda: None
        self._text = b""
        self._until = b""
        self._steps = self._login()

    def opened(self) -> None:
        answer, self._until = next(self._steps)
        self.send(answer)

    def on_end(self) -> None:
        self.lost()

    def on_data(self, data: bytes) -> None:
        if self.is_ready:
            self.on_stanzas(data)
            return
        self._text += data
        if self._until not in self._text:
            if b"<failure" in self._text:
                self._ended()
            return
        text, self._text = self._text, b""
        try:
            answer, self._until = self._steps.send(text)
        except StopIteration:
            self.is_ready = True
            self.took = time.monotonic() - self.started
            self.on_ready()
        else:
            self.send(answer)

    def _login(self) -> Generator[tuple[bytes, bytes], bytes, None]:
        """What to send and what to wait for then, given what came (RFC 5802 3, RFC 6120 9.1)."""
        features = b"</stream:features>"
        first = f"n={self.user},r={os.urandom(9).hex()}"
        yield HEADER, features
        text = yield sasl("auth", " mechanism='SCRAM-SHA-1'", f"n,,{first}"), b"</challenge>"
        encoded = text[text.rindex(b"'>") + 2 : text.rindex(b"<")]
        yield sasl("response", "", scram_final(first, base64.b64decode(encoded).decode())), b"</success>"
        yield HEADER, features
        yield BIND % self.resource.encode(), b"</iq>"
        yield ENTER, b"id='ready'"


def scram_final(first: str, challenge: str) -> str:
    """The client's last message; the server's signature is not checked."""
    nonce, salt, iterations, *_ = (field[2:] for field in challenge.split(","))
    key = salted(PASSWORD, base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(key, b"Client Key", "sha1")
    bare = f"c=biws,r={nonce}"
    signed = f"{first},{challenge},{bare}".encode()
    signature = hmac.digest(hashlib.sha1(client_key).digest(), signed, "sha1")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return f"{bare},p={base64.b64encode(proof).decode()}"


def sasl(name: str, more: str, text: str) -> bytes:
    """A SASL element around base64."""
    return f"<{name} xmlns='{SASL}'{more}>{base64.b64encode(text.encode()).decode()}</{name}>".encode()
