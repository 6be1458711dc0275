"""Who may come in and who may stay: what an account was when a login began is looked at again when it
succeeds, when a resource is bound, and whenever the account changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn, Protocol

from xmppd.core.accounts import Accounts
from xmppd.core.begun import begun
from xmppd.core.blocks import Blocks
from xmppd.core.brake import Brake
from xmppd.core.reports import Reports
from xmppd.core.router import not_stored
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import JidError, SaslError, StoreError, StreamError
from xmppd.hooks import Hooks
from xmppd.jid import Jid
from xmppd.stream.sasl import NO_FACTS, Attempt, Channel, Identity, Login, Standing, Tenure
from xmppd.stream.scram import Credentials

GUESSES = frozenset(("not-authorized", "invalid-authzid"))
"""Failures of who may have guessed."""

REMOVED = "The account was removed."
DISABLED = "The account was disabled."
CHANGED = "Log in again: what the account logs in with was changed."


class Stream(Protocol):
    """A stream whose client has logged in and not bound a resource."""

    @property
    def login(self) -> Login | None: ...

    def fail(self, error: StreamError) -> None:
        """End it."""


class Logins:
    """The gate of every login (see `xmppd.stream.sasl.Gate`), and the one place that ends the streams of an
    account: `unbound` finds those without a session (None: of all accounts), `end` ends a session.
    """

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        blocks: Blocks,
        hooks: Hooks,
        end: Callable[[Session, StreamError | None], None],
        brake: Brake,
        reports: Reports,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._blocks = blocks
        self._hooks = hooks
        self._end = end
        self.brake = brake
        self.reports = reports
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """How many attempts there were: by mechanism, and "success" or the condition of the refusal."""
        self.attempted: Callable[[Attempt, str], None] | None = None
        """Told of each of them, with this outcome."""
        self.pause: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.unbound: Callable[[str | None], Iterable[Stream]] = lambda account: ()

    # coming in

    def mark(self) -> int:
        """The number of the last change of any account."""
        return self._accounts.changes.mark

    def admit(self, attempt: Attempt, identity: Identity) -> Login | Awaitable[Login]:
        """Let somebody in who has proved who they are, if that still holds: nothing of it was believed while
        anything was waited for. What is cached here is what holds, so that asks the store for nothing.
        """
        domain = attempt.channel.domain
        # What the server's own mechanisms found on file was looked up by a normalised name.
        shown = identity.shown
        is_normalised = isinstance(shown, (Credentials, Standing))
        account = f"{identity.local}@{domain}" if is_normalised else account_of(identity.local, domain)
        attempt.account = account
        if identity.anonymous:
            return self._asked(attempt, login_of(attempt, identity, None))
        if isinstance(shown, Standing) and self._is_unchanged(account, shown.mark):
            return self._asked(attempt, login_of(attempt, identity, shown.tenure, shown.mark))
        found = self._current(account)
        if found is None or isinstance(found, Credentials):
            return self._asked(attempt, self._judge(attempt, identity, account, found))
        return self._judge_later(attempt, identity, account, found)

    def _is_unchanged(self, account: str, mark: int | None) -> bool:
        """Whether what was found of an account is so still."""
        accounts = self._accounts
        return mark is not None and accounts.is_caching and not accounts.changes.since(account, mark)

    async def let_in(self, channel: Channel, identity: Identity, mechanism: str, mark: int) -> Login:
        """All that there is to a login but its proof, for who has another way than SASL; `mark` is from
        before that began. SaslError, StoreError.
        """
        attempt = Attempt(mechanism, channel, mark)
        try:
            login = self.admit(attempt, identity)
            login = login if isinstance(login, Login) else await login
        except SaslError as error:
            if (waiting := self.failed(attempt, error)) is not None:
                await waiting
            raise
        if (waiting := self.passed(attempt)) is not None:
            await waiting
        return login

    async def turn_away(self, channel: Channel, local: str, mechanism: str, error: SaslError) -> NoReturn:
        """The end of such a login whose proof did not hold: raises `error` when the client may be told, or
        another SaslError to tell instead. `local` is who the client claimed to be, "" for nobody known.
        """
        attempt = Attempt(mechanism, channel, self.mark(), claimed(local, channel.domain))
        if (waiting := self.failed(attempt, error)) is not None:
            await waiting
        raise error

    def _current(self, account: str) -> Credentials | Awaitable[Credentials | None] | None:
        """The credentials on file, as they are when this is done."""
        mark = self._accounts.changes.mark
        found = self._accounts.credentials(account)
        return found if found is None or isinstance(found, Credentials) else self._load(account, mark, found)

    async def _load(
        self, account: str, mark: int, loading: Awaitable[Credentials | None]
    ) -> Credentials | None:
        found: Credentials | Awaitable[Credentials | None] | None = await loading
        while self._accounts.changes.since(account, mark):  # what was read may be older than that
            mark = self._accounts.changes.mark
            found = self._accounts.credentials(account)
            if found is not None and not isinstance(found, Credentials):
                found = await found
        assert found is None or isinstance(found, Credentials)
        return found

    async def _judge_later(
        self, attempt: Attempt, identity: Identity, account: str, loading: Awaitable[Credentials | None]
    ) -> Login:
        login = self._asked(attempt, self._judge(attempt, identity, account, await loading))
        return login if isinstance(login, Login) else await login

    def _asked(self, attempt: Attempt, login: Login) -> Login | Awaitable[Login]:
        """Ask the plugins that may refuse."""
        policies = self._hooks.authenticated_policy
        return self._ask(attempt, login) if policies else login

    async def _ask(self, attempt: Attempt, login: Login) -> Login:
        for policy in self._hooks.authenticated_policy:
            waiting = policy(login, attempt.channel)
            if isinstance(waiting, Awaitable):
                await waiting
        if login.tenure is not None:
            found = self._current(login.account)
            found = await found if isinstance(found, Awaitable) else found
            if ended(login, found) is not None:
                raise SaslError("not-authorized")
        return login

    def _judge(self, attempt: Attempt, identity: Identity, account: str, found: Credentials | None) -> Login:
        shown = identity.shown
        if found is None:
            raise SaslError("not-authorized")
        # Keys that were made meanwhile, of another hash, take nothing from those that were shown.
        if (
            shown is not found
            and isinstance(shown, Credentials)
            and not shown.keys.items() <= found.keys.items()
        ):
            raise SaslError("not-authorized")
        if found.disabled:
            raise SaslError("account-disabled")
        if isinstance(shown, (Credentials, Standing)) and shown.tenure != found.tenure:
            raise SaslError("not-authorized")
        if not isinstance(shown, Credentials) and self._accounts.changes.since(account, attempt.mark):
            raise SaslError("temporary-auth-failure", "The account was changed meanwhile; try again.")
        return login_of(attempt, identity, found.tenure, self._accounts.changes.mark)

    # how it came out

    def refused(self, channel: Channel, error: SaslError) -> None:
        """Tell operators; nobody has guessed anything."""
        self.reports.tell("login-refused", channel.peer, reason=error.condition)

    def _count(self, attempt: Attempt, outcome: str) -> None:
        self.outcomes[attempt.mechanism, outcome] += 1
        if self.attempted is not None:
            self.attempted(attempt, outcome)

    def failed(self, attempt: Attempt, error: SaslError) -> Awaitable[None] | None:
        """Tell operators and plugins, and have who guesses wait. Who could not have been right, for want of
        keys, waits alike: else the wait would tell which accounts there are.
        """
        peer, account = attempt.channel.peer, attempt.account
        reason = error.condition
        self._count(attempt, reason)
        about = {"jid": account} if account else {}
        more = {"keys": "none"} if attempt.lacking else {}
        self.reports.tell("login-failed", peer, **about, mechanism=attempt.mechanism, reason=reason, **more)
        if attempt.lacking:
            self.reports.counts["login-without-keys"] += 1
        telling = self._hooks.tell(self._hooks.login_failed_signal, attempt, reason)
        seconds = 0.0
        if reason in GUESSES:
            self.brake.failed(peer, account)
            seconds = self.brake.wait(peer, account)
        return self._hold_back(seconds, telling) if seconds or telling is not None else None

    def passed(self, attempt: Attempt) -> Awaitable[None] | None:
        """Have it wait, too, where somebody guesses. What this stream could not have guessed (`idle`) is not
        held against its network: who knows the password may know that much.
        """
        peer, account = attempt.channel.peer, attempt.account
        if attempt.idle and (count := sum(earlier.account == account for earlier in attempt.idle)):
            self.brake.forgive(peer, count)
        seconds = self.brake.wait(peer, account)
        if seconds:
            return self._pass_later(attempt, seconds)
        self._succeeded(attempt)
        return None

    def _succeeded(self, attempt: Attempt) -> None:
        self._count(attempt, "success")
        self.brake.succeeded(attempt.channel.peer, attempt.account)

    async def _pass_later(self, attempt: Attempt, seconds: float) -> None:
        try:
            await self._hold_back(seconds, None)
        except SaslError as error:
            self._count(attempt, error.condition)
            peer, account = attempt.channel.peer, attempt.account
            self.reports.tell("login-refused", peer, jid=account, reason=error.condition)
            raise
        self._succeeded(attempt)

    async def _hold_back(self, seconds: float, telling: Awaitable[None] | None) -> None:
        if telling is not None:
            await telling
        if seconds:
            self.reports.counts["login-delayed"] += 1
            longest = self.brake.rules.longest
            await self.pause(min(seconds, longest))
            if seconds > longest:
                raise SaslError("temporary-auth-failure", "Too many attempts from your address; try later.")

    def confirm(self, login: Login) -> Awaitable[None] | None:
        """Whether the login still holds now that a resource is to be bound: StreamError when it does not, and
        StanzaError when the store cannot tell. Whom its account blocks is known then.
        """
        if login.tenure is None:
            return None
        loading: Awaitable[Credentials | None] | None = None
        if self._blocks.known(login.account) is not None:
            if self._is_unchanged(login.account, login.mark):
                return None
            found = self._current(login.account)
            if found is None or isinstance(found, Credentials):
                self._check(login, found)
                return None
            loading = found
        return begun(self._confirm(login, loading))

    async def _confirm(self, login: Login, loading: Awaitable[Credentials | None] | None) -> None:
        account = login.account
        try:
            while True:
                if loading is None:  # the list is not known
                    await self._blocks.read(account)
                found = self._current(account) if loading is None else loading
                loading = None
                found = await found if isinstance(found, Awaitable) else found
                if self._blocks.known(account) is not None:
                    break
        except StoreError as error:
            raise not_stored(error, jid=account, kind="bind") from None
        self._check(login, found)

    @staticmethod
    def _check(login: Login, found: Credentials | None) -> None:
        if (error := ended(login, found)) is not None:
            raise error

    # staying

    def is_here(self, account: str) -> bool:
        """Whether a stream of this node belongs to the account."""
        return account in self._sessions.accounts or any(True for _ in self.unbound(account))

    def accounts(self) -> set[str]:
        """All that streams of this node belong to."""
        return {*self._sessions.accounts, *(s.login.account for s in self.unbound(None) if s.login)}

    def review(self, account: str, tenure: Tenure | None, is_disabled: bool) -> None:
        """End the streams of an account, bound or not, whose login does not hold any more; `tenure` is that
        of the account that has the name now (None: there is none).
        """
        for session in self._sessions.of(account):
            if (error := verdict(session.login, tenure, is_disabled)) is not None:
                self._end(session, error)
        for stream in list(self.unbound(account)):
            login = stream.login
            if login is not None and (error := verdict(login, tenure, is_disabled)) is not None:
                stream.fail(error)

    async def look_at(self, account: str) -> None:
        """The same, by what the store says; StoreError."""
        found = self._current(account)
        if found is not None and not isinstance(found, Credentials):
            found = await found
        if found is None:
            self.review(account, None, False)
        else:
            self.review(account, found.tenure, found.disabled)


def account_of(local: str, domain: str) -> str:
    """The account of an identity that a plugin gave; SaslError where it can be none's."""
    try:
        jid = Jid.of(local, domain)
    except JidError:
        raise SaslError("not-authorized") from None
    if not jid.local:
        raise SaslError("not-authorized")
    return jid.bare


