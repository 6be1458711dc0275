"""All that a plugin imports: the class to derive from, and what its body may declare.

A plugin is one class in one file. Its body only describes; loading binds the description to one server,
unloading unbinds it, so a plugin can be reloaded while sessions stay connected. `docs/plugins.md` shows each
piece at work.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, Self, TypeVar
from xml.etree.ElementTree import Element

from pydantic import BaseModel, ConfigDict

from xmppd.admin.commands import command
from xmppd.core.accounts import AccountExists, AccountUnknown
from xmppd.core.begun import begun
from xmppd.core.iqs import Address, EarlyRequest, Request
from xmppd.core.lastseen import delay
from xmppd.core.sessions import Session
from xmppd.errors import CommandError, JidError, SaslError, StanzaError, StoreError, XmppdError
from xmppd.jid import Jid
from xmppd.server import Server
from xmppd.store import table as port
from xmppd.store.table import Delete, Page, Put, Row, Store, Value
from xmppd.stream.sasl import Challenge, Channel, Exchange, Identity, Mechanism, Success
from xmppd.stream.scram import BadPassword
from xmppd.xml.build import element, insert_child, serialize, stanza_of
from xmppd.xml.stanza import Stanza

__all__ = [
    "ACCOUNT",
    "LOGIN",
    "SELF",
    "SERVER",
    "AccountExists",
    "AccountUnknown",
    "BadPassword",
    "Challenge",
    "Channel",
    "CommandError",
    "Counter",
    "Delete",
    "EarlyRequest",
    "Element",
    "Exchange",
    "Identity",
    "Jid",
    "JidError",
    "Mechanism",
    "Plugin",
    "PluginConfig",
    "Put",
    "Request",
    "SaslError",
    "Session",
    "SessionSlot",
    "Stanza",
    "StanzaError",
    "StoreError",
    "Success",
    "Table",
    "Value",
    "XmppdError",
    "begun",
    "command",
    "delay",
    "element",
    "insert_child",
    "iq_get",
    "iq_set",
    "serialize",
    "stanza_of",
]

SERVER: Final = Address.SERVER
SELF: Final = Address.SELF
ACCOUNT: Final = Address.ACCOUNT
LOGIN: Final = Address.LOGIN

IQ_MARK: Final = "__xmppd_iqs__"
Method = TypeVar("Method", bound=Callable[..., Any])
T = TypeVar("T")


class PluginConfig(BaseModel):
    """The root of a plugin's configuration: frozen, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


def iq_get(payload: str, *at: Address) -> Callable[[Method], Method]:
    """Marks the method that answers iq gets with this payload (Clark name), addressed to the server or as
    `at` says.

    The method takes a Request and returns the payload of the result (an element, bytes, or None), or is
    `async` and does so; it refuses by raising StanzaError. Handlers advertise their namespace by service
    discovery.
    """
    return _iq("get", payload, at)


def iq_set(payload: str, *at: Address) -> Callable[[Method], Method]:
    """The same for iq sets."""
    return _iq("set", payload, at)


def _iq(kind: str, payload: str, at: tuple[Address, ...]) -> Callable[[Method], Method]:
    def mark(method: Method) -> Method:
        marks = getattr(method, IQ_MARK, ())
        setattr(method, IQ_MARK, (*marks, *((address, kind, payload) for address in at or (SERVER,))))
        return method

    return mark


