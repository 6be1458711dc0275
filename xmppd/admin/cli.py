"""The command line: arguments from the same descriptions as every other door, results and errors for people.

A command goes to the running server through its socket. Those marked `offline` also work on the store when no
server runs. A name that is not built in is looked up in the running server: plugins bring commands.

Nothing of the server is loaded for a command that a running one answers: that would take most of its time.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from xmppd.admin.asking import confirm, is_asked_for, secretly
from xmppd.admin.audit import AuditCommands
from xmppd.admin.backup import RESTORE, BackupCommands
from xmppd.admin.blocks import BlockCommands
from xmppd.admin.builtin import LOOKS, Needs, ServerCommands, StoreCommands, UserCommands
from xmppd.admin.bulk import BulkCommands
from xmppd.admin.certificates import CertificateCommands
from xmppd.admin.client import Begin, NoServer, download, follow, request
from xmppd.admin.commands import (
    BAD_CONFIG,
    FAILED,
    NO_PERMISSION,
    UNAVAILABLE,
    USAGE,
    Command,
    Description,
    Parameter,
    as_command_error,
    clashes,
    commands_of,
    described,
    descriptions_of,
)
from xmppd.admin.completion import SHELLS, candidates
from xmppd.admin.contexts import VARIABLE as CONTEXT_VARIABLE
from xmppd.admin.contexts import Contexts
from xmppd.admin.doctor import DoctorCommands
from xmppd.admin.follow import FollowCommands
from xmppd.admin.friends import FriendCommands
from xmppd.admin.keys import ApiTokenCommands
from xmppd.admin.logs import LogCommands
from xmppd.admin.messages import MessageCommands
from xmppd.admin.migration import LOCAL as MIGRATIONS
from xmppd.admin.migration import MigrateCommands
from xmppd.admin.nodes import NodeCommands
from xmppd.admin.pages import Pages
from xmppd.admin.parser import Parser, add_common, build_parser
from xmppd.admin.presence import PresenceCommands
from xmppd.admin.registry import Commands
from xmppd.admin.render import line_of, render
from xmppd.admin.rights import RightsCommands
from xmppd.admin.rolling import RESTART, Rolling
from xmppd.admin.rosters import RosterCommands
from xmppd.admin.saving import save
from xmppd.admin.sessions import SessionCommands
from xmppd.admin.settings import SettingsCommands
from xmppd.admin.status import status_text
from xmppd.admin.tokens import TokenCommands
from xmppd.admin.whereabouts import find_server
from xmppd.configfile import read
from xmppd.errors import CommandError, ConfigError, Problem, XmppdError

if TYPE_CHECKING:
    from xmppd.config import Config

DEBUG_VARIABLE = "XMPPD_DEBUG"
INTERRUPTED = 130

SERVE = Description(
    "serve",
    "Run the server",
    (
        Parameter("guide", "bool", "say how to log in (on a terminal: yes)", required=False, option=True),
        Parameter("workers", "int", "as so many nodes behind one port", required=False, option=True),
    ),
)
CHECK_CONFIG = Description("check-config", "List every mistake in the configuration")
COPY_STORE = Description(
    "store copy",
    "Copy a whole installation into another store, or go on with that, and compare every row",
    (
        Parameter("from", "str", "the configuration whose store is copied", option=True),
        Parameter("to", "str", "the configuration whose store is filled", option=True),
        Parameter("compare", "bool", "copy nothing, only compare", required=False, option=True),
        Parameter(
            "allow_running",
            "bool",
            "also while a server runs on it; what changes meanwhile is missed",
            required=False,
            option=True,
        ),
    ),
)
SHELL = Description("shell", "Do one command after another, with history and completion")
COMPLETION = Description(
    "completion",
    "Print what makes a shell complete words",
    (Parameter("shell", "str", "bash, zsh or fish"),),
)
COMPLETE = "--complete"
"""Before words of a command line: print what the last one may become."""
CONTEXT_COMMANDS = tuple(descriptions_of(Contexts))
"""They are about this machine, whatever server there is."""
STORE_COMMANDS = tuple(descriptions_of(StoreCommands))
"""They look at the tables themselves, which need not be there or be up to date."""
BACKUP_COMMANDS = tuple(descriptions_of(BackupCommands))
"""They look at all that is in them, whatever it is."""
BUILT_IN = (
    SERVE,
    CHECK_CONFIG,
    COPY_STORE,
    RESTORE,
    RESTART,
    SHELL,
    COMPLETION,
    *CONTEXT_COMMANDS,
    *descriptions_of(ServerCommands),
    *descriptions_of(SessionCommands),
    *descriptions_of(NodeCommands),
    *descriptions_of(SettingsCommands),
    *descriptions_of(CertificateCommands),
    *descriptions_of(UserCommands),
    *descriptions_of(BulkCommands),
    *descriptions_of(RightsCommands),
    *descriptions_of(TokenCommands),
    *descriptions_of(ApiTokenCommands),
    *descriptions_of(AuditCommands),
    *descriptions_of(RosterCommands),
    *descriptions_of(FriendCommands),
    *descriptions_of(PresenceCommands),
    *descriptions_of(BlockCommands),
    *descriptions_of(FollowCommands),
    *descriptions_of(MessageCommands),
    *descriptions_of(LogCommands),
    *descriptions_of(DoctorCommands),
    *STORE_COMMANDS,
    *BACKUP_COMMANDS,
    *MIGRATIONS,
    *descriptions_of(MigrateCommands),
    *map(described, Commands().describe()),
)


class Door(Protocol):
    """Where commands are done: in the running server, or on the store alone."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; its result, or CommandError."""

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Only look at the arguments, without secrets; CommandError."""

    def download(self, name: str, arguments: Mapping[str, Any], begin: Begin) -> None:
        """Run a command whose result is a file, which goes where `begin` says; CommandError."""


class Live(Door, Protocol):
    """A running server: there are commands that go on until the caller leaves."""

    def follow(self, name: str, arguments: Mapping[str, Any]) -> Generator[Mapping[str, Any], None, None]:
        """The records of one, as they come; CommandError."""


Reach = AbstractContextManager[Door]


class App(Protocol):
    """What the command line needs of the server's own code, which takes long to load."""

    def load(self, path: Path | None) -> Config:
        """The configuration, or ConfigError with every mistake."""

    def serve(self, load: Callable[[], Config], *, guide: bool) -> int:
        """Run the server until told to stop; `load` reads the configuration, again on SIGHUP; `guide`: say
        how to log in. Exit code.
        """

    def supervise(self, load: Callable[[], Config], count: int) -> int:
        """Run so many servers as one, until told to stop. Exit code."""

    def offline(self, config: Config, *, needs: Needs, create: bool) -> AbstractContextManager[Door]:
        """The parts of a server that a command needs, on the store, without listening. CommandError when that
        is not there and may not be made by `create`.
        """

    def copy_store(
        self, source: Config, target: Config, *, compare: bool, allow_running: bool
    ) -> list[dict[str, Any]]:
        """Copy one store into another and compare them, or only that; a mapping for each table."""

    def restore_store(self, config: Config, file: Path) -> dict[str, Any]:
        """Put a backup in place of the database; where both are."""

    def migrate(
        self, name: str, arguments: Mapping[str, Any], load: Callable[[], Config], reach: Callable[[], Reach]
    ) -> tuple[Any, int]:
        """One of the `migrate` commands that are done here: its result and exit code. `reach` opens the door
        to the running server, or to its store.
        """

    def check(self, config: Config) -> list[Problem]:
        """Mistakes that the configuration's own models cannot see."""


