"""The commands about the configuration of the running server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.commands import command


class Settings(Protocol):
    """What `config` commands need. ConfigError for a file that cannot be used, with every mistake."""

    def effective(self) -> Sequence[Mapping[str, Any]]:
        """A row for each key as it is at work: `key`, `value`, `origin`."""

    def differences(self) -> Sequence[Mapping[str, Any]]:
        """A row for each key that the file has otherwise now: `key`, `running`, `file`, `needs`."""

    async def reload_config(self) -> Sequence[str]:
        """Take over what is in the file now; the keys that need a restart."""


class SettingsCommands:
    """`config ...`: what is at work, and where it comes from. Secrets are never shown."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @command("Show the configuration at work, and where it comes from", name="config show", reads=True)
    def show(
        self,
        section: Annotated[str, "only keys that begin like this"] = "",
        *,
        written: Annotated[bool, "only what is no default"] = False,
    ) -> list[dict[str, Any]]:
        """One row for each key."""
        rows = [row for row in self.settings.effective() if str(row["key"]).startswith(section)]
        return [dict(row) for row in rows if not written or row["origin"] != "default"]

    @command("Show what the file has otherwise than the running server", name="config diff", reads=True)
    def diff(self) -> list[dict[str, Any]]:
        """One row for each key, with what it takes to make it so: a reload or a restart."""
        return [dict(row) for row in self.settings.differences()]

    @command("Read the configuration again while sessions stay connected", name="config reload")
    async def reload(self) -> dict[str, Any]:
        """With a mistake in it everything stays as it was."""
        return {"reloaded": True, "needs_restart": list(await self.settings.reload_config())}
