"""Block lists as values: whom an account bars (XEP-0191 5), and whether it has to be asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NOBODY: Final[frozenset[str]] = frozenset()
"""The block list of who blocks nobody."""


def barred(addresses: Iterable[str]) -> frozenset[str]:
    """A block list as it is kept: all that are empty are the same one."""
    return frozenset(addresses) or NOBODY


class Asked(frozenset[str]):
    """The block list of an account that has to be asked in any case, though it may be empty: it looks offline
    to some (`Hidden`).
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


def bars(account: str, addresses: frozenset[str], other: str) -> bool:
    """Whether an account with this block list bars an address in normal form (XEP-0191 5). It never bars its
    own sessions, nor what its own server says.
    """
    bare = other.partition("/")[0]
    if bare == account:
        return False
    domain = bare.rpartition("@")[2]
    if bare == domain == account.rpartition("@")[2]:
        return False
    return bare in addresses or domain in addresses or other in addresses