class Online:
    """The running server at a socket."""

    def __init__(self, path: Path) -> None:
        self.call = functools.partial(request, path)
        self.check = functools.partial(request, path, check=True)
        self.download = functools.partial(download, path)
        self.follow = functools.partial(follow, path)


class Local:
    """Commands that are done here."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = Commands(commands)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run one; its result, or CommandError."""
        try:
            self._commands.call(name, arguments).send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("a command that is done here waits for nothing")

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Only look at the arguments."""

    def download(self, name: str, arguments: Mapping[str, Any], begin: Begin) -> None:
        """None of them has a file as its result."""
        raise NotImplementedError


def main(argv: Sequence[str], app: App) -> int:
    """Run one command line (without the program's name); its exit code. Errors are a sentence on stderr."""
    try:
        return _run(argv, app)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        return FAILED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        message, exit_code = _explain(error)
        sys.stderr.write(f"{message}\n")
        return exit_code


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, ConfigError):
        return str(error), BAD_CONFIG
    if isinstance(error, XmppdError):
        refusal = as_command_error(error)
        return f"xmppd: {refusal}", refusal.exit_code
    if isinstance(error, PermissionError):
        return f"xmppd: {_reason(error)}", NO_PERMISSION
    if isinstance(error, OSError):
        return f"xmppd: {_reason(error)}", FAILED
    return f"xmppd: internal error: {error!r} ({DEBUG_VARIABLE}=1 shows where)", FAILED


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _run(argv: Sequence[str], app: App) -> int:
    if argv and argv[0] == COMPLETE:
        sys.stdout.writelines(f"{word}\n" for word in _completed(argv[1:]))
        return 0
    given = _parse(argv)
    about: Description = given.about
    if about is COMPLETION:
        return _completion(given)
    if about is SHELL:
        return _shell(given, app)
    if about in CONTEXT_COMMANDS:
        return _do(given, Local(commands_of(Contexts())))
    if _context_of(given) and (
        about in (SERVE, CHECK_CONFIG, COPY_STORE, RESTORE, RESTART) or about in MIGRATIONS
    ):
        raise CommandError(f"{about.name} is done where the server is, not in a context", USAGE)
    if about is SERVE:
        wanted, load = _openly(about, given), functools.partial(app.load, given.config)
        if "workers" in wanted:
            return app.supervise(load, wanted["workers"])
        return app.serve(load, guide=wanted.get("guide", sys.stderr.isatty()))
    here = {CHECK_CONFIG: _check_config, COPY_STORE: _copy_store, RESTORE: _restore}
    if about in here:
        return here[about](given, app)
    if about is RESTART:
        return _restart(given)
    if about in MIGRATIONS:
        return _migrate(given, app)
    with _reach(given, app) as door:
        return _follow(given, cast("Live", door)) if about.follows else _do(given, door)


