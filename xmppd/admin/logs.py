"""The commands about the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

from xmppd.admin.commands import USAGE, command
from xmppd.errors import CommandError

LEVELS: Final = ("debug", "info", "warning", "error")
MOST_MINUTES: Final = 1440


class Logs(Protocol):
    """What `log` commands need. Rows name the `node` where there are several."""

    async def set(self, module: str, level: str, minutes: int, node: str) -> Sequence[Mapping[str, Any]]:
        """Have a module say more or less, on one node or ("") on all; CommandError."""

    async def reset(self, module: str, node: str) -> Sequence[Mapping[str, Any]]:
        """End that, of a module or ("") of all; a row for each."""

    async def levels(self) -> Sequence[Mapping[str, Any]]:
        """A row for each module that has a level of its own."""


class LogCommands:
    """`log ...`: how much modules say for a time."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs

    @command("Have a module write more to the log, or less, for some minutes", name="log level")
    async def level(
        self,
        module: Annotated[str, "a module, package or plugin: core.router, cluster, archive"],
        level: Annotated[str, "debug, info, warning or error"],
        *,
        minutes: Annotated[int, "how long"] = 15,
        node: Annotated[str, "only on this one"] = "",
    ) -> list[dict[str, Any]]:
        """A row for each node."""
        if level not in LEVELS:
            message = f"level must be one of {', '.join(LEVELS)}"
            raise CommandError(message, USAGE, field="level", rule="level")
        if not 0 < minutes <= MOST_MINUTES:
            message = f"minutes must be 1 to {MOST_MINUTES}"
            raise CommandError(message, USAGE, field="minutes", rule="minutes")
        return [dict(row) for row in await self.logs.set(module, level, minutes, node)]

    @command("End what `log level` began before its time", name="log reset")
    async def reset(
        self,
        module: Annotated[str | None, "only of this one"] = None,
        *,
        node: Annotated[str, "only on this one"] = "",
    ) -> list[dict[str, Any]]:
        """A row for each that was ended."""
        return [dict(row) for row in await self.logs.reset(module or "", node)]

    @command("List modules that have a level of their own for a time", name="log levels", reads=True)
    async def levels(self) -> list[dict[str, Any]]:
        """A row for each, of all nodes."""
        return [dict(row) for row in await self.logs.levels()]
