"""Loopback ports: which are free, and who listens."""

import random
import socket

LISTENING = range(20_000, 32_000)
"""Ports that the kernel gives to no outgoing connection, so that nobody takes one between asking and
listening.
"""


def free_ports(count: int) -> list[int]:
    """Loopback ports in a row that nobody listens on."""
    for _ in range(1000):
        first = random.SystemRandom().choice(LISTENING)
        ports = list(range(first, first + count))
        if all(is_free(port) for port in ports):
            return ports
    raise AssertionError("no ports are free")


def is_free(port: int) -> bool:
    """Whether somebody could listen on it now."""
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def is_listening(port: int) -> bool:
    """Whether it takes connections."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
