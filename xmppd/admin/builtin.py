"""The commands every server has, against the small ports they need."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from xmppd.admin.commands import USAGE, Secret, command
from xmppd.errors import CommandError
from xmppd.jid import Jid
from xmppd.moments import utc_stamp

MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-1", "SCRAM-SHA-512")
"""Those that clients can choose, and that accounts need keys for."""

LOOKS = frozenset({"user list", "user show", "roster show", "roster log"})
"""They change nothing, and look at nothing but accounts and rosters."""

Needs = Literal["tables", "whole", "records", "server"]
"""What a command needs where no server runs: the tables as such, all that is in them, accounts and rosters,
or all that a server is.
"""


class AccountInfo(Protocol):
    """What is shown of an account. `created` is in seconds since the epoch, None when nobody knows. It has
    keys for the SCRAM `mechanisms`, which were another server's if `imported`.
    """

    @property
    def account(self) -> str: ...
    @property
    def created(self) -> float | None: ...
    @property
    def disabled(self) -> bool: ...
    @property
    def mechanisms(self) -> tuple[str, ...]: ...
    @property
    def imported(self) -> bool: ...


class Accounts(Protocol):
    """What `user` commands need. Accounts are bare JIDs as normalised text.

    What cannot be done is an XmppdError with a sentence for the operator: the account exists, or does not.
    """

    async def create(self, account: str, password: str) -> None:
        """Make an account."""

    async def exists(self, account: str) -> bool:
        """Whether there is such an account."""

    async def set_password(self, account: str, password: str, *, keep_sessions: bool | None = None) -> None:
        """Give an account a new password; whether its sessions go on (None: as configured)."""

    async def disable(self, account: str) -> None:
        """Let nobody log in to an account, and end its sessions."""

    async def enable(self, account: str) -> None:
        """Undo that."""

    async def remove(self, account: str) -> None:
        """Delete an account and all it owns."""

    async def info(self, account: str) -> AccountInfo:
        """What may be shown of one account."""

    def list(self) -> AsyncIterator[AccountInfo]:
        """All accounts."""


class Server(Protocol):
    """What commands about the running server need."""

    def status(self) -> Mapping[str, Any]:
        """Plain data about the process: version, up-time, sessions and so on."""

    def plugins(self) -> Sequence[Mapping[str, Any]]:
        """One mapping for each loaded plugin, with `name` first."""

    async def reload_plugin(self, name: str) -> Sequence[str]:
        """Load one plugin again (when `name` is empty, all that have changed) while sessions stay; the names
        of those loaded.
        """

    async def reload_plugins_everywhere(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The same on all nodes; a row for each."""


Account = Annotated[Jid, "its address, such as alice@localhost"]


def account_of(jid: Jid) -> str:
    """The account an operator meant; CommandError for a domain alone or one session's full address."""
    if not jid.local or jid.resource:
        raise CommandError(f"{jid} is not the address of an account (name@domain)", USAGE)
    return jid.bare


def domain_of(jid: Jid) -> str:
    """The domain an operator meant; CommandError for an address in it."""
    if jid.local or jid.resource:
        raise CommandError(f"{jid} is not a domain", USAGE)
    return jid.domain


