"""Commands on the store alone, while no server runs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from xmppd import log as logs
from xmppd.admin.builtin import Needs
from xmppd.admin.client import Begin
from xmppd.admin.commands import Caller
from xmppd.admin.registry import Commands
from xmppd.admin.socket import name_of
from xmppd.config import Config
from xmppd.fundaments import refuse_store
from xmppd.section import changed

PARTS: Mapping[Needs, str] = {
    "tables": "xmppd.unopened",
    "whole": "xmppd.backups",
    "records": "xmppd.looking",
    "server": "xmppd.unattended",
}
"""What a command needs -> the module that has it, as a function `parts`."""


class Parts(Protocol):
    """The parts of a server that work on the store alone."""

    @property
    def commands(self) -> Commands: ...


class Offline:
    """The commands of the parts, one call at a time, for a caller that waits for each."""

    def __init__(self, commands: Commands, run: Callable[..., Any]) -> None:
        self._commands = commands
        self._run = run

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; its result, or CommandError."""
        by = Caller("offline", name_of(os.getuid()))
        return self._run(self._commands.call(name, arguments, by))

    def download(self, name: str, arguments: Mapping[str, Any], begin: Begin) -> None:
        """Run a command whose result is a file, and take that as it is made; CommandError."""

        async def run() -> None:
            by = Caller("offline", name_of(os.getuid()))
            file = await self._commands.call(name, arguments, by)
            take = begin(file.name)
            async for piece in file.pieces:
                take(piece)

        self._run(run())

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Only look at the arguments, without secrets; CommandError."""
        self._run(self._commands.check(name, arguments))


@contextlib.contextmanager
def offline(config: Config, *, needs: Needs, create: bool = False) -> Iterator[Offline]:
    """The commands that need no server but these parts of one. ConfigError for what it cannot work with;
    CommandError for a store that is not there yet, unless told to `create` it.
    """
    refuse_store(config)
    logs.configure(changed(config.log, level="warning"))
    with asyncio.Runner() as runner, contextlib.ExitStack() as undo:
        parts = importlib.import_module(PARTS[needs]).parts(config, create=create)
        yield Offline(_entered(parts, runner, undo).commands, runner.run)


def _entered(
    parts: AbstractAsyncContextManager[Parts], runner: asyncio.Runner, undo: contextlib.ExitStack
) -> Parts:
    entered = runner.run(parts.__aenter__())
    undo.callback(lambda: runner.run(parts.__aexit__(None, None, None)))
    return entered
