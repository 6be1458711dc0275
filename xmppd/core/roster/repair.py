"""Halves of subscriptions that do not fit, found and mended.

Who follows whom is written in two rosters, one after the other: the asker's (ask, to) and the granter's
(request, from). What cut an act in two left them apart until somebody repeats it; this does so for all.
Which half wins follows from whose word it is, so that nobody gets access that was not granted, and nobody
loses what was granted and is wanted:

| asker | granter | what is done |
|---|---|---|
| nothing | request or from | the granter's half goes: it is the asker's word whether there is interest |
| ask | from | the asker gets `to`: it asked, and it was granted |
| to | nothing | the asker's half goes: it is the granter's word who sees it |
| to | request | the asker's half becomes a request again |
| ask | nothing | the request is delivered again; if by the logs the granter refused it later, it goes |
| anything | no account | the half that is left goes |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from xmppd.core.accounts import Accounts
from xmppd.core.contacts import Contacts
from xmppd.core.roster.rosters import RosterItem, Rosters
from xmppd.core.roster.subscription import Kind, State

BY = "repair"
"""Who the log says it was."""


class Remedy(Enum):
    """What is done about a fault."""

    WITHDRAW = "take it from the contact's roster"
    ASK = "deliver the request again"
    ACCEPT = "complete the subscription"
    END = "end the subscription"
    WAIT = "make it a request again"
    PART = "end it"


@dataclass(frozen=True, slots=True)
class Fault:
    """One half without the other: `account` is the asker, `contact` the granter; of a contact that has no
    account, `account` is who has it in its roster.
    """

    account: str
    contact: str
    problem: str
    remedy: Remedy


_FAULTS: Mapping[tuple[str, str], tuple[str, Remedy]] = MappingProxyType(
    {
        ("", "request"): ("the contact holds a request that nobody makes", Remedy.WITHDRAW),
        ("", "from"): ("the contact shows itself to who does not subscribe", Remedy.WITHDRAW),
        ("ask", ""): ("the contact has no request", Remedy.ASK),
        ("ask", "from"): ("the contact has granted the request", Remedy.ACCEPT),
        ("to", ""): ("the contact does not grant the subscription", Remedy.END),
        ("to", "request"): ("the contact has not granted the subscription", Remedy.WAIT),
    }
)
_REFUSED = "the contact refused the request", Remedy.END


def problem_of(asking: str, granting: str) -> str:
    """What is wrong with two halves ("to", "ask" or ""; "from", "request" or ""); "" for nothing."""
    fault = _FAULTS.get((asking, granting))
    return fault[0] if fault is not None else ""


class RosterRepair:
    """Finds and mends faults of the accounts of `domains`; contacts elsewhere cannot be looked at."""

    def __init__(
        self, rosters: Rosters, contacts: Contacts, accounts: Accounts, domains: frozenset[str]
    ) -> None:
        self._rosters = rosters
        self._contacts = contacts
        self._accounts = accounts
        self._domains = domains

    async def check(self, account: str, *, every: bool = False) -> list[Fault]:
        """The faults between an account and its contacts, those it had according to its log too. With `every`
        all accounts get their turn: a pair is then looked at once, and no log is read for contacts.
        """
        own = {item.contact: item for item in await self._rosters.items(account)}
        names = set(own)
        if not every:
            names.update([entry.contact async for entry in self._rosters.log_backwards(account)])
        found: list[Fault] = []
        for contact in sorted(names - {account}):
            if not self._is_here(contact):
                continue
            if not await self._exists(contact):
                found += _left_over(account, own.get(contact))
                continue
            other = await self._rosters.get_item(contact, account)
            if every and other is not None and contact < account:
                continue
            if (_asks(own.get(contact)), _grants(other)) in _FAULTS:
                found += filter(None, [await self._look(account, contact)])
            if (_asks(other), _grants(own.get(contact))) in _FAULTS:
                found += filter(None, [await self._look(contact, account)])
        return found

    async def between(self, one: str, other: str, *, once: str) -> list[Fault]:
        """The faults between two accounts, of which `other` was called `once` when that was logged."""
        names = {one: {one}, other: {other, once}}
        found = [await self._look(*pair, names) for pair in ((one, other), (other, one))]
        return [fault for fault in found if fault is not None]

    async def mend(self, fault: Fault, *, is_known: bool = False) -> bool:
        """Mend a fault if it is still there, or that `is_known`; whether it was. StanzaError when a roster is
        full.
        """
        asker, granter = fault.account, fault.contact
        if fault.remedy is Remedy.PART:
            return await self._part(asker, granter)
        if not is_known and await self._look(asker, granter) != fault:
            return False
        match fault.remedy:
            case Remedy.WITHDRAW:
                await self._contacts.deliver(asker, granter, "unsubscribe", by=BY)
            case Remedy.END:
                await self._contacts.deliver(granter, asker, "unsubscribed", by=BY)
            case Remedy.ASK:
                await self._contacts.send(asker, granter, "subscribe", by=BY)
            case Remedy.ACCEPT:
                await self._contacts.send(granter, asker, "subscribed", by=BY)
            case Remedy.WAIT:
                await self._contacts.change(asker, granter, _waiting, by=BY, what="repair")
        return True

    async def _part(self, account: str, contact: str) -> bool:
        """End what an account has with a contact that has no account."""
        if await self._exists(contact):
            return False
        item = await self._rosters.get_item(account, contact)
        kinds: list[Kind] = ["unsubscribe"] if _grants(item) else []
        kinds += ["unsubscribed"] if _asks(item) else []
        for kind in kinds:
            await self._contacts.deliver(contact, account, kind, by=BY)
        return bool(kinds)

    async def _look(
        self, asker: str, granter: str, names: Mapping[str, Collection[str]] = MappingProxyType({})
    ) -> Fault | None:
        """What is wrong between the two as the store has them; None too while the asker is changing it.
        `names` are all that logs may call them.
        """
        asking = await self._rosters.get_item(asker, granter)
        granting = await self._rosters.get_item(granter, asker)
        if asking != await self._rosters.get_item(asker, granter):
            return None
        fault = _FAULTS.get((_asks(asking), _grants(granting)))
        if fault is None:
            return None
        if fault[1] is Remedy.ASK and await self._was_refused(asker, granter, names):
            fault = _REFUSED
        return Fault(asker, granter, *fault)

    async def _was_refused(self, asker: str, granter: str, names: Mapping[str, Collection[str]]) -> bool:
        asked = await self._last(asker, names.get(granter, (granter,)), _asks)
        answered = await self._last(granter, names.get(asker, (asker,)), _grants)
        return answered is not None and (asked is None or answered > asked)

    async def _last(
        self, account: str, contacts: Collection[str], half: Callable[[RosterItem | None], str]
    ) -> float | None:
        """When a half was changed last, by the log of its roster."""
        async with aclosing(self._rosters.log_backwards(account)) as entries:
            async for entry in entries:
                changed = half(entry.old) != half(entry.new) if entry.is_whole else entry.what != "set"
                if changed and entry.contact in contacts:
                    return entry.at
        return None

    def _is_here(self, contact: str) -> bool:
        local, _, domain = contact.rpartition("@")
        return bool(local) and domain in self._domains

    async def _exists(self, account: str) -> bool:
        exists = self._accounts.exists(account)
        return await exists if isinstance(exists, Awaitable) else exists


def _asks(item: RosterItem | None) -> str:
    """The asker's half: "to", "ask" or ""."""
    state = item.state if item is not None else State.NONE
    return "to" if state.is_following else "ask" if state.ask else ""


def _grants(item: RosterItem | None) -> str:
    """The granter's half: "from", "request" or ""."""
    state = item.state if item is not None else State.NONE
    return "from" if state.is_followed else "request" if state.pending_in else ""


def _left_over(account: str, item: RosterItem | None) -> list[Fault]:
    """The fault of a subscription with a contact that has no account."""
    if item is None or not (_asks(item) or _grants(item)):
        return []
    return [Fault(account, item.contact, "the contact has no account", Remedy.PART)]


def _waiting(item: RosterItem | None) -> RosterItem | None:
    """The item with a request in place of a subscription."""
    if item is None or not item.state.is_following:
        return item
    state = State.of("from" if item.state.is_followed else "none", ask=True, pending_in=item.pending_in)
    return item.moved(state, approved=item.approved)