def _context_of(given: argparse.Namespace) -> str:
    """The name of the context that was asked for; "" for this machine."""
    named: str | None = given.context
    if named is not None:
        return named
    return "" if given.config is not None else os.environ.get(CONTEXT_VARIABLE, "")


def _reach(given: argparse.Namespace, app: App) -> Reach:
    """The door of the running server; where there is none, of its store, for commands that need no more."""
    if name := _context_of(given):
        return contextlib.nullcontext(_elsewhere(name, given.about))
    server = _find_server(given.config)
    if server is not None:
        return contextlib.nullcontext(Online(server))
    config = app.load(given.config)
    if not given.about.offline:
        raise NoServer(config.socket_path)
    return app.offline(config, needs=_needs(given.about), create=given.create)


def _completion(given: argparse.Namespace) -> int:
    shell = _openly(COMPLETION, given)["shell"]
    if shell not in SHELLS:
        raise CommandError(f"{shell} is none of {', '.join(SHELLS)}", USAGE)
    sys.stdout.write(SHELLS[shell])
    return 0


def _completed(words: Sequence[str], inherited: Sequence[str] = ()) -> list[str]:
    """What the last word may become, by our own commands and those of the server."""
    early = Parser(prog="xmppd", add_help=False)
    add_common(early, None, default_json=False)
    given, _ = early.parse_known_args([*inherited, *words[:-1]])
    names = {about.name for about in BUILT_IN}
    more = [about for about in _ask_server(given) if about.name not in names]
    contexts = [row["name"] for row in Contexts().every()]
    return candidates(words, [*BUILT_IN, *more], contexts)


def _shell(given: argparse.Namespace, app: App) -> int:
    inherited = ["--config", str(given.config)] if given.config else []
    inherited += ["--context", given.context] if given.context else []
    module = importlib.import_module("xmppd.admin.shell")
    complete = functools.partial(_completed, inherited=inherited)
    exit_code: int = module.Shell(
        lambda words: main([*inherited, *words], app), complete, lambda: BUILT_IN
    ).loop()
    return exit_code


def _elsewhere(context: str, about: Description) -> Door:
    """The server of a context, for one command."""
    remote = importlib.import_module("xmppd.admin.remote")  # it loads what TLS takes
    door: Door = remote.Remote(Contexts().find(context), {about.name: about})
    return door


def _needs(about: Description) -> Needs:
    if about in STORE_COMMANDS:
        return "tables"
    if about in BACKUP_COMMANDS:
        return "whole"
    return "records" if about.name in LOOKS else "server"


def _find_server(path: Path | None) -> Path | None:
    document = read(path)
    if document.problems:
        raise ConfigError(document.problems)
    return find_server(document, is_named=path is not None)


def _do(given: argparse.Namespace, door: Door) -> int:
    about: Description = given.about
    arguments = _openly(about, given)
    if about.paged:
        return _page(given, door, arguments | secretly(about, given)[0])
    if about.downloads:
        _show(save(about.name, door, arguments, given.out), given)
        return 0
    asked = [parameter for parameter in about.parameters if is_asked_for(parameter, given)]
    must_confirm = bool(about.confirm) and not given.yes and sys.stdin.isatty()
    if must_confirm or (asked and sys.stdin.isatty()):
        door.check(about.name, arguments)
    if must_confirm:
        defaults = {parameter.name: parameter.default for parameter in about.parameters}
        confirm(about.confirm.format_map(defaults | arguments))
    secret, generated = secretly(about, given)
    result = door.call(about.name, {**arguments, **secret})
    if generated:
        result = {**(result if isinstance(result, dict) else {"result": result}), **generated}
    _show(result, given)
    return 0


