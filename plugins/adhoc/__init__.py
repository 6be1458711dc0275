"""Ad-hoc commands (XEP-0050): what operators do on the command line, in any client that shows forms; and what
service administration (XEP-0133) has names for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final

from xmppd import ns
from xmppd.plugin import (
    SERVER,
    AccountAddress,
    Caller,
    CommandError,
    Description,
    DiscoIdentity,
    DiscoInfo,
    DiscoItem,
    Element,
    Plugin,
    PluginConfig,
    Request,
    Section,
    Session,
    SessionSlot,
    StanzaError,
    disco_info,
    disco_items,
    element,
    iq_set,
    matching,
)

from .dialogues import Administration, Dialogue, Step, failed
from .forms import NOT_XML, bad_payload, submitted
from .standard import STANDARD, Standard

COMMAND: Final = f"{{{ns.COMMANDS}}}command"
ACTIONS: Final = ("execute", "next", "prev", "complete", "cancel")
OPEN: Final = 8
"""Commands that one session has begun and not ended; the oldest is given up for another one."""
LIFE: Final = 600.0
"""Seconds for which a step may take."""


class RoleConfig(Section):
    """Who may do what: `accounts`, and the `scopes` of commands, as those of tokens for HTTP."""

    accounts: frozenset[AccountAddress] = frozenset()
    scopes: frozenset[Annotated[str, matching(r"^[a-z0-9_.:*-]+$")]] = frozenset()


class AdhocConfig(PluginConfig):
    """`roles`: by a name for people."""

    roles: Mapping[str, RoleConfig] = {}


class Begun:
    """A command that a session has begun: its node, and until when the next step may come."""

    __slots__ = ("dialogue", "node", "until")

    def __init__(self, node: str, dialogue: Dialogue | Administration, until: float) -> None:
        self.node = node
        self.dialogue = dialogue
        self.until = until


class Adhoc(Plugin):
    """A session's commands are where it is: who is resumed elsewhere begins again."""

    Config = AdhocConfig
    begun: SessionSlot[dict[str, Begun]] = SessionSlot(factory=dict)

    # what there is

    @disco_items(SERVER, node=ns.COMMANDS)
    def offered(self, request: Request) -> list[DiscoItem]:
        """XEP-0050 2.2: all that the account may do."""
        scopes = self._scopes(request.origin.account)
        allowed = {about.name: about for about in self.server.commands if not scopes.isdisjoint(about.scopes)}
        found = [(about.help, about.name) for about in allowed.values()]
        found += [(standard.title, standard.node) for standard in STANDARD if standard.command in allowed]
        return [DiscoItem(request.target, name, node) for name, node in found]

    @disco_info(SERVER, node=None)
    def described(self, request: Request) -> DiscoInfo | None:
        """XEP-0050 2.2: the list, and each command."""
        node = request.payload.get("node", "")
        if node == ns.COMMANDS:
            return DiscoInfo((DiscoIdentity("automation", "command-list", "Commands"),), (ns.COMMANDS,))
        found = self._find(node)
        if found is None:
            return None
        self._check(request.origin.account, found[0])
        about = found[1] or found[0]
        title = about.title if isinstance(about, Standard) else about.help
        identity = DiscoIdentity("automation", "command-node", title)
        return DiscoInfo((identity,), (ns.COMMANDS, ns.DATA_FORM))

    # doing it

    @iq_set(COMMAND)
    async def execute(self, request: Request) -> Element:
        """XEP-0050 2.4."""
        session, command = request.origin, request.payload
        node, action = command.get("node", ""), command.get("action", "execute")
        if action not in ACTIONS:
            raise _refused("bad-request", "malformed-action")
        found = self._find(node)
        if found is None:
            raise StanzaError("item-not-found", "There is no such command.")
        self._check(session.account, found[0])
        if not isinstance(session, Session):
            raise StanzaError("forbidden")
        sid = command.get("sessionid", "")
        if not sid:
            if action not in ("execute", "next", "complete"):
                raise _refused("bad-request", "bad-action")
            return await self._begin(session, node, *found)
        open_ = self.begun[session]
        known = open_.get(sid)
        if known is None or known.node != node:
            raise _refused("bad-request", "bad-sessionid")
        if known.until < self.now():
            del open_[sid]
            raise _refused("not-allowed", "session-expired")
        if action == "cancel":
            del open_[sid]
            return answer(node, sid, Step("canceled"))
        return await self._go_on(session, sid, known, action, command)

    async def _begin(
        self, session: Session, node: str, about: Description, standard: Standard | None
    ) -> Element:
        call = partial(self._call, session)
        dialogue = Dialogue(about, call) if standard is None else Administration(standard, call)
        sid, open_ = secrets.token_hex(8), self.begun[session]
        while len(open_) >= OPEN:
            del open_[next(iter(open_))]
        known = open_[sid] = Begun(node, dialogue, self.now() + LIFE)
        return await self._step(session, sid, known, dialogue.begin)

    async def _go_on(
        self, session: Session, sid: str, known: Begun, action: str, command: Element
    ) -> Element:
        dialogue = known.dialogue
        if action == "execute":
            action = dialogue.actions[0]
        if action not in dialogue.actions:
            raise _refused("bad-request", "bad-action")
        values = submitted(command) if dialogue.wants_form else {}
        return await self._step(session, sid, known, lambda: dialogue.take(action, values))

    async def _step(self, session: Session, sid: str, known: Begun, take: Callable[[], Any]) -> Element:
        """Take a step, and forget the command if it was the last one."""
        try:
            step = await take()
        except CommandError as error:
            if error.field:
                raise bad_payload(str(error)) from None  # the form can be filled in again
            step = failed(error)
        if step.status == "executing":
            known.until = self.now() + LIFE
        else:
            self.begun[session].pop(sid, None)
        return answer(known.node, sid, step)

    async def _call(self, session: Session, name: str, given: Mapping[str, Any]) -> Any:
        """Run a command, if the account may still."""
        about = next((about for about in self.server.commands if about.name == name), None)
        if about is None:
            raise CommandError(f"there is no command {name!r} any more")
        self._check(session.account, about)
        if about.downloads:
            where = f"`xmppd {name}`, or GET /api/v1/{about.noun}/{about.verb}"
            raise CommandError(f"{name} gives a file, which a chat client cannot take: use {where}")
        connection = session.connection
        by = Caller("adhoc", session.account, connection.peer, self._scopes(session.account))
        return await self.server.commands.call(name, given, by)

    # who may

    def _scopes(self, account: str) -> frozenset[str]:
        roles = self.config.roles.values()
        return frozenset[str]().union(*(role.scopes for role in roles if account in role.accounts))

    def _check(self, account: str, about: Description) -> None:
        if self._scopes(account).isdisjoint(about.scopes):
            raise StanzaError("forbidden")

    def _find(self, node: str) -> tuple[Description, Standard | None] | None:
        """The command of a node, and the use case of XEP-0133 that it is, if it is one."""
        standard = next((it for it in STANDARD if it.node == node), None)
        name = node if standard is None else standard.command
        about = next((about for about in self.server.commands if about.name == name), None)
        return None if about is None else (about, standard)


def answer(node: str, sid: str, step: Step) -> Element:
    """What a step makes go out."""
    attrs = {"node": node, "sessionid": sid, "status": step.status, f"{{{ns.XML}}}lang": "en"}
    return element(COMMAND, attrs, *_inner(step))


def _inner(step: Step) -> Iterator[Element]:
    if step.actions:
        allowed = (element(f"{{{ns.COMMANDS}}}{name}") for name in sorted(step.actions, reverse=True))
        yield element(f"{{{ns.COMMANDS}}}actions", {"execute": step.actions[0]}, *allowed)
    if step.note:
        text = NOT_XML.sub("\N{REPLACEMENT CHARACTER}", step.note)
        yield element(f"{{{ns.COMMANDS}}}note", {"type": step.note_type}, text)
    if step.payload is not None:
        yield step.payload


def _refused(condition: str, detail: str) -> StanzaError:
    return StanzaError(condition, detail=f"{{{ns.COMMANDS}}}{detail}")
