"""All that a plugin imports: the class to derive from, and what its body may declare.

A plugin is one class in one file. Its body only describes; loading binds the description to one server,
unloading unbinds it, so a plugin can be reloaded while sessions stay connected. `docs/plugins.md` shows each
piece at work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, TypeVar
from xml.etree.ElementTree import Element

from xmppd.admin.commands import Caller, Description, Parameter, Secret, command
from xmppd.admin.commands import page as result_page
from xmppd.confusables import skeleton
from xmppd.core.accounts import AccountExists, AccountUnknown
from xmppd.core.begun import begun
from xmppd.core.blocking import AbuseReport, BlockChange
from xmppd.core.disco import DiscoIdentity, DiscoInfo, DiscoItem, form
from xmppd.core.events import Event, EventField, EventKind
from xmppd.core.handover import KeptSession
from xmppd.core.ids import removal
from xmppd.core.intents import Intent
from xmppd.core.iqs import Address, EarlyRequest, Handler, HandlerKey, Request
from xmppd.core.lastseen import delay, stamped
from xmppd.core.later import Later
from xmppd.core.network import network_of
from xmppd.core.origin import Origin
from xmppd.core.roster.counts import RosterCounts
from xmppd.core.roster.rosters import Change as RosterChange
from xmppd.core.roster.rosters import RosterItem
from xmppd.core.sessions import Session
from xmppd.errors import (
    CommandError,
    JidError,
    SaslError,
    StanzaError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    XmppdError,
)
from xmppd.feed import Feed
from xmppd.hooks import Recorded, Unrecorded
from xmppd.jid import Jid
from xmppd.marks import mark, marked
from xmppd.moments import utc_stamp
from xmppd.parts.belongings import gives, takes
from xmppd.parts.disco import ByAddress, disco_info, disco_items
from xmppd.parts.events import Emitter, happened, listens
from xmppd.parts.http import (
    PUBLIC,
    HttpAnswer,
    HttpClient,
    HttpError,
    HttpFailed,
    HttpRequest,
    HttpResponse,
    route,
)
from xmppd.parts.keysets import KeySet, KeysUnavailable, TokenRefused
from xmppd.parts.listeners import listener
from xmppd.parts.metrics import Counter, Gauge, Histogram
from xmppd.parts.nodes import cluster_signal
from xmppd.parts.offers import Uses, offered
from xmppd.parts.part import parts_of
from xmppd.parts.services import service
from xmppd.parts.slots import Kept, SessionSlot
from xmppd.parts.tables import Table
from xmppd.parts.timers import after, every
from xmppd.section import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretText,
    Section,
    at_least,
    at_most,
    matching,
    more_than,
)
from xmppd.server import Server
from xmppd.store import table as port
from xmppd.store.person import Person, Through, nobody
from xmppd.store.table import Delete, Prepared, Put, Value
from xmppd.stream.bucket import TokenBucket
from xmppd.stream.inline import Attached, Granted, offers_inline, takes_at_bind, takes_inline
from xmppd.stream.lru import Lru
from xmppd.stream.rows import ANY_IQ, Negotiable, Phase, iq_set_of, negotiates, offers
from xmppd.stream.sasl import Attempt, Challenge, Channel, Exchange, Identity, Login, Mechanism, Success
from xmppd.stream.scram import BadPassword
from xmppd.timers import Timer
from xmppd.xml.build import element, escape_attribute, insert_child, serialize, stanza_of
from xmppd.xml.scan import read_stanza
from xmppd.xml.stanza import Stanza

__all__ = [
    "ACCOUNT",
    "ANY_IQ",
    "LOGIN",
    "PUBLIC",
    "SELF",
    "SERVER",
    "SERVICE",
    "AbuseReport",
    "AccountAddress",
    "AccountExists",
    "AccountUnknown",
    "Attached",
    "Attempt",
    "BadPassword",
    "BlockChange",
    "Caller",
    "Challenge",
    "Channel",
    "CommandError",
    "Counter",
    "Delete",
    "Description",
    "DiscoIdentity",
    "DiscoInfo",
    "DiscoItem",
    "EarlyRequest",
    "Element",
    "Emitter",
    "Event",
    "EventField",
    "EventKind",
    "Exchange",
    "Feed",
    "Gauge",
    "Granted",
    "Histogram",
    "HttpAnswer",
    "HttpClient",
    "HttpError",
    "HttpFailed",
    "HttpRequest",
    "HttpResponse",
    "Identity",
    "Intent",
    "Jid",
    "JidError",
    "Kept",
    "KeptSession",
    "KeySet",
    "KeysUnavailable",
    "Later",
    "Login",
    "Lru",
    "Mechanism",
    "Negotiable",
    "NonNegativeFloat",
    "NonNegativeInt",
    "Origin",
    "Parameter",
    "Person",
    "Phase",
    "Plugin",
    "PluginConfig",
    "PositiveFloat",
    "PositiveInt",
    "Prepared",
    "Put",
    "Recorded",
    "Request",
    "RosterChange",
    "RosterCounts",
    "RosterItem",
    "SaslError",
    "Secret",
    "SecretText",
    "Section",
    "Session",
    "SessionSlot",
    "Stanza",
    "StanzaError",
    "StoreError",
    "StoreTimeout",
    "StoreUnavailable",
    "Success",
    "Table",
    "Through",
    "Timer",
    "TokenBucket",
    "TokenRefused",
    "Unrecorded",
    "Uses",
    "Value",
    "XmppdError",
    "after",
    "at_least",
    "at_most",
    "begun",
    "cluster_signal",
    "command",
    "delay",
    "disco_info",
    "disco_items",
    "element",
    "escape_attribute",
    "every",
    "form",
    "gives",
    "happened",
    "insert_child",
    "iq_get",
    "iq_set",
    "iq_set_of",
    "listener",
    "listens",
    "matching",
    "more_than",
    "negotiates",
    "network_of",
    "nobody",
    "offered",
    "offers",
    "offers_inline",
    "read_stanza",
    "removal",
    "result_page",
    "route",
    "serialize",
    "service",
    "skeleton",
    "stamped",
    "stanza_of",
    "takes",
    "takes_at_bind",
    "takes_inline",
    "utc_stamp",
]

SERVER: Final = Address.SERVER
SELF: Final = Address.SELF
ACCOUNT: Final = Address.ACCOUNT
SERVICE: Final = Address.SERVICE
LOGIN: Final = Address.LOGIN

RESERVED: Final = frozenset(
    ("name", "server", "config", "log", "now", "kept", "scope", "spawn", "call_later", "tables")
)
"""What every plugin has, and none may have as something else."""

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Answers:
    """One use of a method for requests."""

    key: HandlerKey


class PluginConfig(Section):
    """The root of a plugin's configuration."""


