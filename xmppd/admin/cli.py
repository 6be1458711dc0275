"""The command line: arguments from the same descriptions as every other door, results and errors for people.

A command goes to the running server through its socket. Those marked `offline` also work on the store when no
server runs. A name that is not built in is looked up in the running server: plugins bring commands.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import getpass
import json
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, Protocol

from xmppd import __version__
from xmppd.admin.builtin import ServerCommands, StoreCommands, UserCommands
from xmppd.admin.commands import (
    BAD_CONFIG,
    FAILED,
    NO_PERMISSION,
    USAGE,
    Commands,
    Description,
    Parameter,
    as_command_error,
    clashes,
    described,
    descriptions_of,
)
from xmppd.admin.pages import Pages
from xmppd.admin.render import render
from xmppd.admin.rosters import RosterCommands
from xmppd.admin.socket import NoServer, request
from xmppd.config import Config, load
from xmppd.errors import CommandError, ConfigError, Problem, XmppdError

DEBUG_VARIABLE = "XMPPD_DEBUG"
INTERRUPTED = 130

SERVE = Description("serve", "Run the server", offline=True)
CHECK_CONFIG = Description("check-config", "List every mistake in the configuration", offline=True)
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
    offline=True,
)
STORE_COMMANDS = tuple(descriptions_of(StoreCommands))
"""They look at the tables themselves, which need not be there or be up to date."""
BUILT_IN = (
    SERVE,
    CHECK_CONFIG,
    COPY_STORE,
    *descriptions_of(ServerCommands),
    *descriptions_of(UserCommands),
    *descriptions_of(RosterCommands),
    *STORE_COMMANDS,
    *map(described, Commands().describe()),
)

_TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float}
_PASSWORD_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


class Offline(Protocol):
    """The parts of a server that work on the store alone."""

    @property
    def commands(self) -> Commands: ...


class App(Protocol):
    """What the command line needs from `xmppd.app`."""

    def serve(self, load: Callable[[], Config]) -> int:
        """Run the server until told to stop; `load` reads the configuration, again on SIGHUP. Exit code."""

    def open_offline(self, config: Config) -> AbstractAsyncContextManager[Offline]:
        """Open the store and what stands on it, without listening."""

    def copy_store(
        self, source: Config, target: Config, *, compare: bool, allow_running: bool
    ) -> list[dict[str, Any]]:
        """Copy one store into another and compare them, or only that; a mapping for each table."""

    def with_store(self, config: Config) -> AbstractAsyncContextManager[Offline]:
        """The same, but with the commands of the store only, which is not opened."""

    def check(self, config: Config) -> list[Problem]:
        """Mistakes in what plugins were told, which the configuration's own models cannot see."""


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
    given = _parse(argv)
    about: Description = given.about
    if about is SERVE:
        return app.serve(functools.partial(load, given.config))
    if about is CHECK_CONFIG:
        return _check_config(given, app)
    if about is COPY_STORE:
        return _copy_store(given, app)
    config = load(given.config)
    arguments, generated = _arguments(about, given)
    if about.paged:
        return _run_paged(given, app, config, arguments)
    try:
        result = request(config.socket_path, about.name, arguments)
    except NoServer:
        if not about.offline:
            raise
        parts = app.with_store(config) if about in STORE_COMMANDS else app.open_offline(config)
        result = asyncio.run(_call_offline(parts, about.name, arguments))
    if generated:
        result = {**(result if isinstance(result, dict) else {"result": result}), **generated}
    _show(result, given)
    return 0


def _run_paged(given: argparse.Namespace, app: App, config: Config, arguments: dict[str, Any]) -> int:
    """Call a command until nothing is left, with progress on stderr."""
    about: Description = given.about
    pages = Pages(about.name, sys.stderr)
    try:
        while pages.add(request(config.socket_path, about.name, arguments)):
            arguments["after"] = pages.after
    except NoServer:
        if not about.offline or pages.after is not None:
            pages.interrupted()
            raise
        asyncio.run(_page_offline(app, config, about.name, arguments, pages))
    except BaseException:
        pages.interrupted()
        raise
    _show(pages.result if given.json else pages.text, given)
    return pages.exit_code


async def _page_offline(app: App, config: Config, name: str, arguments: dict[str, Any], pages: Pages) -> None:
    async with app.open_offline(config) as parts:
        try:
            while pages.add(await parts.commands.call(name, arguments)):
                arguments["after"] = pages.after
        except BaseException:
            pages.interrupted()
            raise


async def _call_offline(
    offline: AbstractAsyncContextManager[Offline], name: str, arguments: dict[str, Any]
) -> Any:
    async with offline as parts:
        return await parts.commands.call(name, arguments)


def _check_config(given: argparse.Namespace, app: App) -> int:
    source = ""
    try:
        config = load(given.config)
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
    arguments, _ = _arguments(COPY_STORE, given)
    source, target = (load(Path(arguments[name])) for name in ("from", "to"))
    compare, allow_running = (arguments.get(name) is True for name in ("compare", "allow_running"))
    _show(app.copy_store(source, target, compare=compare, allow_running=allow_running), given)
    return 0


