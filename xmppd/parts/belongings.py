"""Methods that give out, and take over, what a plugin keeps for an account: for moving accounts."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from xmppd.marks import mark, marked

Method = TypeVar("Method", bound=Callable[..., Any])

Give = Callable[[str], Awaitable[Any]]
GiveAll = Callable[[Sequence[str]], Awaitable[Sequence[Any]]]
Take = Callable[[str, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Gives:
    """What `gives` says of a method."""

    kind: str
    many: bool


@dataclass(frozen=True, slots=True)
class Takes:
    """What `takes` says of a method."""

    kind: str


def gives(kind: str, *, many: bool = False) -> Callable[[Method], Method]:
    """Marks the method that says what the plugin keeps for an account, as data that JSON can hold; None for
    nothing. It takes the account and is `async`. With `many` it takes some accounts, and returns a list with
    what it keeps for each: a store answers that for less.
    """
    return lambda method: mark(method, Gives(kind, many))


def takes(kind: str) -> Callable[[Method], Method]:
    """Marks the method that replaces what the plugin keeps for an account by what such a method gave (None:
    by nothing), durably, and harmless if repeated. It takes the account and the value and is `async`; nobody
    else writes for the account meanwhile, which may not exist yet.
    """
    return lambda method: mark(method, Takes(kind))


@dataclass(frozen=True, slots=True)
class Belonging:
    """One kind of belongings; `plugin` keeps them."""

    plugin: str
    give_all: GiveAll
    take: Take


def belongings_of(plugins: Iterable[Any]) -> dict[str, Belonging]:
    """All kinds that some plugins can give and take; of two plugins with one kind the first has it."""
    found: dict[str, Belonging] = {}
    for plugin in plugins:
        giving: dict[str, GiveAll] = {
            it.kind: method if it.many else functools.partial(_one_by_one, method)
            for method, it in marked(plugin, Gives)
        }
        for method, it in marked(plugin, Takes):
            if it.kind in giving:
                found.setdefault(it.kind, Belonging(plugin.name, giving[it.kind], method))
    return found


async def _one_by_one(give: Give, accounts: Sequence[str]) -> Sequence[Any]:
    return await asyncio.gather(*map(give, accounts))
