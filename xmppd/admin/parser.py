"""Descriptions of commands as a parser of command lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from xmppd import __version__
from xmppd.admin.commands import USAGE, Description, Parameter
from xmppd.errors import CommandError

_TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float}


class Parser(argparse.ArgumentParser):
    """One that raises CommandError for a wrong command line, and takes no abbreviations."""

    def __init__(self, **options: Any) -> None:
        # A plugin may call a parameter like one of our own options: then its own wins.
        super().__init__(allow_abbrev=False, conflict_handler="resolve", **options)

    def error(self, message: str) -> NoReturn:
        """One sentence, and the exit code for wrong usage."""
        raise CommandError(f"{message} (see {self.prog} --help)", USAGE)


def build_parser(descriptions: Sequence[Description]) -> argparse.ArgumentParser:
    """A parser with a nested sub-command for each word of each name; it sets `about` to the description."""
    root = Parser(prog="xmppd", description="An XMPP server for games.")
    root.add_argument("--version", action="version", version=f"xmppd {__version__}")
    add_common(root, None, default_json=False)
    groups: dict[tuple[str, ...], Any] = {(): _subcommands(root)}
    names = [tuple(about.name.split()) for about in descriptions]
    for about, words in zip(descriptions, names, strict=True):
        for length in range(1, len(words)):
            if words[:length] not in groups:
                below = dict.fromkeys(name[length] for name in names if name[:length] == words[:length])
                group = groups[words[: length - 1]].add_parser(words[length - 1], help=", ".join(below))
                groups[words[:length]] = _subcommands(group)
        parser = groups[words[:-1]].add_parser(words[-1], help=_help(about.help), description=about.help)
        add_common(parser, argparse.SUPPRESS, default_json=argparse.SUPPRESS)
        if about.offline:
            parser.add_argument("--create", action="store_true", help="make the store if it is not there yet")
        if about.downloads:
            parser.add_argument(
                "--out", type=Path, metavar="FILE", help="where it goes; nothing is overwritten"
            )
        if about.confirm:
            parser.add_argument("--yes", action="store_true", help="do not ask")
        for parameter in about.parameters:
            _add(parser, parameter)
        parser.set_defaults(about=about)
    return root


def _subcommands(parser: argparse.ArgumentParser) -> Any:
    return parser.add_subparsers(metavar="COMMAND", dest="word", required=True, parser_class=Parser)


def add_common(parser: argparse.ArgumentParser, default: str | None, *, default_json: bool | str) -> None:
    """What every command takes."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=default, help="the configuration to use"
    )
    parser.add_argument(
        "--context", metavar="NAME", default=default, help="a server elsewhere, as `context add` named it"
    )
    parser.add_argument("--json", action="store_true", default=default_json, help="print the result as JSON")


def _help(text: str) -> str:
    return text.replace("%", "%%")


def _add(parser: argparse.ArgumentParser, parameter: Parameter) -> None:
    """One parameter, under a name that cannot meet one of our own in the namespace."""
    dest, option = f"parameter {parameter.name}", "--" + parameter.name.replace("_", "-")
    text, shown = _help(parameter.help), parameter.name.upper()
    convert = _TYPES.get(parameter.kind, str)
    if parameter.lines:
        about = f"{text} (- for stdin)"
        parser.add_argument(
            option, dest=dest, metavar="FILE", type=_file, required=parameter.required, help=about
        )
    elif parameter.secret:
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
        action = "append" if parameter.many else "store"
        parser.add_argument(
            option,
            dest=dest,
            action=action,
            metavar=shown,
            type=convert,
            required=parameter.required,
            help=text,
        )
    else:
        count = (
            ("+" if parameter.required else "*") if parameter.many else None if parameter.required else "?"
        )
        parser.add_argument(dest, metavar=shown, type=convert, nargs=count, help=text)


def _file(name: str) -> str:
    """All that is in the file of that name, or on stdin."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{name} is not UTF-8") from None
