"""The commands behind `migrate`: what the server itself does, a piece at each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

from xmppd.admin.commands import USAGE, Description, Kind, Parameter, command, page
from xmppd.admin.pages import text_of, token_of
from xmppd.errors import CommandError

UNDER_WAY = 64
"""Accounts that are written at once unless told."""

Conflict = Literal["keep", "replace", "merge"]
CONFLICTS = ("keep", "replace", "merge")


class Office(Protocol):
    """What these commands need; rows are plain data."""

    @property
    def folder(self) -> Path:
        """Where runs are kept."""

    async def apply(
        self,
        file: Path,
        *,
        run: str,
        conflict: Conflict,
        live: bool,
        dry: bool,
        shadows: bool,
        under_way: int,
    ) -> list[dict[str, Any]]:
        """Take the accounts of a file; what became of each."""

    async def give(
        self, after: bytes | None, names: Sequence[str]
    ) -> tuple[list[dict[str, Any]], bytes | None]:
        """Some accounts with all they have, and the token to go on with."""

    async def names(self, after: bytes | None) -> tuple[list[str], bytes | None]:
        """The names of some accounts, and the token to go on with."""

    async def states(self, names: Sequence[str]) -> dict[str, str]:
        """The state of each of these that is here."""

    async def undo(
        self, run: str, after: bytes | None, *, dry: bool
    ) -> tuple[list[dict[str, Any]], bytes | None]:
        """Take a run back, some accounts at a time."""

    async def runs(self) -> Mapping[str, Mapping[str, int]]:
        """How many accounts each run brought, by state."""


class MigrateCommands:
    """`migrate ...`: accounts from and for other servers, whether or not a server runs."""

    def __init__(self, office: Office) -> None:
        self.office = office

    @command(
        "Take accounts from a file that `migrate import` prepared",
        name="migrate apply",
        guarded=True,
        offline=True,
    )
    async def apply(
        self,
        file: Annotated[str, "its path"],
        run: Annotated[str, "the name of the run"],
        *,
        conflict: Annotated[str, "accounts that are here: keep, replace or merge"] = "keep",
        live: Annotated[bool, "tell sessions of their rosters' changes"] = False,
        dry_run: Annotated[bool, "write nothing"] = False,
        shadow: Annotated[bool, "say what was changed here since it was brought"] = False,
        workers: Annotated[int, "accounts that are written at once"] = UNDER_WAY,
    ) -> list[dict[str, Any]]:
        """What became of each, in their order."""
        if conflict not in CONFLICTS:
            raise CommandError(f"conflict is one of {', '.join(CONFLICTS)}, not {conflict}", USAGE)
        how = cast(Conflict, conflict)
        return await self.office.apply(
            Path(file),
            run=run,
            conflict=how,
            live=live,
            dry=dry_run,
            shadows=shadow,
            under_way=max(1, workers),
        )

    @command("Say where runs and their reports are kept", name="migrate folder", reads=True, offline=True)
    def folder(self) -> str:
        """An absolute path."""
        return str(self.office.folder)

    @command(
        "Give out accounts with all that they have",
        name="migrate give",
        guarded=True,
        reads=True,
        offline=True,
    )
    async def give(
        self,
        *,
        account: Annotated[list[str] | None, "only these"] = None,
        after: Annotated[str, "go on here: the token of the last answer"] = "",
    ) -> dict[str, Any]:
        """Some of them, and the token of those that follow: "" for none."""
        found, token = await self.office.give(token_of(after), account or ())
        return {"accounts": found, "after": text_of(token) or ""}

    @command("Name all accounts", name="migrate names", reads=True, offline=True)
    async def names(
        self, *, after: Annotated[str, "go on here: the token of the last answer"] = ""
    ) -> dict[str, Any]:
        """Some of them, and the token of those that follow: "" for none."""
        found, token = await self.office.names(token_of(after))
        return {"accounts": found, "after": text_of(token) or ""}

    @command(
        "Show which state accounts are in, to see whether they change",
        name="migrate states",
        reads=True,
        offline=True,
    )
    async def states(self, *, account: Annotated[list[str], "these"]) -> dict[str, str]:
        """Of each that is here a text that is another one after each change of its keys or roster."""
        return await self.office.states(account)

    @command(
        "Take back what a run of `migrate import` did, where nothing newer stands",
        name="migrate undo",
        guarded=True,
        offline=True,
        paged=True,
        confirm="Take back all that the run {run} brought?",
    )
    async def undo(
        self,
        run: Annotated[str, "the name of the run"],
        *,
        dry_run: Annotated[bool, "change nothing"] = False,
        after: Annotated[str, "go on where it was interrupted: the token that was named"] = "",
    ) -> dict[str, Any]:
        """A row for each account that could not be put back as it was; exit code 1 if there is one."""
        found, token = await self.office.undo(run, token_of(after), dry=dry_run)
        kept = [row for row in found if row["done"] == "kept"]
        counts = {"accounts": len(found), "kept": len(kept)}
        return page(kept, counts, after=text_of(token), exit_code=1 if kept else 0)

    @command(
        "List the runs of `migrate import`, and what they brought",
        name="migrate runs",
        reads=True,
        offline=True,
    )
    async def runs(self) -> list[dict[str, Any]]:
        """One row for each, the oldest first."""
        return [{"run": run, **states} for run, states in sorted((await self.office.runs()).items())]


def _option(name: str, kind: Kind, text: str, *, many: bool = False) -> Parameter:
    return Parameter(name, kind, text, required=False, option=True, many=many)


SOURCE = Parameter("source", "str", "a file, a folder or a database (postgresql://, mysql://)")
READING = (
    _option("format", "str", "the format, where that is in doubt: `migrate formats` lists them"),
    _option("domain", "str", "the domain of accounts that come without one"),
    _option("map", "str", "a CSV file of old and new names, of domains or of accounts"),
    _option("only", "str", "only this account, as the source calls it", many=True),
    _option(
        "columns",
        "str",
        "CSV: OURS=THEIRS for a column with another name, =THEIRS to leave it out",
        many=True,
    ),
    _option("over_limit", "str", "more than clients may have: keep (default), cut or refuse"),
    _option("names_as_passwords", "bool", "take passwords that equal the user's name"),
    _option("scratch", "str", "a folder for what does not fit into memory, instead of the run's own"),
)
"""What may be said of every source."""

IMPORT = Description(
    "migrate import",
    "Take over accounts and rosters from another server's files",
    (
        SOURCE,
        *READING,
        _option("since", "str", "leave out what did not change since (2026-11-28T20:00:00Z)"),
        _option("conflict", "str", "accounts that are here: keep (default), replace or merge"),
        _option("live", "bool", "tell sessions of their rosters' changes"),
        _option("dry_run", "bool", "do everything but write"),
        _option("resume", "str", "go on with this run, by its name"),
        _option("rate", "float", "accounts a second; 0 (default): as fast as it goes"),
        _option("workers", "int", "accounts that are written at once (64)"),
        _option("report", "str", "a folder for the report, instead of one in the data folder"),
    ),
    offline=True,
)
EXPORT = Description(
    "migrate export",
    "Write accounts and rosters for another server",
    (
        Parameter("target", "str", "a file or folder that is not there yet"),
        _option("format", "str", "jsonl (default), csv or xep-0227"),
        _option("dialect", "str", "of XEP-0227: for prosody or ejabberd"),
        _option("domain", "str", "only accounts of this domain"),
        _option("only", "str", "only this account", many=True),
        _option("changed", "bool", "only accounts that are others than an import or a shadow left them"),
        _option("changed_since", "str", "of those, only what changed since (2026-11-28T20:00:00Z), if known"),
    ),
    offline=True,
)
VERIFY = Description(
    "migrate verify",
    "Compare another server's files with what stands here, contact by contact",
    (
        SOURCE,
        *READING,
        _option("report", "str", "a file for the differences, as JSON Lines"),
        _option("full", "bool", "look at accounts again that were found the same before"),
    ),
    offline=True,
)
SHADOW = Description(
    "migrate shadow",
    "Copy what another server changes, again and again, while both serve",
    (
        SOURCE,
        _option("every", "float", "seconds between two rounds (60)"),
        _option("once", "bool", "only one round"),
        _option("switched", "str", "a file of domains and addresses to leave alone, read again all the time"),
        *READING,
        _option("live", "bool", "tell sessions of their rosters' changes"),
        _option("rate", "float", "accounts a second; 0 (default): as fast as it goes"),
        _option("workers", "int", "accounts that are written at once (64)"),
    ),
    offline=True,
)
SWITCH = Description(
    "migrate switch",
    "Name domains and accounts that live here from now on: `migrate shadow` leaves them alone",
    (
        Parameter("name", "str", "a domain or an address; none: show those named", required=False, many=True),
        _option("back", "bool", "take them off the list again"),
    ),
    offline=True,
)
REHEARSE = Description(
    "migrate rehearse",
    "Log in to accounts as their people do, and compare what they see with another server's files",
    (
        SOURCE,
        Parameter(
            "passwords", "str", "a CSV file of accounts, as the source calls them, and passwords", option=True
        ),
        _option("sample", "int", "so many of them; all unless told"),
        _option("seed", "int", "another number: other ones"),
        *READING,
        _option("report", "str", "a file for the differences, as JSON Lines"),
    ),
    offline=True,
)
ARCHIVES = Description(
    "migrate archives",
    "Make a file for `archive import` of archives in XEP-0227, or XEP-0227 of a file of `archive export`",
    (
        Parameter("source", "str", "a document or folder of XEP-0227, or JSON Lines"),
        Parameter("target", "str", "a file that is not there yet"),
    ),
    offline=True,
)
FORMATS = Description("migrate formats", "List the formats that `migrate import` reads")
LOCAL = (IMPORT, EXPORT, ARCHIVES, VERIFY, SHADOW, SWITCH, REHEARSE, FORMATS)
"""What the command line does itself, with the commands above."""
