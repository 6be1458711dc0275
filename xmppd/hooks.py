"""Every extension point of the server, typed, in one file.

A plugin marks a method with one of the hooks below; loading compiles all marked methods to one tuple per hook
and stage, so that a hook nobody uses costs one look at an empty tuple. There are six stages:

- `POLICY`: may raise `StanzaError` to refuse; what it returns is ignored.
- `FILTER`: returns the stanza, another one, or `DROP`.
- `SIGNAL`: is told; what it raises is logged and counted, and changes nothing.
- `RULE`: says True or False at once; one False forbids, and so does what it raises.
- `RECORD`: begins to write something down that is to be durable before it goes on.
- `RECALL`: reads what was recorded.

Within a stage methods run `EARLY`, `NORMAL`, `LATE`, then `LAST`; among equals as their plugins were loaded.
A method that has to wait is `async def`: the sender's connection pauses until it is done, so order holds.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from xmppd.core.begun import begun
from xmppd.core.later import Later, Pending
from xmppd.core.origin import Origin
from xmppd.core.tally import SHORT, Spreads, owner_of, timed
from xmppd.errors import StanzaError, StoreError
from xmppd.jid import Jid
from xmppd.marks import mark, marked
from xmppd.xml.stanza import Stanza, parse, unclark

log = logging.getLogger(__name__)

POLICY: Final = "policy"
FILTER: Final = "filter"
SIGNAL: Final = "signal"
RULE: Final = "rule"
RECORD: Final = "record"
RECALL: Final = "recall"

EARLY: Final = 0
NORMAL: Final = 1
LATE: Final = 2
LAST: Final = 3


class Drop(Enum):
    """How a filter ends a stanza."""

    DROP = "it ends here"
    KEPT = "the plugin has taken charge of it and will see that it arrives"
    UNHEARD = "a message that a client sent ends here, and to its sender looks as if it was sent"


DROP: Final = Drop.DROP
KEPT: Final = Drop.KEPT
UNHEARD: Final = Drop.UNHEARD


class Outcome(Enum):
    """What became of a message for one account."""

    DELIVERED = "one or more of its resources were given it"
    KEPT = "a plugin keeps it for later"
    DROPPED = "nobody gets it, and its sender is not told: by the rules, or a filter"
    REFUSED = "its sender was told that it was not delivered"


Method = TypeVar("Method", bound=Callable[..., Any])


class Recorded(Pending):
    """A message that is being written down. When it is ready (`go_on`) it goes on as its `message`, as that
    is by then, or is refused for its `error`. Who writes it down makes a class of this one, whose methods are
    called in the course of that; those of what `is_followed` alone are `held_up` and `ended`. `is_half`: it
    is written down for its sender, and not for its receiver.
    """

    __slots__ = ("error", "is_followed", "is_half", "message", "origin", "sent", "to")

    origin: Origin
    sent: Stanza
    to: Jid
    """Who sent it, as what, and to whom: for who hands it on."""

    def __init__(self, message: Stanza) -> None:
        self.message = message
        self.size = len(message.raw)
        self.is_ready = self.is_followed = self.is_half = False
        self.error: BaseException | None = None
        self.told = None

    @property
    def sent_id(self) -> str:
        """The id in its sender's archive, "" for none."""
        return ""

    def held_up(self) -> bool:
        """Whether it is not ready after all, but will be later; it is about to go on."""
        return False

    def shown(self) -> None:
        """It has gone on, or will not."""

    def ended(self, is_well: bool) -> None:
        """It is known what became of it, and whether that is as it should be."""