class UserCommands:
    """`user ...`: accounts, whether or not a server runs. `domains` are those served here."""

    def __init__(self, accounts: Accounts, domains: Sequence[str]) -> None:
        self.accounts = accounts
        self.domains = domains

    @command("Add an account", name="user add", offline=True)
    async def add(self, account: Account, password: Annotated[str, Secret("its password")]) -> dict[str, str]:
        """Refuses an account of a domain that is not served here."""
        self._check_domain(account.domain)
        name = account_of(account)
        await self.accounts.create(name, password)
        return {"added": name}

    @add.check
    async def _check_new(self, account: Jid) -> None:
        name = account_of(account)
        self._check_domain(account.domain)
        if await self.accounts.exists(name):
            raise CommandError(f"the account {name} exists already")

    @command("Give an account a new password", name="user passwd", offline=True)
    async def passwd(
        self,
        account: Account,
        password: Annotated[str, Secret("the new one")],
        keep_sessions: Annotated[bool, "let those who are logged in stay so"] = False,
    ) -> dict[str, str]:
        """Its sessions end, unless the configuration or this command keeps them."""
        name = account_of(account)
        await self.accounts.set_password(name, password, keep_sessions=keep_sessions or None)
        return {"changed": name}

    @passwd.check
    async def _check_old(self, account: Jid) -> None:
        await self.accounts.info(account_of(account))

    @command("Let nobody log in to an account; its data stays", name="user disable", offline=True)
    async def disable(self, account: Account) -> dict[str, str]:
        """Its sessions end."""
        name = account_of(account)
        await self.accounts.disable(name)
        return {"disabled": name}

    @command("Let an account log in again", name="user enable", offline=True)
    async def enable(self, account: Account) -> dict[str, str]:
        """Undoes `user disable`."""
        name = account_of(account)
        await self.accounts.enable(name)
        return {"enabled": name}

    @command(
        "Delete an account and all it owns",
        name="user remove",
        offline=True,
        confirm="Delete {account} and all it owns?",
    )
    async def remove(self, account: Account) -> dict[str, str]:
        """There is no way back."""
        name = account_of(account)
        await self.accounts.remove(name)
        return {"removed": name}

    remove.check(_check_old)

    @command("List accounts", name="user list", reads=True, offline=True)
    async def every(
        self,
        domain: Annotated[Jid | None, "only those of this domain"] = None,
        without_password: Annotated[bool, "only those that need a new one"] = False,
        *,
        lacking: Annotated[str | None, "only those with keys, but none for this mechanism"] = None,
    ) -> list[dict[str, Any]]:
        """One row for each account, sorted by name; those of a domain that was served once, too. `lacking` is
        a mechanism such as SCRAM-SHA-256, which these accounts refuse.
        """
        mechanism = None if lacking is None else _mechanism(lacking)
        rows = []
        is_empty = True
        async for info in self._of(domain):
            is_empty = False
            if without_password and info.mechanisms:
                continue
            if mechanism is None or (info.mechanisms and mechanism not in info.mechanisms):
                rows.append(_row(info))
        if domain is not None and is_empty:
            self._check_domain(domain_of(domain))
        return sorted(rows, key=lambda row: str(row["account"]))

    @command(
        "Count accounts by the mechanisms they have keys for", name="user keys", reads=True, offline=True
    )
    async def keys(self, domain: Annotated[Jid | None, "only those of this domain"] = None) -> list[Any]:
        """One row for each mechanism: how many accounts have keys for it, and how many have others only, so
        that clients that choose it are refused; the last row is for those without any, which need a new
        password. `imported`: how many of these came with keys of another server.
        """
        counts: dict[str, Counter[str]] = {mechanism: Counter() for mechanism in MECHANISMS}
        total = Counter[str]()
        async for info in self._of(domain):
            total.update(_kinds(info))
            for mechanism in info.mechanisms or ("none",):
                counts.setdefault(mechanism, Counter()).update(_kinds(info))
        if domain is not None and not total:
            self._check_domain(domain_of(domain))
        without = counts.pop("none", Counter())
        rows = [
            {
                "mechanism": mechanism,
                "accounts": found["all"],
                "imported": found["imported"],
                "lacking": total["all"] - without["all"] - found["all"],
            }
            for mechanism, found in counts.items()
        ]
        last = {
            "mechanism": None,
            "accounts": without["all"],
            "imported": without["imported"],
            "lacking": None,
        }
        return [*rows, last]

    async def _of(self, domain: Jid | None) -> AsyncIterator[AccountInfo]:
        wanted = "" if domain is None else f"@{domain_of(domain)}"
        async for info in self.accounts.list():
            if info.account.endswith(wanted):
                yield info

    def _check_domain(self, domain: str) -> None:
        if domain not in self.domains:
            raise CommandError(f"{domain} is not a domain of this server ({', '.join(self.domains)})")

    @command("Show what is known of an account", name="user show", reads=True, offline=True)
    async def show(self, account: Account) -> dict[str, Any]:
        """Everything but its secrets."""
        info = await self.accounts.info(account_of(account))
        return {**_row(info), "imported": info.imported}


def _row(info: AccountInfo) -> dict[str, Any]:
    created = None
    if info.created is not None:
        created = utc_stamp(info.created)
    return {
        "account": info.account,
        "created": created,
        "disabled": info.disabled,
        "mechanisms": list(info.mechanisms),
    }


def _kinds(info: AccountInfo) -> tuple[str, ...]:
    return ("all", "imported") if info.imported else ("all",)


def _mechanism(text: str) -> str:
    """The mechanism an operator meant; with -PLUS it needs the same keys."""
    name = text.upper().removesuffix("-PLUS")
    if name not in MECHANISMS:
        raise CommandError(f"{text} is not a mechanism with keys ({', '.join(MECHANISMS)})", USAGE)
    return name


class Store(Protocol):
    """What `store` commands need: the store, and the tables of the server and its plugins."""

    async def info(self) -> Mapping[str, Any]:
        """The engine and its tables as they are."""

    async def missing(self) -> Sequence[str]:
        """What is declared and not there, in words."""

    async def migrate(self) -> Sequence[str]:
        """Make what is missing; what that was."""


class StoreCommands:
    """`store ...`: the tables themselves, whether or not a server runs."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @command("Show the store: engine, nodes, tables", name="store info", reads=True, offline=True)
    async def info(self) -> dict[str, Any]:
        """Sizes are estimates, where the engine has any."""
        return dict(await self.store.info())

    @command(
        "Compare the store with what the server and its plugins declare",
        name="store check",
        reads=True,
        offline=True,
    )
    async def check(self) -> dict[str, str]:
        """Changes nothing; fails with what is missing."""
        if missing := await self.store.missing():
            things = "".join(f"\n  {thing}" for thing in missing)
            raise CommandError(f"missing, and made by `xmppd store migrate`:{things}")
        return {"checked": "everything that is declared is there"}

    @command("Make the tables and columns that are missing", name="store migrate", offline=True)
    async def migrate(self) -> dict[str, Any]:
        """Harmless when nothing is missing, and when several do it at once."""
        return {"made": list(await self.store.migrate()) or "nothing: everything was there"}


class ServerCommands:
    """Commands about the running server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @command("Show how the running server is doing", reads=True)
    def status(self) -> dict[str, Any]:
        """Version, up-time, sessions and so on."""
        return dict(self.server.status())

    @command("List the loaded plugins", name="plugin list", reads=True)
    def plugin_list(self) -> list[dict[str, Any]]:
        """One row for each."""
        return [dict(row) for row in self.server.plugins()]

    @command("Load plugins again while sessions stay connected", name="plugin reload")
    async def plugin_reload(
        self,
        name: Annotated[str, "only this one"] = "",
        all: Annotated[bool, "on all nodes"] = False,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Those that have changed, or one in any case."""
        if all:
            return [dict(row) for row in await self.server.reload_plugins_everywhere(name)]
        return {"reloaded": list(await self.server.reload_plugin(name))}
