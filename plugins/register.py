"""In-band registration (XEP-0077): change one's own password, or remove the account; and make one before
login, where the operator wants that door open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque

from xmppd import ns
from xmppd.plugin import (
    LOGIN,
    SELF,
    SERVER,
    AccountExists,
    AccountUnknown,
    BadPassword,
    Counter,
    EarlyRequest,
    Element,
    Jid,
    JidError,
    Negotiable,
    Person,
    Phase,
    Plugin,
    PluginConfig,
    PositiveFloat,
    PositiveInt,
    Request,
    Session,
    StanzaError,
    StoreError,
    Table,
    cluster_signal,
    element,
    iq_get,
    iq_set,
    network_of,
    offers,
    serialize,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 60.0)
"""When a removal that the store did not do is tried again: at first, and at most."""

QUERY = f"{{{ns.REGISTER}}}query"
USERNAME, PASSWORD, REMOVE = (f"{{{ns.REGISTER}}}{name}" for name in ("username", "password", "remove"))
OFFER = serialize(element(f"{{{ns.REGISTER_FEATURE}}}register"))
INSTRUCTIONS = "Choose a name and a password."


class RegisterConfig(PluginConfig):
    """Whether anybody may make an account (`registration`). Within `seconds`, one address (IPv6: one /64) may
    make `accounts` and try `attempts` times; the deeds of so many `addresses` are remembered.
    """

    registration: bool = False
    accounts: PositiveInt = 3
    attempts: PositiveInt = 20
    seconds: PositiveFloat = 3600.0
    addresses: PositiveInt = 100_000
    allow_password_change: bool = True
    allow_removal: bool = True


class Register(Plugin):
    """Accounts by XMPP itself; the costly derivation of keys is done off the loop by the server."""

    Config = RegisterConfig
    removals = Table(
        partition=("account",),
        columns={"asked": "timestamp", "created": "timestamp"},
        person=Person("account", stays=True),
    )
    """What was promised, with when the account was made: somebody else may have its name by now."""
    made = Counter("Accounts made by in-band registration.")

    async def start(self) -> None:
        """What addresses did lately; forgotten with a restart."""
        config = self.config
        self._attempts = Window(config.attempts, config.seconds, config.addresses)
        self._accounts = Window(config.accounts, config.seconds, config.addresses)
        self._leaving: set[str] = set()
        async for row in self.removals.everything():  # promised before the server was killed
            self._leaving.add(row["account"])
            self.server.spawn(self._finish_removal(row["account"], row["asked"], row["created"]))

    # before login

    @offers(Phase.LOGIN, alike=True)
    def offer(self, stream: Negotiable) -> bytes:
        """XEP-0077 8."""
        return OFFER if self.config.registration else b""

    @iq_get(QUERY, LOGIN)
    def form(self, request: EarlyRequest) -> Element:
        """XEP-0077 3.1: the fields needed."""
        self._check_door(request)
        return fields()

    @iq_set(QUERY, LOGIN)
    async def create(self, request: EarlyRequest) -> None:
        """XEP-0077 3.1: conflict when the name is taken, not-acceptable when name or password is no good."""
        if request.payload.find(REMOVE) is not None:
            raise StanzaError("registration-required", "Log in to remove an account.")
        self._check_door(request)
        username, password = submitted(request.payload)
        if not username or not password:
            raise StanzaError("not-acceptable", "Give a name and a password.")
        address, now = network_of(request.peer), self.now()
        self._attempts.check(address, now)
        self.spent.tell("attempt", address)
        try:
            account = Jid.of(username, request.domain).bare
            if account in self._leaving or await self.server.account_exists(account):
                raise AccountExists(account)
            self._accounts.check(address, now)
            self.spent.tell("account", address)
            await self.server.accounts.create(account, password)
        except AccountExists:
            raise StanzaError("conflict", "This name is taken.") from None
        except (JidError, BadPassword) as error:
            raise StanzaError("not-acceptable", str(error)) from None
        self.made.inc()
        self.log.info("account-registered", extra={"jid": account, "peer": request.peer})

    def _check_door(self, request: EarlyRequest) -> None:
        """StanzaError unless it is open, and the request is for the domain of its stream."""
        if not self.config.registration:
            raise StanzaError("service-unavailable", "Accounts are not made in-band here.")
        if not is_domain(request.stanza.to, request.domain):
            raise StanzaError("not-allowed", "Register with the domain that you are connected to.")

    @cluster_signal
    def spent(self, what: str, address: str) -> None:
        """An address tried, or made an account, on one of the nodes: it counts on all."""
        window = self._attempts if what == "attempt" else self._accounts
        window.add(address, self.now())

    # when logged in

    @iq_get(QUERY, SERVER, SELF)
    async def current(self, request: Request) -> Element:
        """XEP-0077 3.1: that there is a registration, and the name; the password is not known to anybody."""
        account = request.origin.account
        if not await self.server.account_exists(account):
            raise StanzaError("not-allowed", "Accounts are made before login.")
        return fields(registered=account.rpartition("@")[0])

    @iq_set(QUERY, SERVER, SELF)
    async def change(self, request: Request) -> None:
        """A new password (XEP-0077 3.3), or the end of the account (3.2)."""
        account = request.origin.account
        if not await self.server.account_exists(account):
            raise StanzaError("registration-required")
        if request.payload.find(REMOVE) is not None:
            await self._remove(request.session, request.payload)
        else:
            await self._set_password(request.session, request.payload)

    async def _remove(self, session: Session, query: Element) -> None:
        """The result goes out before the removal, which ends the stream, and after a promise that lasts."""
        if len(query) != 1:
            raise StanzaError("bad-request", "A removal is asked for with nothing else.")
        if not self.config.allow_removal:
            raise StanzaError("not-allowed")
        account, tenure = session.account, session.login.tenure
        created = tenure.created if tenure is not None else None
        asked = self.now()
        await self.removals.put({"account": account, "asked": asked, "created": created})
        self._leaving.add(account)
        self.server.spawn(self._finish_removal(account, asked, created))

    async def _finish_removal(self, account: str, asked: float, created: float | None) -> None:
        """Nobody registers here with the name before the promise is gone as well.

        Another node may be faster, and the name taken again: neither that account nor a promise to its owner
        is touched. While the store fails it is tried again; a kill leaves the rest to the next start.
        """
        pause = RETRY_SECONDS[0]
        try:
            while True:
                try:
                    with contextlib.suppress(AccountUnknown):  # somebody was faster
                        await self.server.remove_account(account, created)
                    await self.removals.delete_if(account, expect={"asked": asked})
                except StoreError as error:
                    log.warning("removal-put-off", extra={"jid": account, "problem": str(error)})
                else:
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS[1])
        finally:
            self._leaving.discard(account)

    async def _set_password(self, session: Session, query: Element) -> None:
        """All other sessions of the account end, if the server is told so."""
        account = session.account
        username, password = submitted(query)
        if not self.config.allow_password_change:
            raise StanzaError("not-allowed")
        try:
            if Jid.of(username, account.rpartition("@")[2]).bare != account:
                raise StanzaError("bad-request", "Give your own name and a new password.")
            await self.server.accounts.set_password(account, password, spare=session.login)
        except AccountUnknown:
            raise StanzaError("registration-required") from None
        except (JidError, BadPassword) as error:
            raise StanzaError("bad-request", str(error)) from None


class Window:
    """How often each address did something within the last `seconds`, in bounded memory."""

    def __init__(self, limit: int, seconds: float, addresses: int) -> None:
        self._limit = limit
        self._seconds = seconds
        self._addresses = addresses
        self._moments: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str, now: float) -> None:
        """StanzaError resource-constraint when one more were too many."""
        moments = self._moments.get(address)
        if moments is None:
            return
        self._moments.move_to_end(address)
        while moments and not now - self._seconds < moments[0] <= now:  # later ones: the clock was set back
            moments.popleft()
        if len(moments) >= self._limit:
            raise StanzaError("resource-constraint", "Too many registrations from your address; try later.")

    def add(self, address: str, now: float) -> None:
        """Count one more."""
        self._moments.setdefault(address, deque(maxlen=self._limit)).append(now)
        self._moments.move_to_end(address)
        if len(self._moments) > self._addresses:
            self._moments.popitem(last=False)


def fields(registered: str = "") -> Element:
    """The form, or what is on file."""
    mark = element(f"{{{ns.REGISTER}}}registered") if registered else None
    instructions = element(f"{{{ns.REGISTER}}}instructions", None, INSTRUCTIONS)
    username = element(USERNAME, None, registered or None)
    return element(QUERY, None, mark, instructions, username, element(PASSWORD))


def submitted(query: Element) -> tuple[str, str]:
    """Name and password of a request; "" for what is missing."""
    return query.findtext(USERNAME) or "", query.findtext(PASSWORD) or ""


def is_domain(to: str | None, domain: str) -> bool:
    """Whether a stanza is for this domain, in whatever letter case; without an address it is."""
    try:
        return not to or Jid.parse(to) == Jid.of("", domain)
    except JidError:
        return False
