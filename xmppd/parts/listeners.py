"""Ports of plugins' own."""

from __future__ import annotations

from asyncio import BaseProtocol
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from xmppd.marks import mark, marked

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Port:
    """One use of a method for the connections of a port."""

    port: int | Callable[[Any], int]
    address: str | Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Claim:
    """One port that has to be open: its name, where it is, and what makes the protocol of a connection."""

    name: str
    address: str
    port: int
    make: Callable[[], BaseProtocol]


def listener(
    *, port: int | Callable[[Any], int], address: str | Callable[[Any], str] = "127.0.0.1"
) -> Callable[[Method], Method]:
    """Marks the method that returns the protocol (as asyncio has it) of each connection taken there.

    Port and address, or what says them of an instance: `lambda self: self.config.port`. The port is the
    server's: it stays open while the plugin is loaded again, and newcomers are then the new instance's.
    """
    return lambda method: mark(method, Port(port, address))


def claims_of(name: str, plugin: object) -> list[Claim]:
    """The ports of a plugin of this name."""
    return [
        Claim(
            f"{name}.{method.__name__}",
            at.address(plugin) if callable(at.address) else at.address,
            at.port(plugin) if callable(at.port) else at.port,
            method,
        )
        for method, at in marked(plugin, Port)
    ]
