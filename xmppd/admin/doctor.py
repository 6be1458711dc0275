"""The command that looks for what will go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.commands import command


class Doctor(Protocol):
    """What the command needs."""

    async def examine(
        self, topics: Sequence[str], resolver: str, *, everywhere: bool
    ) -> Sequence[Mapping[str, Any]]:
        """A row for each finding, the worst first; CommandError for a topic or a resolver that is none."""


class DoctorCommands:
    """`doctor`, whether or not a server runs."""

    def __init__(self, doctor: Doctor) -> None:
        self.doctor = doctor

    @command(
        "Look for what will go wrong, and say what to do",
        name="doctor",
        offline=True,
        reads=True,
        guarded=True,
    )
    async def look(
        self,
        *,
        topic: Annotated[
            list[str] | None, "only names, ports, certificates, clocks, keys, machine or settings"
        ] = None,
        resolver: Annotated[str, "ask this one (address or address:port) what names are"] = "",
        all: Annotated[bool, "on all nodes"] = False,
        wrong: Annotated[bool, "only what is not as it should be"] = False,
    ) -> list[dict[str, Any]]:
        """One row for each thing that was looked at."""
        rows = await self.doctor.examine(topic or (), resolver, everywhere=all)
        return [dict(row) for row in rows if not wrong or row.get("level") not in ("ok", "note")]