def claimed(local: str, domain: str) -> str:
    """The account that somebody claims to be, "" where that can be none's."""
    try:
        return account_of(local, domain)
    except SaslError:
        return ""


def login_of(attempt: Attempt, identity: Identity, tenure: Tenure | None, mark: int | None = None) -> Login:
    """The login that an attempt leads to; see `Login.mark`."""
    channel = attempt.channel
    agent = channel.asked.agent if channel.asked is not None else None
    return Login(
        attempt.account,
        tenure,
        attempt.mechanism,
        channel.peer,
        dict(identity.facts) if identity.facts else NO_FACTS,
        identity.expires,
        agent,
        mark,
    )


def ended(login: Login, found: Credentials | None) -> StreamError | None:
    """`verdict` by what is on file."""
    return verdict(login, None, False) if found is None else verdict(login, found.tenure, found.disabled)


def verdict(login: Login, tenure: Tenure | None, is_disabled: bool) -> StreamError | None:
    """What ends a stream of this login, if anything does. Who only has to log in again is told to by `reset`
    (RFC 6120 4.9.3.16).
    """
    if login.tenure is None:  # anonymous: there is no account that could change
        return None
    if tenure is None or tenure.created != login.tenure.created:
        return StreamError("not-authorized", REMOVED)
    if is_disabled:
        return StreamError("not-authorized", DISABLED)
    return None if tenure == login.tenure else StreamError("reset", CHANGED)