def _account(text: str) -> str:
    jid = Jid.parse(text)
    if not jid.local or jid.resource:
        raise ValueError("must be the address of an account (name@domain)")
    return jid.bare


AccountAddress = Annotated[str, _account]
"""In a configuration: the address of an account, which is made its normalised bare JID."""


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
    def answers(method: Method) -> Method:
        for address in at or (SERVER,):
            mark(method, Answers((address, kind, payload)))
        return method

    return answers


class Plugin:
    """One feature of the server. `features` and `identities` are what service discovery shows beyond the
    namespaces of its iq handlers: of the server's domains, or of each kind of address.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig
    features: ClassVar[ByAddress[str]] = ()
    identities: ClassVar[ByAddress[DiscoIdentity]] = ()

    def __init__(self, name: str, server: Server, config: Any) -> None:
        self.name = name
        self.server = server
        self.config = config
        self.log = logging.getLogger(f"xmppd.plugins.{name}")
        self.now = server.now
        self.scope = server.scope()
        self.kept: dict[str, Any] = {}
        for attribute, part in parts_of(type(self)).items():
            setattr(self, attribute, part.bind(name, attribute, server))

    @classmethod
    def tables(cls, name: str) -> list[port.Table]:
        """The declarations of the plugin's tables, named."""
        return [
            part.declaration.named(f"{name}_{attribute}")
            for attribute, part in parts_of(cls).items()
            if isinstance(part, Table)
        ]

    def mechanisms(self) -> Sequence[Mechanism]:
        """SASL mechanisms that the plugin adds (a token login, say); called after `start`."""
        return ()

    async def start(self) -> None:
        """Called once its tables are there, before it takes part in anything."""

    async def stop(self) -> None:
        """Called when it takes part no more; what it spawned and still runs is cancelled afterwards."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in the background; it ends with this instance, and its failure is logged."""
        return self.scope.spawn(work)

    def call_later(self, seconds: float, method: Callable[..., Any], *arguments: Any) -> Timer:
        """Call a method, plain or async, after so many seconds, unless cancelled or this instance ends."""
        return self.scope.call_later(seconds, method, *arguments)


def handlers_of(plugin: Plugin) -> list[tuple[HandlerKey, Handler]]:
    """The plugin's marked iq handlers, bound."""
    return [(answers.key, method) for method, answers in marked(plugin, Answers)]


def hidden_by(plugin_class: type[Plugin]) -> list[str]:
    """What the class has under a name that means something else in every plugin."""
    own = (vars(ancestor) for ancestor in plugin_class.__mro__ if ancestor not in Plugin.__mro__)
    return sorted({name for members in own for name in members if name in RESERVED})
