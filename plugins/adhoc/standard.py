"""What service administration (XEP-0133) names, done by the commands of this server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xmppd import ns
from xmppd.plugin import Element

from .forms import bad_payload, field, form

Values = Mapping[str, Sequence[str]]
Call = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
"""Runs a command by its name, with arguments."""

MOST: Final = 200
"""Accounts in one form."""


@dataclass(frozen=True, slots=True)
class Blank:
    """A field of a form: a variable of XEP-0133, its type, and what it stands for."""

    var: str
    type: str
    label: str
    is_required: bool = True

    def xml(self) -> Element:
        """As it is asked for."""
        return field(self.var, type=self.type, label=self.label, required=self.is_required)


@dataclass(frozen=True, slots=True)
class Standard:
    """One use case: its node behind the namespace, the command that allows it, the form, and what is done
    with it: fields of a result, if there are any.
    """

    name: str
    title: str
    command: str
    blanks: tuple[Blank, ...]
    do: Callable[[Call, Values], Awaitable[list[Element]]]

    @property
    def node(self) -> str:
        """The node of the command."""
        return f"{ns.ADMIN}#{self.name}"

    def form(self) -> Element:
        """What is asked for."""
        kind = field("FORM_TYPE", [ns.ADMIN], type="hidden")
        return form(self.title, "", [kind, *(blank.xml() for blank in self.blanks)])

    def check(self, values: Values) -> None:
        """StanzaError bad-payload where something is missing."""
        for blank in self.blanks:
            if blank.is_required and not any(values.get(blank.var, ())):
                raise bad_payload(f"{blank.var} is missing.")
        if len(values.get("accountjids", ())) > MOST:
            raise bad_payload(f"At most {MOST} accounts at once.")


def _one(values: Values, name: str) -> str:
    return next(iter(values.get(name, ())), "")


def _text(values: Values, name: str) -> str:
    return "\n".join(values.get(name, ()))


def _each(command: str, parameter: str) -> Callable[[Call, Values], Awaitable[list[Element]]]:
    async def do(call: Call, values: Values) -> list[Element]:
        for address in values["accountjids"]:
            if address:
                await call(command, {parameter: address})
        return []

    return do


async def _add(call: Call, values: Values) -> list[Element]:
    password = _one(values, "password")
    if not password or password != _one(values, "password-verify"):
        raise bad_payload("The two passwords are not the same.")
    await call("user add", {"account": _one(values, "accountjid"), "password": password})
    return []


async def _password(call: Call, values: Values) -> list[Element]:
    await call("user passwd", {"account": _one(values, "accountjid"), "password": _one(values, "password")})
    return []


async def _roster(call: Call, values: Values) -> list[Element]:
    found = []
    for address in values["accountjids"]:
        rows = await call("roster show", {"account": address})
        found.append(field("accountjids", [address]))
        found.append(field("roster", [row["contact"] for row in rows]))
    return found


async def _sessions(call: Call, arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of all pages."""
    rows: list[Mapping[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = await call("session list", {**arguments, "most": 10_000, "after": after})
        rows += page["rows"]
        after = page["after"]
    return rows


async def _statistics(call: Call, values: Values) -> list[Element]:
    address = _one(values, "accountjid")
    sessions = await _sessions(call, {"account": address})
    contacts = await call("roster show", {"account": address})
    return [
        field("accountjid", [address]),
        field("rostersize", [str(len(contacts))]),
        field("onlineresources", [row["session"].partition("/")[2] for row in sessions if "session" in row]),
        field("ipaddresses", [row["address"] for row in sessions if row.get("address")]),
    ]


def _accounts(var: str, keep: Callable[[Mapping[str, Any]], bool], *, count: bool) -> Any:
    async def do(call: Call, values: Values) -> list[Element]:
        names = [row["account"] for row in await call("user list", {}) if keep(row)]
        return _listed(var, names, values, count=count)

    return do


def _online(var: str, *, count: bool) -> Any:
    async def do(call: Call, values: Values) -> list[Element]:
        rows = await _sessions(call, {})
        names = sorted({row["session"].partition("/")[0] for row in rows if "session" in row})
        return _listed(var, names, values, count=count)

    return do


def _listed(var: str, names: Sequence[str], values: Values, *, count: bool) -> list[Element]:
    if count:
        return [field(var, [str(len(names))])]
    most = _one(values, "max_items")
    return [field(var, names[: int(most)] if most.isdecimal() else names)]


async def _announce(call: Call, values: Values) -> list[Element]:
    await call("announce send", {"text": _text(values, "announcement")})
    return []


async def _set_motd(call: Call, values: Values) -> list[Element]:
    await call("announce motd", {"text": _text(values, "motd")})
    return []


async def _delete_motd(call: Call, values: Values) -> list[Element]:
    await call("announce clear", {})
    return []


ACCOUNT: Final = Blank("accountjid", "jid-single", "The account")
ACCOUNTS: Final = Blank("accountjids", "jid-multi", "The accounts")
PASSWORD: Final = Blank("password", "text-private", "The password")
AGAIN: Final = Blank("password-verify", "text-private", "The password again")
ITEMS: Final = Blank("max_items", "text-single", "At most so many", is_required=False)


def _is_disabled(row: Mapping[str, Any]) -> bool:
    return bool(row["disabled"])


def _any(row: Mapping[str, Any]) -> bool:
    return True


STANDARD: Final = (
    Standard("add-user", "Add an account", "user add", (ACCOUNT, PASSWORD, AGAIN), _add),
    Standard("delete-user", "Delete accounts", "user remove", (ACCOUNTS,), _each("user remove", "account")),
    Standard(
        "disable-user", "Disable accounts", "user disable", (ACCOUNTS,), _each("user disable", "account")
    ),
    Standard("reenable-user", "Enable accounts", "user enable", (ACCOUNTS,), _each("user enable", "account")),
    Standard(
        "end-user-session", "End sessions", "session kick", (ACCOUNTS,), _each("session kick", "address")
    ),
    Standard("change-user-password", "Change a password", "user passwd", (ACCOUNT, PASSWORD), _password),
    Standard("get-user-roster", "Show contacts", "roster show", (ACCOUNTS,), _roster),
    Standard("user-stats", "Show an account", "session list", (ACCOUNT,), _statistics),
    Standard(
        "get-registered-users-num",
        "Count accounts",
        "user list",
        (),
        _accounts("registeredusersnum", _any, count=True),
    ),
    Standard(
        "get-disabled-users-num",
        "Count disabled accounts",
        "user list",
        (),
        _accounts("disabledusersnum", _is_disabled, count=True),
    ),
    Standard(
        "get-online-users-num",
        "Count who is online",
        "session list",
        (),
        _online("onlineusersnum", count=True),
    ),
    Standard(
        "get-registered-users-list",
        "List accounts",
        "user list",
        (ITEMS,),
        _accounts("registereduserjids", _any, count=False),
    ),
    Standard(
        "get-disabled-users-list",
        "List disabled accounts",
        "user list",
        (ITEMS,),
        _accounts("disableduserjids", _is_disabled, count=False),
    ),
    Standard(
        "get-online-users-list",
        "List who is online",
        "session list",
        (ITEMS,),
        _online("onlineuserjids", count=False),
    ),
    Standard(
        "announce",
        "Tell all who are online",
        "announce send",
        (Blank("announcement", "text-multi", "What to say"),),
        _announce,
    ),
    Standard(
        "set-motd",
        "Set the message of the day",
        "announce motd",
        (Blank("motd", "text-multi", "What to say"),),
        _set_motd,
    ),
    Standard("delete-motd", "Remove the message of the day", "announce clear", (), _delete_motd),
)
