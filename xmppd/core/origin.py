"""Who sends a stanza, and who receives one: all that routing knows of either.

A session of this node is both. A service on a host of ours and the server itself send as well; whoever has
these few things takes part.
"""

from __future__ import annotations

from typing import Any, Final, Protocol


class Origin(Protocol):
    """The sender of a stanza: `full` and `account` are its full and bare JID, `lang` its default language;
    `has_copies`: others of its account may want copies of its messages (XEP-0280).
    """

    @property
    def full(self) -> str: ...

    @property
    def account(self) -> str: ...

    @property
    def lang(self) -> str: ...

    @property
    def has_copies(self) -> bool: ...

    def send(self, data: bytes) -> None:
        """Take an answer: one whole stanza."""


class Target(Protocol):
    """What routing finds for a full JID, and among the resources of an account.

    `presence` is None while it is not available, `priority` that of its presence (RFC 6121 4.7.2.3),
    `takes_messages` False while messages are to be kept for it; `is_open`: it takes them, whoever sends them,
    and nobody wants copies.
    """

    @property
    def full(self) -> str: ...

    @property
    def presence(self) -> Any | None: ...

    @property
    def priority(self) -> int: ...

    @property
    def takes_messages(self) -> bool: ...

    @property
    def is_open(self) -> bool: ...

    def send(self, data: bytes) -> None:
        """Take one whole stanza."""

    def send_copy(self, data: bytes) -> None:
        """Take a copy of what goes to many; it may come after what goes to others alone."""


class Host:
    """The origin of what the server says by itself, or a plugin in the name of an address of ours.

    Errors that come back are dropped: nobody waits for them.
    """

    __slots__ = ("account", "full", "lang")
    has_copies: Final = False

    def __init__(self, full: str, lang: str = "") -> None:
        self.full = full
        self.account = full.partition("/")[0]
        self.lang = lang

    def send(self, data: bytes) -> None:
        """Drop it."""

    def __repr__(self) -> str:
        return f"<Host {self.full}>"