class Table:
    """A table of the plugin's own; the store creates and migrates it from this declaration.

    Arguments are those of `xmppd.store.table.Table`; its name becomes `<plugin>_<attribute>`. The operations
    are those of the store's port: what they await is durable when they return, and nothing is atomic across
    partitions.
    """

    def __init__(
        self,
        *,
        partition: Sequence[str],
        cluster: Sequence[str] = (),
        columns: Mapping[str, port.ColumnType],
        static: Mapping[str, port.ColumnType] | None = None,
        ttl: float | None = None,
        descending: bool = False,
    ) -> None:
        self.declaration = port.Table(
            "", tuple(partition), tuple(cluster), dict(columns), dict(static or {}), ttl, descending
        )
        self._store: Store

    def bind(self, plugin: str, attribute: str, server: Server) -> Self:
        """The table of one server."""
        bound = copy.copy(self)
        bound.declaration = self.declaration.named(f"{plugin}_{attribute}")
        bound._store = server.store
        return bound

    async def get(self, *key: Value) -> Row | None:
        """One row by its whole key."""
        return await self._store.get(self.declaration, key)

    async def get_static(self, *partition: Value) -> Row | None:
        """The static columns of one partition."""
        return await self._store.get_static(self.declaration, partition)

    async def scan(
        self,
        *partition: Value,
        start: port.Key | None = None,
        end: port.Key | None = None,
        limit: int | None = None,
        reverse: bool = False,
        page: bytes | None = None,
    ) -> Page:
        """Rows of one partition in clustering order; see `Store.scan`."""
        return await self._store.scan(
            self.declaration, partition, start=start, end=end, limit=limit, reverse=reverse, page=page
        )

    async def everything(self) -> AsyncIterator[Row]:
        """All rows of all partitions, page by page; for tools."""
        page: bytes | None = None
        while True:
            found = await self._store.scan_all(self.declaration, page=page)
            for row in found.rows:
                yield row
            page = found.next
            if page is None:
                return

    async def put(self, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write the given columns of one row (an upsert)."""
        await self._store.put(self.declaration, row, ttl=ttl)

    async def put_if(
        self, row: Mapping[str, Value], expect: Mapping[str, Value] | None, *, ttl: float | None = None
    ) -> bool:
        """Write only if the row is absent (None) or holds what is expected; whether it was written."""
        return await self._store.put_if(self.declaration, row, expect, ttl=ttl)

    async def delete(self, *key: Value) -> None:
        """Delete a row, or by the partition key alone a whole partition."""
        await self._store.delete(self.declaration, key)

    async def delete_if(self, *key: Value, expect: Mapping[str, Value]) -> bool:
        """Delete a row only if it holds what is expected; whether it was deleted; see `Store.delete_if`."""
        return await self._store.delete_if(self.declaration, key, expect)

    async def batch(
        self,
        *partition: Value,
        writes: Sequence[Put | Delete],
        static: Mapping[str, Value] | None = None,
        expect: Mapping[str, Value] | None = None,
    ) -> bool:
        """Apply writes of one partition atomically; see `Store.batch`."""
        return await self._store.batch(self.declaration, partition, writes, static=static, expect=expect)


class Counter:
    """A number that only rises, for operators."""

    def __init__(self, help: str) -> None:
        self.help = help
        self.value = 0

    def bind(self, plugin: str, attribute: str, server: Server) -> Self:
        """The counter of one server; it goes on over reloads."""
        counter = server.counters.setdefault(f"{plugin}_{attribute}", type(self)(self.help))
        assert isinstance(counter, type(self))
        return counter

    def inc(self, by: int = 1) -> None:
        """Count."""
        self.value += by


class SessionSlot(Generic[T]):
    """A value that a plugin keeps with each session: `slot[session]`. It goes with the session, and survives
    reloads.
    """

    def __init__(self, default: T) -> None:
        self.default = default
        self._key = ""

    def bind(self, plugin: str, attribute: str, server: Server) -> Self:
        """The slot under a name of its own."""
        bound = copy.copy(self)
        bound._key = f"{plugin}.{attribute}"
        return bound

    def __getitem__(self, session: Session) -> T:
        if session.slots is None:
            return self.default
        value: T = session.slots.get(self._key, self.default)
        return value

    def __setitem__(self, session: Session, value: T) -> None:
        if session.slots is None:
            session.slots = {}
        session.slots[self._key] = value


class Plugin:
    """One feature of the server. `features` are namespaces it advertises beyond those of its iq handlers."""

    Config: ClassVar[type[BaseModel]] = PluginConfig
    features: ClassVar[tuple[str, ...]] = ()
    login_features: ClassVar[tuple[bytes, ...]] = ()
    """Stream features offered before login, serialised."""

    def __init__(self, name: str, server: Server, config: Any) -> None:
        self.name = name
        self.server = server
        self.config = config
        self.log = logging.getLogger(f"xmppd.plugins.{name}")
        self.now = server.now
        for attribute in dir(type(self)):
            declared = getattr(type(self), attribute)
            if isinstance(declared, Table | Counter | SessionSlot):
                setattr(self, attribute, declared.bind(name, attribute, server))

    @classmethod
    def tables(cls, name: str) -> list[port.Table]:
        """The declarations of the plugin's tables, named."""
        found = ((attribute, getattr(cls, attribute)) for attribute in dir(cls))
        return [
            value.declaration.named(f"{name}_{attribute}")
            for attribute, value in found
            if isinstance(value, Table)
        ]

    def mechanisms(self) -> Sequence[Mechanism]:
        """SASL mechanisms that the plugin adds (a token login, say); called once, after `start`."""
        return ()

    async def start(self) -> None:
        """Called once its tables are there, before it takes part in anything."""

    async def stop(self) -> None:
        """Called when it takes part no more."""
