"""The commands that make two accounts friends, or part them, one pair or very many."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import USAGE, Secret, command, page
from xmppd.errors import CommandError, JidError
from xmppd.jid import Jid

MOST_PAIRS: Final = 10_000
"""In one call."""
SLICE: Final = 256
SLICE_SECONDS: Final = 1.0
"""How many pairs one call takes at most, and for how long about it begins with more."""
AT_ONCE: Final = 16
"""Pairs that are under way at once."""

Pairs = Annotated[list[str] | None, "two addresses with a space between them, given once for each pair"]
PairLines = Annotated[str, Secret("the same in this file, a pair in each line", lines=True)]
Pair = tuple[str, str]
After = Annotated[str, "go on where a run was interrupted: the token that it named"]


class Friends(Protocol):
    """What these commands need. Accounts are bare JIDs; a repeat is harmless. AccountUnknown, StanzaError."""

    async def befriend(self, one: str, other: str) -> None:
        """Let both see each other's presence, without a request."""

    async def part(self, one: str, other: str) -> None:
        """Take each out of the other's roster, with subscriptions and requests."""

    async def befriend_all(self, pairs: Sequence[Pair]) -> Sequence[str]:
        """Befriend some pairs at once; for each why it was refused, "" where it was not."""

    async def part_all(self, pairs: Sequence[Pair]) -> Sequence[str]:
        """Part some pairs at once, in the same way."""


Deed = Callable[[Sequence[Pair]], Awaitable[Sequence[str]]]


class FriendCommands:
    """`roster befriend`, `roster part`, and the same for many, whether or not a server runs."""

    def __init__(self, friends: Friends) -> None:
        self.friends = friends

    @command("Let two accounts see each other's presence", name="roster befriend", offline=True)
    async def befriend(self, one: Account, other: Account) -> dict[str, str]:
        """Both at once, without a request; their clients see that. A repeat is harmless."""
        first, second = _pair(one, other)
        await self.friends.befriend(first, second)
        return {"account": first, "befriended": second}

    @command("Take two accounts out of each other's roster", name="roster part", offline=True)
    async def part(self, one: Account, other: Account) -> dict[str, str]:
        """With subscriptions and requests. A repeat is harmless."""
        first, second = _pair(one, other)
        await self.friends.part(first, second)
        return {"account": first, "parted": second}

    @command(
        "Let many pairs of accounts see each other's presence",
        name="roster befriend-many",
        offline=True,
        paged=True,
    )
    async def befriend_many(
        self, *, pair: Pairs = None, pairs: PairLines = "", after: After = ""
    ) -> dict[str, Any]:
        """A row for each pair that was refused; exit code 1 when there are any."""
        return await self._many(self.friends.befriend_all, [*(pair or ()), *pairs.splitlines()], after)

    @command(
        "Take many pairs of accounts out of each other's roster",
        name="roster part-many",
        offline=True,
        paged=True,
    )
    async def part_many(
        self, *, pair: Pairs = None, pairs: PairLines = "", after: After = ""
    ) -> dict[str, Any]:
        """A row for each pair that was refused; exit code 1 when there are any."""
        return await self._many(self.friends.part_all, [*(pair or ()), *pairs.splitlines()], after)

    async def _many(self, deed: Deed, texts: Sequence[str], after: str) -> dict[str, Any]:
        if not texts:
            raise CommandError("no pair is named", USAGE, field="pair", rule="parameter")
        if len(texts) > MOST_PAIRS:
            raise CommandError(f"at most {MOST_PAIRS} pairs at once", USAGE, field="pair")
        pairs = [_read(number, text) for number, text in enumerate(texts, 1)]
        if not after.isdecimal() and after:
            raise CommandError("after: this is not a token", USAGE, field="after")
        first = number = int(after or 0)
        end, rows = time.monotonic() + SLICE_SECONDS, list[dict[str, Any]]()
        while number < min(len(pairs), first + SLICE) and time.monotonic() < end:
            some = pairs[number : number + AT_ONCE]
            number += len(some)
            rows += [
                {"one": one, "other": other, "refused": reason}
                for (one, other), reason in zip(some, await deed(some), strict=True)
                if reason
            ]
        return page(
            rows,
            {"done": number - first - len(rows), "refused": len(rows)},
            total=None if after else len(pairs),
            after=str(number) if number < len(pairs) else None,
            exit_code=1 if rows else 0,
        )


def _read(number: int, text: str) -> tuple[str, str]:
    words = text.split()
    if len(words) != 2:
        raise CommandError(f"pair {number}: {text!r} is not two addresses", USAGE, field="pair")
    try:
        return _pair(*map(Jid.parse, words))
    except (JidError, CommandError) as error:
        raise CommandError(f"pair {number}: {error}", USAGE, field="pair") from None


def _pair(one: Jid, other: Jid) -> tuple[str, str]:
    first, second = account_of(one), account_of(other)
    if first == second:
        raise CommandError("nobody is a contact of their own", USAGE)
    return first, second
