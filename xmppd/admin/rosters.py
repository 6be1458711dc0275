"""The commands about rosters, against the small port they need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import FAILED, USAGE, command, page
from xmppd.admin.pages import text_of, token_of
from xmppd.errors import CommandError
from xmppd.jid import Jid

RATE = 100.0
"""Accounts that are looked at in a second unless told: a tenth of what one core does."""

NOT_XML = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
"""What no name may hold: controls, and what XML cannot."""

Contact = Annotated[Jid, "the address of the contact"]
After = Annotated[str, "go on where a run was interrupted: the token that it named"]
Rate = Annotated[float, "accounts a second; 0: as fast as it goes"]


class Rosters(Protocol):
    """What `roster` commands need. Accounts and contacts are bare JIDs as normalised text; rows are plain
    data. What cannot be done is an XmppdError with a sentence for the operator.
    """

    async def show(self, account: str) -> Sequence[Mapping[str, Any]]:
        """The items of a roster."""

    async def version(self, account: str) -> int:
        """The version of a roster: another one after each change."""

    async def log(self, account: str, contact: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest `limit` changes, of one contact's item if it is not ""."""

    async def add(
        self, account: str, contact: str, name: str | None, groups: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Put a contact into a roster, or change what is not None of it; what was done."""

    async def remove(self, account: str, contact: str) -> None:
        """Take one out."""

    async def undo(self, account: str, version: int) -> Mapping[str, Any]:
        """Put an item back as it was before a version."""

    async def count(self) -> int | None:
        """How many accounts there are, if somebody counted."""

    async def repair_one(self, account: str, *, mend: bool) -> Sequence[Mapping[str, Any]]:
        """The faults of one account, each with `mended`."""

    async def repair_some(
        self, after: bytes | None, rate: float, *, mend: bool
    ) -> tuple[int, Sequence[Mapping[str, Any]], bytes | None]:
        """Those of some accounts: how many were looked at, the faults, and the token to go on with."""


class RosterCommands:
    """`roster ...`: contact lists, whether or not a server runs."""

    def __init__(self, rosters: Rosters) -> None:
        self.rosters = rosters

    @command("Show the contacts of an account", name="roster show", reads=True, offline=True)
    async def show(self, account: Account) -> list[dict[str, Any]]:
        """One row for each, requests that wait for an answer included."""
        return [dict(row) for row in await self.rosters.show(account_of(account))]

    @show.version
    async def _version(self, account: Jid) -> int:
        return await self.rosters.version(account_of(account))

    @command(
        "Show who changed what in the contacts of an account", name="roster log", reads=True, offline=True
    )
    async def log(
        self,
        account: Account,
        *,
        contact: Annotated[Jid | None, "only changes of this contact: why is this friend here?"] = None,
        limit: Annotated[int, "the newest so many"] = 50,
    ) -> list[dict[str, Any]]:
        """One row for each change, oldest first."""
        if limit < 1:
            raise CommandError("limit must be at least 1", USAGE)
        bare = contact_of(contact) if contact is not None else ""
        return [dict(row) for row in await self.rosters.log(account_of(account), bare, limit)]

    @command("Put one contact back as it was before a change", name="roster undo", offline=True)
    async def undo(
        self, account: Account, version: Annotated[int, "of the change, as `roster log` shows it"]
    ) -> dict[str, Any]:
        """As new changes, which both sides see."""
        return dict(await self.rosters.undo(account_of(account), version))

    @command("Add a contact to an account, or change its name or groups", name="roster add", offline=True)
    async def add(
        self,
        account: Account,
        contact: Contact,
        *,
        name: Annotated[str | None, "what the account calls it; empty for nothing"] = None,
        group: Annotated[list[str] | None, "a group it is in, given once for each; empty for none"] = None,
    ) -> dict[str, Any]:
        """What is not given stays as it is, and so do subscriptions."""
        groups = None if group is None else list(dict.fromkeys(filter(None, group)))
        if NOT_XML.search("".join([name or "", *(groups or [])])):
            raise CommandError("a name holds no control characters", USAGE)
        owner, other = account_of(account), contact_of(contact)
        if other == owner:
            raise CommandError("nobody is a contact of their own", USAGE)
        return dict(await self.rosters.add(owner, other, name, groups))

    @command("Remove a contact from an account, with all subscriptions", name="roster remove", offline=True)
    async def remove(self, account: Account, contact: Contact) -> dict[str, str]:
        """`roster undo` takes it back."""
        owner = account_of(account)
        await self.rosters.remove(owner, contact_of(contact))
        return {"account": owner, "removed": contact.bare}

    @command(
        "Find halves of subscriptions that do not fit",
        name="roster check",
        reads=True,
        offline=True,
        paged=True,
    )
    async def check(
        self,
        account: Annotated[Jid | None, "only this one"] = None,
        *,
        all: Annotated[bool, "every account"] = False,
        rate: Rate = RATE,
        after: After = "",
    ) -> dict[str, Any]:
        """One row for each; exit code 1 when there are any."""
        return await self._run(account, all, rate, after, mend=False)

    @command("Mend halves of subscriptions that do not fit", name="roster repair", offline=True, paged=True)
    async def repair(
        self,
        account: Annotated[Jid | None, "only this one"] = None,
        *,
        all: Annotated[bool, "every account"] = False,
        dry_run: Annotated[bool, "only find them, as `roster check` does"] = False,
        rate: Rate = RATE,
        after: After = "",
    ) -> dict[str, Any]:
        """One row for each; exit code 1 when some could not be mended."""
        return await self._run(account, all, rate, after, mend=not dry_run)

    async def _run(
        self, account: Jid | None, every: bool, rate: float, after: str, *, mend: bool
    ) -> dict[str, Any]:
        if every == (account is not None):
            raise CommandError("name an account, or give --all", USAGE)
        if rate < 0:
            raise CommandError("rate must not be below 0", USAGE)
        if account is not None:
            return _page(1, await self.rosters.repair_one(account_of(account), mend=mend))
        total = None if after else await self.rosters.count()
        count, rows, token = await self.rosters.repair_some(token_of(after), rate, mend=mend)
        return _page(count, rows, total, token)


def contact_of(jid: Jid) -> str:
    """The contact an operator meant; CommandError for one session's full address."""
    if jid.resource:
        raise CommandError(f"{jid} is the address of one session: a contact is {jid.bare}", USAGE)
    return jid.bare


def _page(
    count: int, rows: Sequence[Mapping[str, Any]], total: int | None = None, token: bytes | None = None
) -> dict[str, Any]:
    is_bad = any(row["mended"] not in ("yes", "was gone") for row in rows)
    mended = sum(row["mended"] == "yes" for row in rows)
    counts = {"accounts": count, "faults": len(rows), "mended": mended}
    return page(rows, counts, total=total, after=text_of(token), exit_code=FAILED if is_bad else 0)