class Unrecorded(Recorded):
    """One that is kept until it was acknowledged. `before`: as it was written down for its sender alone."""

    __slots__ = ("before",)

    def __init__(self, message: Stanza) -> None:
        super().__init__(message)
        self.is_followed = True
        self.before: Recorded | None = None

    @property
    def sent_id(self) -> str:
        """See `Recorded`."""
        return "" if self.before is None else self.before.sent_id

    def shown(self) -> None:
        """See `Recorded`."""
        if self.before is not None:
            self.before.shown()

    def ended(self, is_well: bool) -> None:
        """See `Recorded`."""
        if self.before is not None and self.before.is_followed:
            self.before.ended(is_well)


@dataclass(frozen=True, slots=True)
class Mark:
    """One use of a hook on a method, as the loader finds it."""

    hook: str
    stage: str
    order: int


@dataclass(frozen=True, slots=True)
class Hook:
    """One extension point. Used bare as a decorator it marks for its default stage, the first of `stages`.

    Methods of one that does not wait are never `async`.
    """

    name: str
    stages: tuple[str, ...]
    waits: bool = True

    def __call__(self, method: Method) -> Method:
        return self.at(self.stages[0])(method)

    def at(self, stage: str, order: int = NORMAL) -> Callable[[Method], Method]:
        """A decorator that marks a method for one stage of this hook; ValueError for a stage it does not
        have.
        """
        if stage not in self.stages:
            raise ValueError(f"the hook {self.name} has no stage {stage!r}, only {', '.join(self.stages)}")

        def marks(method: Method) -> Method:
            if not self.waits and inspect.iscoroutinefunction(method):
                raise TypeError(f"{method.__qualname__} cannot be async: nobody waits for {self.name}")
            return mark(method, Mark(self.name, stage, order))

        return marks