def _follow(given: argparse.Namespace, door: Live) -> int:
    """Print records as they come, until Ctrl-C."""
    about: Description = given.about
    with contextlib.closing(door.follow(about.name, _openly(about, given))) as records:
        if about.name == "top" and not given.json:
            importlib.import_module("xmppd.admin.topview").show(records)
            return 0
        for record in records:
            sys.stdout.write(f"{json.dumps(record) if given.json else line_of(record)}\n")
            sys.stdout.flush()
    return 0


def _page(given: argparse.Namespace, door: Door, arguments: dict[str, Any]) -> int:
    """Call a command until nothing is left, with progress on stderr."""
    name = given.about.name
    pages = Pages(name, sys.stderr)
    try:
        while pages.add(door.call(name, arguments)):
            arguments["after"] = pages.after
    except BaseException:
        pages.interrupted()
        raise
    _show(pages.result if given.json else pages.text, given)
    return pages.exit_code


def _check_config(given: argparse.Namespace, app: App) -> int:
    source = ""
    try:
        config = app.load(given.config)
        source = str(config.source)
        problems = app.check(config)
    except ConfigError as error:
        problems = error.problems
    if given.json:
        _show({"problems": [asdict(problem) for problem in problems]}, given)
    elif problems:
        raise ConfigError(problems)
    else:
        _show(f"{source}: no mistakes", given)
    return BAD_CONFIG if problems else 0


def _copy_store(given: argparse.Namespace, app: App) -> int:
    arguments = _openly(COPY_STORE, given)
    source, target = (app.load(Path(arguments[name])) for name in ("from", "to"))
    compare, allow_running = (arguments.get(name) is True for name in ("compare", "allow_running"))
    _show(app.copy_store(source, target, compare=compare, allow_running=allow_running), given)
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _restore(given: argparse.Namespace, app: App) -> int:
    config, file = app.load(given.config), Path(_openly(RESTORE, given)["file"])
    if not given.yes and sys.stdin.isatty():
        confirm(RESTORE.confirm.format(file=file))
    _show(app.restore_store(config, file), given)
    return 0


def _restart(given: argparse.Namespace) -> int:
    wanted = {parameter.name: parameter.default for parameter in RESTART.parameters} | _openly(RESTART, given)
    if not wanted["rolling"] or wanted["pace"] < 1:
        raise CommandError("only --rolling, at a pace of 1 or more, is known", USAGE)

    def call(name: str, arguments: Mapping[str, Any]) -> Any:
        server = _find_server(given.config)
        if server is None:
            raise CommandError("no server is running here", UNAVAILABLE)
        return request(server, name, arguments)

    rolling = Rolling(call, _say, time.monotonic, time.sleep)
    _show(rolling.run(wanted["pace"], wanted["wait"], wanted["well"]), given)
    return 0


def _migrate(given: argparse.Namespace, app: App) -> int:
    load, reach = functools.partial(app.load, given.config), functools.partial(_reach, given, app)
    result, exit_code = app.migrate(given.about.name, _openly(given.about, given), load, reach)
    _show(result, given)
    return exit_code


def _show(result: Any, given: argparse.Namespace) -> None:
    for_people = status_text if given.about.name == "status" else render
    text = json.dumps(result, indent=2) if given.json else for_people(result)
    if text:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    early = Parser(prog="xmppd", add_help=False)
    add_common(early, None, default_json=False)
    given, rest = early.parse_known_args(argv)
    words = [word for word in rest if not word.startswith("-")]
    known = {about.name for about in BUILT_IN}
    more: list[Description] = []
    if words and not any(" ".join(words[:length]) in known for length in range(1, len(words) + 1)):
        more = [about for about in _ask_server(given) if not clashes(about.name, known)]
    return build_parser([*BUILT_IN, *more]).parse_args(argv)


def _ask_server(given: argparse.Namespace) -> list[Description]:
    """The commands of the running server; none when there is no server to ask."""
    try:
        if name := _context_of(given):
            about = next(about for about in BUILT_IN if about.name == "commands")
            return [described(data) for data in _elsewhere(name, about).call(about.name, {})]
        server = _find_server(given.config)
        return [described(data) for data in request(server, "commands", {})] if server is not None else []
    except (CommandError, ConfigError):
        return []


# arguments


def _openly(about: Description, given: argparse.Namespace) -> dict[str, Any]:
    """Arguments that are no secrets, as they go to the command."""
    values = vars(given)
    found = {
        parameter.name: values.get(f"parameter {parameter.name}")
        for parameter in about.parameters
        if not parameter.secret
    }
    return {name: value for name, value in found.items() if value is not None}
