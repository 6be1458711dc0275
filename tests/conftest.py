"""What all tests share: how hypothesis runs, and free ports."""

import os
import random
import socket
from collections.abc import Callable

import pytest
from hypothesis import settings

# The same examples on every run where nobody watches: a change is judged by what it does, not by luck.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


LISTENING = range(20_000, 32_000)
"""Ports that the kernel gives to no outgoing connection, so that nobody takes one between asking and
listening.
"""


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Finds loopback ports in a row that nobody listens on."""

    def find(count: int) -> list[int]:
        for _ in range(1000):
            first = random.SystemRandom().choice(LISTENING)
            ports = list(range(first, first + count))
            if all(is_free(port) for port in ports):
                return ports
        raise AssertionError("no ports are free")

    return find


def is_free(port: int) -> bool:
    """Whether somebody could listen on it now."""
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