session_bound = Hook("session_bound", (SIGNAL,))
"""(session): a resource was bound; the client learns of it after all are done."""
session_resumed = Hook("session_resumed", (SIGNAL,))
"""(session): one that was on another node goes on here (XEP-0198 5); its client learns of it after all are
done. It was bound here before.
"""
session_kept = Hook("session_kept", (SIGNAL,))
"""(kept): a node that stops has left a session here, a `KeptSession`, until its client comes back (XEP-0198
5) or its time is over. That node goes when all are done.
"""
session_detached = Hook("session_detached", (SIGNAL,), waits=False)
"""(session): its connection broke, and it waits for its client to come back (XEP-0198 5); how long that may
take can still be said. Never `async`.
"""
session_returned = Hook("session_returned", (SIGNAL,), waits=False)
"""(session): its client has resumed it, here or where it was before, and was told. Never `async`."""
stanzas_waiting = Hook("stanzas_waiting", (SIGNAL,), waits=False)
"""(session, stanzas): it was sent these, as bytes, while it is detached, or while its client says that nobody
looks at it (XEP-0352). Never `async`.
"""
stanzas_given_up = Hook("stanzas_given_up", (SIGNAL,), waits=False)
"""(session, node): its client resumes it, and sends again what was not handled. What was begun of that is
still under way: on the node of this name, here (""), or nowhere any more (None, it stopped). Never `async`.
"""
session_closed = Hook("session_closed", (SIGNAL,))
"""(session): the session is over; its unavailable presence was sent."""
session_available = Hook("session_available", (SIGNAL,))
"""(session): initial presence was sent and broadcast, or the priority rose from negative to zero or above."""
messages_kept = Hook("messages_kept", (SIGNAL,))
"""(session): another node stored a message for its account, which may have come too late to see it here."""
message_sent = Hook("message_sent", (POLICY, FILTER, SIGNAL))
"""(session, message): a local client sent a message, before it is routed (SIGNAL: after)."""
presence_sent = Hook("presence_sent", (POLICY, FILTER, SIGNAL))
"""(session, presence): a local client sent a presence of any type, before it is processed (SIGNAL: after)."""
presence_annexed = Hook("presence_annexed", (RECALL,), waits=False)
"""(session, said): children, as bytes, that are shown in its available presence beside what it `said`."""
iq_sent = Hook("iq_sent", (POLICY, FILTER, SIGNAL))
"""(session, iq): a local client sent an iq of any type, before it is routed (SIGNAL: after)."""
server_message = Hook("server_message", (FILTER,))
"""(origin, message): somebody wrote to a domain of this server, with or without a resource.
Who takes charge of it returns DROP; otherwise its sender is refused.
"""
message_for = Hook("message_for", (FILTER,))
"""(account, message): a message of anybody's is about to be delivered to this account, or kept for it."""
presence_for = Hook("presence_for", (FILTER,), waits=False)
"""(account, presence): somebody else's presence, available or not, is about to be shown to this account: as a
broadcast, directed, or the answer to a probe. Never `async`.
"""
iq_for = Hook("iq_for", (FILTER,))
"""(account, iq): an iq of somebody else's is about to be delivered to a resource of this account, or answered
for it.
"""
message_unclaimed = Hook("message_unclaimed", (FILTER,))
"""(account, message): a message for an account with nobody to take it now (RFC 6121 8.5.2.2). Who keeps it
returns KEPT, who lets it vanish DROP; otherwise its sender is refused. `from` is its sender.
"""
message_recorded = Hook("message_recorded", (RECORD,), waits=False)
"""(origin, message, to): a message for an account of ours, by its address `to`, is about to be delivered or
kept, after all filters. Return `Recorded` to have that wait for a write, None to let it go on, DROP where it
has gone on before, or what is to be awaited before this is asked again. Of one plugin only; never `async`.
"""
message_unrecorded = Hook("message_unrecorded", (RECORD,), waits=False)
"""(message, to, takers): a message for an account of ours which nobody has recorded for it is about to be
given to sessions of it here whose clients acknowledge (XEP-0198); `takers()` returns those that would be
given it now. Return an `Unrecorded` to have that wait until it goes on, or None. Of one plugin only; never
`async`. Asked where some plugin records messages, or wants to be (`Server.watch_unrecorded`).
"""
message_barred = Hook("message_barred", (RECORD,), waits=False)
"""(origin, message, to, is_refused): who a message is for is not given it: he bars its sender, who is about
to be refused, or a filter ended it unheard, and its sender is told nothing (not `is_refused`). The same may
be returned to have that wait for a write. Of one plugin only; never `async`.
"""
messages_recalled = Hook("messages_recalled", (RECALL,))
"""(account, ids, session): messages that an account was sent and that were recorded by these ids, to be given
to a session of it now. A coroutine that returns them by id, oldest first, stamped, without those that are
gone, or that the session asked for itself; without a session all that are there. Of one plugin only.
"""
messages_missed = Hook("messages_missed", (RECALL,))
"""(session, keep): the client of this session wanted to resume one that is not there (`login.sought`), and is
about to be given what waits. A coroutine of one plugin that calls `await keep(messages, at)` with those that
it missed, oldest first: each its id, and the microsecond since the epoch, which `at(id)` tells of any that
was recorded. They are kept between older and newer ones when that returns. Asked again while `sought` is set.
"""
message_routed = Hook("message_routed", (SIGNAL,))
"""(origin, message, account, outcome): what became of a message for this account, as it was delivered."""
authenticated = Hook("authenticated", (POLICY,))
"""(login, channel): a client proved who it is, and was not told yet; raise SaslError to refuse it all the
same. The login's `facts` and `expires` may be set.
"""
password_check = Hook("password_check", (FILTER,))
"""(jid, password, channel): PLAIN gave this as the password of an account. Return the `Identity` that it
proves, or None to leave it to others, at last to the store; a text is the password that others look at in its
place; raise SaslError to refuse it.
"""
login_failed = Hook("login_failed", (SIGNAL,))
"""(attempt, condition): a login came to nothing. `attempt.account` is the claimed account, "" if unknown."""
session_expired = Hook("session_expired", (SIGNAL,))
"""(session): the time of its login is over. Unless it gets more by `Server.set_expiry` it is closed soon."""
sees = Hook("sees", (RULE,))
"""(viewer, owner): whether an account may see an account, or a session (a full JID), that by its roster or by
directed presence it might. Asked for every copy of a presence; never `async`.
"""
subscription = Hook("subscription", (POLICY,))
"""(account, contact, kind): an account is about to ask for the contact's presence (`subscribe`) or to grant
it its own (`subscribed`), by its client or by a plugin; raise StanzaError to refuse. What ends one cannot be.
"""
roster_changed = Hook("roster_changed", (SIGNAL, RECORD))
"""(account, change): an item of a roster was changed on this node: `change` has `contact`, `old`, `new`. What
is returned at RECORD is awaited before the change is acknowledged; signals are told in the background.
"""
blocks_changed = Hook("blocks_changed", (SIGNAL,))
"""(account, change): the block list of an account with sessions on this node was changed, on whatever node:
`change` has `blocked`, `unblocked` and `is_all`.
"""
reported = Hook("reported", (SIGNAL,))
"""(report): an account reported somebody whom it blocked (XEP-0377), as an `AbuseReport`."""
node_met = Hook("node_met", (SIGNAL,))
"""(node): another node of this name is there now; nothing was heard of it yet."""
node_runs = Hook("node_runs", (SIGNAL,))
"""(node, plugins, anew): another node has said which plugins are at work there, and which began anew."""
node_left = Hook("node_left", (SIGNAL,))
"""(node): the node of this name has said that it stops, and has seen to its sessions. Then it is lost."""
node_lost = Hook("node_lost", (SIGNAL,))
"""(node): the node of this name is gone, and so are its sessions."""
sessions_lost = Hook("sessions_lost", (SIGNAL,))
"""(node, accounts): who had sessions on a node that is gone and had not said that it stops."""
account_created = Hook("account_created", (SIGNAL,))
"""(account): an account was made."""
account_changed = Hook("account_changed", (SIGNAL,))
"""(account, what): it has another `password`, was `disabled` or `enabled`, all that it had is `removed`, or
all that was kept of it `erased`; whoever did it learns of it afterwards.
"""
account_moved = Hook("account_moved", (SIGNAL,))
"""(old, new): an account has another address; its rows are there already. Told on all nodes."""
account_removed = Hook("account_removed", (SIGNAL,))
"""(account): an account was removed, its sessions closed."""

