"""Whom one session sent directed presence, and what (RFC 6121 4.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from xmppd.errors import StanzaError

DIRECTED_LIMIT = 1000
"""How many entities one session may keep directed presence with."""

KEPT_BYTES = 65_536
"""How much of what these were sent is kept, to be shown again to whom of them asks."""

_NOBODY: Mapping[str, bytes] = MappingProxyType({})


class Directed:
    """By account: the addresses of it that were sent directed presence, bare or full, each with the stanza
    (b"": not kept), in the order in which they last were.
    """

    __slots__ = ("_by_account", "_count", "_room")

    def __init__(self) -> None:
        self._by_account: dict[str, dict[str, bytes]] = {}
        self._count = 0
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return self._count

    def items(self) -> Iterable[tuple[str, Mapping[str, bytes]]]:
        """All accounts, each with what its addresses were sent."""
        return self._by_account.items()

    def of(self, account: str) -> Mapping[str, bytes]:
        """What the addresses of one account were sent."""
        return self._by_account.get(account, _NOBODY)

    def note(self, account: str, address: str, stanza: bytes) -> None:
        """The address is sent this; StanzaError resource-constraint when there are too many."""
        shown = self._by_account.get(account)
        if shown is not None and address in shown:
            self._room += len(shown.pop(address))
        elif self._count >= DIRECTED_LIMIT:
            raise StanzaError(
                "resource-constraint", f"Directed presence to more than {DIRECTED_LIMIT} entities."
            )
        else:
            self._count += 1
        if shown is None:
            shown = self._by_account[account] = {}
        shown[address] = stanza if len(stanza) <= self._room else b""
        self._room -= len(shown[address])

    def forget(self, account: str, address: str) -> None:
        """The address was told that it ended, or is being told. Harmless where there was nothing."""
        shown = self._by_account.get(account)
        if shown is None or address not in shown:
            return
        self._room += len(shown.pop(address))
        self._count -= 1
        if not shown:
            del self._by_account[account]
