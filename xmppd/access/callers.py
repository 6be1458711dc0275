"""Who calls by HTTP: what a secret stands for, and which scopes allow what."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

ALL: Final = "*"
"""The scope that allows everything."""
FORM: Final = re.compile(
    r"\*|\*:(?:read|write)|[a-z0-9][a-z0-9_.-]*(?::(?:\*|[a-z0-9][a-z0-9_.-]*))?", re.ASCII
)
"""Scopes of commands (`roster:read`), and those that routes of plugins name (`rooms`)."""
MOST_SCOPES: Final = 64
"""Of one caller."""


@dataclass(frozen=True, slots=True)
class Known:
    """A caller whose secret is good: its name, what it may do, and what is counted and kept by (`key`)."""

    name: str
    scopes: frozenset[str]
    key: str


class Source(Protocol):
    """Where secrets of one kind are known."""

    def who(self, secret: str, digest: bytes) -> Known | Awaitable[Known | None] | None:
        """Whose secret this is; `digest` is its SHA-256. None: nobody's."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the configuration: the SHA-256 of its text, and what it may do."""

    name: str
    digest: bytes
    scopes: frozenset[str]


class Configured:
    """The tokens of the configuration."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self.tokens = tuple(tokens)
        self._by_digest = {
            token.digest: Known(token.name, token.scopes, f"config:{token.name}") for token in self.tokens
        }

    def who(self, secret: str, digest: bytes) -> Known | None:
        """See `Source`."""
        return self._by_digest.get(digest)


class Callers:
    """All that secrets can be, asked in this order."""

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self.sources = sources

    async def who(self, secret: str) -> Known | None:
        """Whose secret this is; StoreError where that cannot be told now."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        for source in self.sources:
            found = source.who(secret, digest)
            known = await found if isinstance(found, Awaitable) else found
            if known is not None:
                return known
        return None


def is_scope(text: str) -> bool:
    """Whether a scope has the right form."""
    return FORM.fullmatch(text) is not None and len(text) <= 100


def covers(scopes: frozenset[str], wanted: str) -> bool:
    """Whether who has these scopes may give away this one: he has it himself, or all."""
    return wanted in scopes or ALL in scopes
