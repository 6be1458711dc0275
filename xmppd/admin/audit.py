"""The command about what was done by commands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

from xmppd.admin.commands import USAGE, command, page
from xmppd.errors import CommandError


class Audit(Protocol):
    """What `audit` commands need."""

    days: float

    async def some(
        self, since: float | None, who: str, command: str, after: str
    ) -> tuple[list[Mapping[str, Any]], int, str | None]:
        """Some entries since a moment (None: of the last day), the newest first, how many were looked at, and
        the token to go on with.
        """


class AuditCommands:
    """`audit ...`: who did what."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit

    @command(
        "List what was done through any door, the newest first",
        name="audit list",
        reads=True,
        offline=True,
        paged=True,
    )
    async def every(
        self,
        *,
        since: Annotated[str, "from this day or moment on (UTC); else of the last 24 hours"] = "",
        who: Annotated[str, "only what this caller did: a token, a user of this machine, an account"] = "",
        command: Annotated[str, "only this command, or those that begin with this word"] = "",
        after: Annotated[str, "go on where a run was interrupted: the token that it named"] = "",
    ) -> dict[str, Any]:
        """One row for each; secrets are not in it. `outcome` is done, refused, failed, or unknown: it was
        under way, or its node ended before it could say.
        """
        moment = moment_of(since) if since else None
        rows, looked, token = await self.audit.some(moment, who, command, after)
        return page(rows, {"entries": looked}, after=token)


def moment_of(text: str) -> float:
    """Seconds since the epoch of a moment as operators write it; CommandError."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return max(0.0, moment.timestamp())
    except (ValueError, OverflowError):
        message = f"since: {text!r} is no day or moment like 2026-11-28T20:00:00Z"
        raise CommandError(message, USAGE, field="since", rule="parameter") from None