def _show(result: Any, given: argparse.Namespace) -> None:
    text = json.dumps(result, indent=2) if given.json else render(result)
    if text:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # A plugin may call a parameter like one of our own options: then its own wins.
        super().__init__(allow_abbrev=False, conflict_handler="resolve", **options)

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)", USAGE)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    early = _Parser(prog="xmppd", add_help=False)
    _add_common(early, None, default_json=False)
    given, rest = early.parse_known_args(argv)
    words = [word for word in rest if not word.startswith("-")]
    known = {about.name for about in BUILT_IN}
    more: list[Description] = []
    if words and not any(" ".join(words[:length]) in known for length in range(1, len(words) + 1)):
        more = [about for about in _ask_server(given.config) if not clashes(about.name, known)]
    return build_parser([*BUILT_IN, *more]).parse_args(argv)


def _ask_server(path: Path | None) -> list[Description]:
    """The commands of the running server; none when there is no server to ask."""
    try:
        return [described(data) for data in request(load(path).socket_path, "commands", {})]
    except (CommandError, ConfigError):
        return []


def build_parser(descriptions: Sequence[Description]) -> argparse.ArgumentParser:
    """A parser with a nested sub-command for each word of each name; it sets `about` to the description."""
    root = _Parser(prog="xmppd", description="An XMPP server for games.")
    root.add_argument("--version", action="version", version=f"xmppd {__version__}")
    _add_common(root, None, default_json=False)
    groups: dict[tuple[str, ...], Any] = {(): _subcommands(root)}
    names = [tuple(about.name.split()) for about in descriptions]
    for about, words in zip(descriptions, names, strict=True):
        for length in range(1, len(words)):
            if words[:length] not in groups:
                below = dict.fromkeys(name[length] for name in names if name[:length] == words[:length])
                group = groups[words[: length - 1]].add_parser(words[length - 1], help=", ".join(below))
                groups[words[:length]] = _subcommands(group)
        parser = groups[words[:-1]].add_parser(words[-1], help=_help(about.help), description=about.help)
        _add_common(parser, argparse.SUPPRESS, default_json=argparse.SUPPRESS)
        for parameter in about.parameters:
            _add(parser, parameter)
        parser.set_defaults(about=about)
    return root


def _subcommands(parser: argparse.ArgumentParser) -> Any:
    return parser.add_subparsers(metavar="COMMAND", dest="word", required=True, parser_class=_Parser)


def _add_common(parser: argparse.ArgumentParser, default: str | None, *, default_json: bool | str) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=default, help="the configuration to use"
    )
    parser.add_argument("--json", action="store_true", default=default_json, help="print the result as JSON")


def _help(text: str) -> str:
    return text.replace("%", "%%")


def _add(parser: argparse.ArgumentParser, parameter: Parameter) -> None:
    """One parameter, under a name that cannot meet one of our own in the namespace."""
    dest, option = f"parameter {parameter.name}", "--" + parameter.name.replace("_", "-")
    text, shown = _help(parameter.help), parameter.name.upper()
    convert = _TYPES.get(parameter.kind, str)
    if parameter.secret:
        ways = parser.add_mutually_exclusive_group()
        openly, stdin, generate = dest, f"stdin {parameter.name}", f"generate {parameter.name}"
        text = f"{text} (others on this machine may see it: for scripts)"
        ways.add_argument(option, dest=openly, metavar=shown, help=text)
        ways.add_argument(f"{option}-stdin", dest=stdin, action="store_true", help="read it from stdin")
        ways.add_argument("--generate", dest=generate, action="store_true", help="make one up and show it")
    elif parameter.kind == "bool":
        parser.add_argument(
            option, dest=dest, action=argparse.BooleanOptionalAction, required=parameter.required, help=text
        )
    elif parameter.option:
        parser.add_argument(
            option, dest=dest, metavar=shown, type=convert, required=parameter.required, help=text
        )
    else:
        count = None if parameter.required else "?"
        parser.add_argument(dest, metavar=shown, type=convert, nargs=count, help=text)


def _arguments(about: Description, given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments as they go to the command, and the secrets among them that were made up, to be shown."""
    values = vars(given)
    arguments: dict[str, Any] = {}
    generated: dict[str, str] = {}
    for parameter in about.parameters:
        value = values.get(f"parameter {parameter.name}")
        if parameter.secret and value is None:
            if values[f"generate {parameter.name}"]:
                value = generated[parameter.name] = _made_up()
            elif values[f"stdin {parameter.name}"]:
                value = sys.stdin.readline().rstrip("\r\n")
            elif parameter.required:
                value = _asked_for(parameter.name)
        if parameter.secret and value == "":
            raise CommandError(f"the {parameter.name} must not be empty", USAGE)
        if value is not None:
            arguments[parameter.name] = value
    return arguments, generated


def _made_up() -> str:
    """20 letters that cannot be mistaken for each other: 99 bits."""
    return "".join(secrets.choice(_PASSWORD_LETTERS) for _ in range(20))


def _asked_for(name: str) -> str:
    if not sys.stdin.isatty():
        raise CommandError(f"no terminal to ask for the {name}: use --{name}-stdin or --generate", USAGE)
    value = getpass.getpass(f"{name}: ")
    if getpass.getpass(f"{name} again: ") != value:
        raise CommandError("the two are not the same", USAGE)
    return value