ALL: Final = (
    session_bound,
    session_resumed,
    session_kept,
    session_detached,
    session_returned,
    stanzas_waiting,
    stanzas_given_up,
    session_closed,
    session_available,
    messages_kept,
    message_sent,
    presence_sent,
    presence_annexed,
    iq_sent,
    server_message,
    message_for,
    presence_for,
    iq_for,
    message_unclaimed,
    message_recorded,
    message_unrecorded,
    message_barred,
    messages_recalled,
    messages_missed,
    message_routed,
    authenticated,
    password_check,
    login_failed,
    session_expired,
    sees,
    subscription,
    roster_changed,
    blocks_changed,
    reported,
    node_met,
    node_runs,
    node_left,
    node_lost,
    sessions_lost,
    account_created,
    account_changed,
    account_moved,
    account_removed,
)

SENT: Final = (message_sent, presence_sent, iq_sent)
"""The hooks that every stanza of a client passes."""

Callables = tuple[Callable[..., Any], ...]
Stages = tuple[Callables, Callables, Callables]
"""The policies, filters and signals of one hook."""


class Hooks:
    """The compiled hooks of one server: an attribute `<hook>_<stage>` for each, holding a tuple of
    callables. Those of what a client sends are `<hook>`, with all stages, or None when nobody uses it.
    """

    message_sent: Stages | None
    presence_sent: Stages | None
    iq_sent: Stages | None
    session_bound_signal: Callables
    session_resumed_signal: Callables
    session_kept_signal: Callables
    session_detached_signal: Callables
    session_returned_signal: Callables
    stanzas_waiting_signal: Callables
    stanzas_given_up_signal: Callables
    session_closed_signal: Callables
    session_available_signal: Callables
    messages_kept_signal: Callables
    presence_annexed_recall: Callables
    server_message_filter: Callables
    message_for_filter: Callables
    presence_for_filter: Callables
    iq_for_filter: Callables
    message_unclaimed_filter: Callables
    message_recorded_record: Callables
    message_unrecorded_record: Callables
    message_barred_record: Callables
    messages_recalled_recall: Callables
    messages_missed_recall: Callables
    message_routed_signal: Callables
    watches_messages: bool
    """Whether anybody has a part in what becomes of messages."""
    authenticated_policy: Callables
    password_check_filter: Callables
    login_failed_signal: Callables
    session_expired_signal: Callables
    sees: Callable[[str, str], bool] | None
    """All rules as one, None without any."""
    subscription_policy: Callables
    roster_changed_signal: Callables
    roster_changed_record: Callables
    blocks_changed_signal: Callables
    reported_signal: Callables
    node_met_signal: Callables
    node_runs_signal: Callables
    node_left_signal: Callables
    node_lost_signal: Callables
    sessions_lost_signal: Callables
    account_created_signal: Callables
    account_changed_signal: Callables
    account_moved_signal: Callables
    account_removed_signal: Callables

    def __init__(self) -> None:
        self.failures = 0
        """How many signal methods have failed."""
        self.ended_by = ""
        """The plugin whose filter ended the last stanza that one ended for an account."""
        self.is_watched_unrecorded = False
        """Whether messages that nobody records are asked about where no plugin records any."""
        self.spent = Spreads(SHORT)
        """Seconds that methods took, by plugin, of those stanzas that are watched."""
        self.compile(())

    def compile(self, plugins: Iterable[object]) -> None:
        """Replace all tuples by those of the marked methods of `plugins`, in their order."""
        found: dict[str, list[tuple[int, Callable[..., Any]]]] = {
            f"{hook.name}_{stage}": [] for hook in ALL for stage in hook.stages
        }
        for plugin in plugins:
            for method, use in marked(plugin, Mark):
                found[f"{use.hook}_{use.stage}"].append((use.order, method))
        compiled: dict[str, Callables] = {}
        for name, methods in found.items():
            methods.sort(key=lambda pair: pair[0])
            compiled[name] = tuple(method for _, method in methods)
        plain = self._attributes(compiled)
        watched = self._attributes(
            {
                name: tuple(timed(method, self.spent[owner_of(method)]) for method in methods)
                for name, methods in compiled.items()
            }
        )
        for name, value in plain.items():
            setattr(self, name, value)
        self._plain = [(name, value) for name, value in plain.items() if value]
        self._watched = [(name, value) for name, value in watched.items() if value]
        self.watches_messages = bool(
            self.message_for_filter
            or self.message_routed_signal
            or self.message_recorded_record
            or (self.is_watched_unrecorded and self.message_unrecorded_record)
        )

    def _attributes(self, compiled: Mapping[str, Callables]) -> dict[str, Any]:
        found: dict[str, Any] = dict(compiled)
        for hook in SENT:
            stages = tuple(found.pop(f"{hook.name}_{stage}") for stage in hook.stages)
            found[hook.name] = stages if any(stages) else None
        rules = found.pop("sees_rule")
        found["sees"] = functools.partial(self._rule, rules) if rules else None
        return found

    def watch_unrecorded(self, *, is_on: bool) -> None:
        """Whether somebody wants to be asked for all messages that nobody records."""
        self.is_watched_unrecorded = is_on
        self.watches_messages = self.watches_messages or (is_on and bool(self.message_unrecorded_record))

    def watch(self, *, is_on: bool) -> None:
        """Have all that is asked from now on timed, or not any more."""
        for name, value in self._watched if is_on else self._plain:
            setattr(self, name, value)

    def _rule(self, rules: Callables, *arguments: Any) -> bool:
        for rule in rules:
            try:
                if not rule(*arguments):
                    return False
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self.failed(rule, error)
                return False
        return True

    def filtered(
        self, filters: Callables, account: str, stanza: Stanza
    ) -> Stanza | Drop | Awaitable[Stanza | Drop]:
        """What the filters of an account make of a stanza; to be awaited from the first that waits on.
        StanzaError when one refuses.
        """
        for index, change in enumerate(filters):
            result = change(account, stanza)
            if isinstance(result, Drop):
                self.ended_by = owner_of(change)
                return result
            if not isinstance(result, Stanza):
                return self._filtered_later(change, result, filters[index + 1 :], account)
            stanza = result
        return stanza

    async def _filtered_later(
        self,
        change: Callable[..., Any],
        changing: Awaitable[Stanza | Drop],
        rest: Callables,
        account: str,
    ) -> Stanza | Drop:
        result = await changing
        if isinstance(result, Drop):
            self.ended_by = owner_of(change)
            return result
        more = self.filtered(rest, account, result)
        return more if isinstance(more, Stanza | Drop) else await more

    def shown(self, account: str, presence: bytes) -> bytes:
        """What the filters of an account leave of a presence for it: b"" when one ends or refuses it."""
        tree = parse(presence)
        attrs = {unclark(name): value for name, value in tree.items()}
        stanza = Stanza("presence", attrs, presence)
        for change in self.presence_for_filter:
            try:
                kept = change(account, stanza)
            except StanzaError:
                return b""
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self.failed(change, error)
                return b""
            if not isinstance(kept, Stanza):
                return b""
            stanza = kept
        return stanza.raw

    def tell(self, signals: Callables, *arguments: Any) -> Awaitable[None] | None:
        """Call signal methods one after the other; what is returned tells the rest, from the first that waits
        on. What one raises is logged and counted, and changes nothing.
        """
        for index, signal in enumerate(signals):
            try:
                waiting = signal(*arguments)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self.failed(signal, error)
            else:
                if isinstance(waiting, Later):  # only the end of the last ones has to be awaited
                    rest = begun(self._tell_later(signal, waiting, signals[index + 1 :], arguments))
                    return None if rest is None else Later(rest)
                if waiting is not None and isinstance(waiting, Awaitable):
                    return self._tell_later(signal, waiting, signals[index + 1 :], arguments)
        return None

    async def tell_in_order(self, signals: Callables, *arguments: Any) -> None:
        """The same, as a coroutine from the start."""
        waiting = self.tell(signals, *arguments)
        if waiting is not None:
            await waiting

    async def tell_all(self, signals: Callables, *arguments: Any) -> None:
        """The same, then raise the first StoreError there was: for what must not go on while anything is
        left.
        """
        problem: StoreError | None = None
        for signal in signals:
            try:
                waiting = signal(*arguments)
                if waiting is not None and isinstance(waiting, Awaitable):
                    await waiting
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self.failed(signal, error)
                if problem is None and isinstance(error, StoreError):
                    problem = error
        if problem is not None:
            raise problem

    async def _tell_later(
        self,
        signal: Callable[..., Any],
        waiting: Awaitable[Any],
        rest: Callables,
        arguments: tuple[Any, ...],
    ) -> None:
        try:
            await waiting
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self.failed(signal, error)
        await self.tell_in_order(rest, *arguments)

    def failed(self, method: Callable[..., Any], error: Exception) -> None:
        """Log and count what a method of a plugin raised that nobody else has to know of."""
        self.failures += 1
        hook = getattr(method, "__qualname__", repr(method))
        if isinstance(error, StoreError):
            log.warning("store-failed", extra={"kind": "hook", "hook": hook, "error": str(error)})
        else:
            log.error("hook-failed", exc_info=error, extra={"hook": hook})
