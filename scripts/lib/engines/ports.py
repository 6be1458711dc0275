"""Loopback ports."""

import random
import socket
from collections.abc import Sequence

from engines.errors import EngineError

RANGE = range(12_000, 17_000)
"""Below those that the kernel gives to clients, and apart from those that tests and benchmarks take."""


def is_free(address: str, port: int) -> bool:
    """Whether somebody could listen on it now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError:
            return False
        return True


def find_free(addresses: Sequence[str], count: int) -> list[int]:
    """Ports in a row that are free on each of the addresses."""
    for _ in range(200):
        first = random.SystemRandom().choice(RANGE)
        ports = list(range(first, first + count))
        if all(is_free(address, port) for address in addresses for port in ports):
            return ports
    raise EngineError(f"no ports are free between {RANGE.start} and {RANGE.stop}")


def answers(address: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex((address, port)) == 0
