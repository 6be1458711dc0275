"""The command that makes many accounts, from JSON Lines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, Protocol

from xmppd.admin.builtin import account_of
from xmppd.admin.commands import USAGE, Secret, command, page
from xmppd.errors import CommandError, JidError
from xmppd.jid import Jid

MOST: Final = 10_000
"""Accounts of one call."""
SLICE: Final = 256
SLICE_SECONDS: Final = 1.0
"""How many lines one call takes at most, and for how long about it begins with more."""
AT_ONCE: Final = 16
"""Accounts that are under way at once."""

KEYS: Final = ("account", "password")

Lines = Annotated[
    str,
    Secret('JSON Lines, such as {"account": "kiva@localhost", "password": "..."}; null: without', lines=True),
]


class Wanted(NamedTuple):
    """An account that is to be made; `password` is None for one without."""

    account: str
    password: str | None


class Makers(Protocol):
    """What this command needs. Accounts are bare JIDs."""

    async def make(self, wanted: Sequence[Wanted], *, skip_existing: bool) -> Sequence[str]:
        """Make some accounts at once; for each why it was refused, "" where it was not."""


class BulkCommands:
    """`user add-many`, whether or not a server runs."""

    def __init__(self, makers: Makers, domains: Sequence[str]) -> None:
        self.makers = makers
        self.domains = domains

    @command("Add many accounts", name="user add-many", offline=True, paged=True)
    async def add_many(
        self,
        *,
        accounts: Lines,
        skip_existing: Annotated[bool, "pass over those that are there, so that it can be repeated"] = False,
        after: Annotated[str, "go on where a run was interrupted: the token that it named"] = "",
    ) -> dict[str, Any]:
        """A row for each account that was refused; exit code 1 when there are any. Nothing is done where a
        line cannot be read.
        """
        wanted = self._read(accounts)
        if not after.isdecimal() and after:
            raise CommandError("after: this is not a token", USAGE, field="after")
        first = number = int(after or 0)
        end, rows = time.monotonic() + SLICE_SECONDS, list[dict[str, Any]]()
        while number < min(len(wanted), first + SLICE) and (number == first or time.monotonic() < end):
            some = wanted[number : number + AT_ONCE]
            reasons = await self.makers.make([one for _, one in some], skip_existing=skip_existing)
            rows += [
                {"line": line, "account": one.account, "refused": reason}
                for (line, one), reason in zip(some, reasons, strict=True)
                if reason
            ]
            number += len(some)
        return page(
            rows,
            {"done": max(number - first, 0) - len(rows), "refused": len(rows)},
            total=None if after else len(wanted),
            after=str(number) if number < len(wanted) else None,
            exit_code=1 if rows else 0,
        )

    def _read(self, text: str) -> list[tuple[int, Wanted]]:
        """The accounts, each with the number of its line; CommandError. Empty lines are passed over."""
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) > MOST:
            raise CommandError(f"at most {MOST} accounts at once", USAGE, field="accounts")
        wanted, seen = list[tuple[int, Wanted]](), dict[str, int]()
        for number, line in lines:
            try:
                one = self._account(line)
            except (CommandError, JidError) as error:
                raise _wrong(number, str(error)) from None
            if (before := seen.setdefault(one.account, number)) != number:
                raise _wrong(number, f"{one.account} is in line {before} already")
            wanted.append((number, one))
        return wanted

    def _account(self, line: str) -> Wanted:
        """What one line says; CommandError, JidError. Passwords are never repeated."""
        try:
            data = json.loads(line)
        except ValueError:
            raise CommandError("this is no JSON") from None
        if not isinstance(data, Mapping):
            raise CommandError("this is no object")
        for key in data:
            if key not in KEYS:
                raise CommandError(f"there is no key {key!r} ({', '.join(KEYS)})")
        for key in KEYS:
            if key not in data:
                raise CommandError(f"{key} is missing")
        address, password = data["account"], data["password"]
        if not isinstance(address, str):
            raise CommandError("account must be text")
        if not isinstance(password, str | None) or password == "":
            raise CommandError("password must be text, or null for an account without")
        jid = Jid.parse(address)
        if jid.domain not in self.domains:
            raise CommandError(f"{jid.domain} is not a domain of this server ({', '.join(self.domains)})")
        return Wanted(account_of(jid), password)


def _wrong(number: int, reason: str) -> CommandError:
    return CommandError(f"line {number}: {reason}", USAGE, field="accounts")
