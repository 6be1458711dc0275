"""What a command line asks whoever typed it: whether they are sure, and for secrets."""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
from typing import Any

from xmppd.admin.commands import USAGE, Description, Parameter
from xmppd.errors import CommandError

_PASSWORD_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_WAYS = ("parameter", "stdin", "generate")


def secretly(about: Description, given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Secrets as they go to the command, and those that were made up, to be shown. CommandError."""
    values = vars(given)
    found: dict[str, Any] = {}
    generated: dict[str, str] = {}
    for parameter in about.parameters:
        if not parameter.secret:
            continue
        value = values[f"parameter {parameter.name}"]
        if values.get(f"generate {parameter.name}"):
            value = generated[parameter.name] = _made_up()
        elif values.get(f"stdin {parameter.name}"):
            value = sys.stdin.readline().rstrip("\r\n")
        elif is_asked_for(parameter, given):
            value = _asked_for(parameter.name)
        if value == "":
            raise CommandError(f"the {parameter.name} must not be empty", USAGE)
        if value is not None:
            found[parameter.name] = value
    return found, generated


def is_asked_for(parameter: Parameter, given: argparse.Namespace) -> bool:
    """Whether it is a secret that is needed and was not given in another way."""
    values = vars(given)
    return (
        parameter.secret
        and parameter.required
        and not any(values.get(f"{way} {parameter.name}") not in (None, False) for way in _WAYS)
    )


def confirm(question: str) -> None:
    """CommandError unless the answer is yes."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was done")


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
