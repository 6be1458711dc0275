"""PLAIN (RFC 4616) against SCRAM keys, and ANONYMOUS (RFC 4505)."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from xmppd.errors import SaslError
from xmppd.jid import Jid
from xmppd.stream.forms import other_forms
from xmppd.stream.lru import Lru
from xmppd.stream.sasl import Channel, Exchange, Identity, Step, Success, prepare_identity
from xmppd.stream.scram import (
    HASHES,
    BadPassword,
    Credentials,
    CredentialSource,
    ScramKeys,
    prepare_password,
    stored_key,
)

PasswordCheck = Callable[[Jid, str, Channel], Identity | str | Awaitable[Identity | str | None] | None]
"""Says who gave this password for an account; None for no opinion, a text: what was typed means that one.
SaslError refuses.
"""


class Plain:
    """PLAIN, by default under TLS only.

    Deriving a key takes milliseconds in a thread, so a password that proved right is remembered: as a keyed
    hash of it with the account, beside the stored key it was right for. A changed password therefore never
    meets an old entry. Before the store is asked, each of `checks` may take what was given for something else
    than the password, a token say.

    Imported keys may be those of another form of the password (`xmppd.stream.forms`). What is wrong in one
    form is derived in all of them for any account, and for none: how long that takes says nothing of it.
    """

    name = "PLAIN"
    priority = 50

    def __init__(
        self,
        source: CredentialSource,
        *,
        needs_tls: bool = True,
        remembered: int = 10_000,
        checks: Callable[[], Sequence[PasswordCheck]] = tuple,
    ) -> None:
        self.needs_tls = needs_tls
        self.checks = checks
        self.source = source
        self._key = secrets.token_bytes(32)
        self._proved: Lru[bytes, bytes] = Lru(remembered)

    def available(self, channel: Channel) -> bool:
        """It works on every channel that `needs_tls` allows."""
        return True

    def start(self, channel: Channel) -> Exchange:
        """A fresh exchange."""
        return _PlainExchange(self, channel)

    def has_proved(self, account: str, password: str, keys: ScramKeys) -> bool:
        """Whether this password was found right for these very keys before."""
        return self._proved.get(self._tag(account, password)) == keys.stored

    async def proves(self, account: str, password: str, algorithm: str, keys: ScramKeys) -> bool:
        """Whether the password fits the keys, by deriving them off the loop."""
        salted = await self.source.salted_password(algorithm, password, keys.salt, keys.iterations)
        if not hmac.compare_digest(stored_key(algorithm, salted), keys.stored):
            return False
        self._proved.put(self._tag(account, password), keys.stored)
        return True

    def _tag(self, account: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{account}\0{password}".encode(), "sha256")


class _PlainExchange:
    __slots__ = ("_channel", "_plain", "account")

    def __init__(self, plain: Plain, channel: Channel) -> None:
        self._plain = plain
        self._channel = channel
        self.account = ""

    def step(self, data: bytes) -> Step | Awaitable[Step]:
        authzid, name, typed = _parse(data)
        jid = prepare_identity(name, authzid, self._channel)
        account = self.account = jid.bare
        try:
            prepared = prepare_password(typed)
        except BadPassword:
            return self._verify(self._plain.source.credentials(account), jid, typed, "")
        checks = self._plain.checks()
        return self._ask(checks, jid, typed, prepared) if checks else self._compare(jid, typed, prepared)

    async def _ask(self, checks: Sequence[PasswordCheck], jid: Jid, typed: str, prepared: str) -> Step:
        for check in checks:
            known = check(jid, prepared, self._channel)
            known = await known if isinstance(known, Awaitable) else known
            if isinstance(known, str):
                typed, prepared = known, _prepared(known)
            elif known is not None:
                return Success(replace(known, local=jid.local))
        step = self._compare(jid, typed, prepared)
        return await step if isinstance(step, Awaitable) else step

    def _compare(self, jid: Jid, typed: str, prepared: str) -> Step | Awaitable[Step]:
        account = self.account
        found = self._plain.source.credentials(account)
        if isinstance(found, Credentials) and found.keys:
            _, keys = _pick(found)
            if self._plain.has_proved(account, prepared, keys):
                return self._accept(found, jid.local, prepared)
        return self._verify(found, jid, typed, prepared)

    async def _verify(
        self,
        found: Credentials | Awaitable[Credentials | None] | None,
        jid: Jid,
        typed: str,
        prepared: str,
    ) -> Step:
        plain, account = self._plain, self.account
        if found is not None and not isinstance(found, Credentials):
            found = await found
        if found is None or not found.keys:
            found = plain.source.decoy(account)
        algorithm, keys = _pick(found)
        forms = [form for form in (prepared, *other_forms(typed, prepared)) if form]
        right = forms if found.imported else [prepared]
        for form in right:
            if form and plain.has_proved(account, form, keys):
                return self._accept(found, jid.local, form)
        for form in forms:
            if await plain.proves(account, form, algorithm, keys) and form in right and not found.decoy:
                return self._accept(found, jid.local, form)
        raise SaslError("not-authorized")

    def _accept(self, found: Credentials, local: str, form: str) -> Success:
        if found.disabled:
            raise SaslError("account-disabled")
        if found.missing:
            self._plain.source.complete(self.account, form, found)
        return Success(Identity(local, shown=found))


def _parse(data: bytes) -> tuple[str, str, str]:
    """authzid, authcid and the password as typed. What cannot be anybody's credentials is not-authorized."""
    parts = data.split(b"\0")
    if len(parts) < 3:
        raise SaslError("malformed-request")
    # A fourth part would be a password with a NUL, which no form of it has.
    if len(parts) > 3:
        raise SaslError("not-authorized")
    try:
        authzid, name, typed = (part.decode() for part in parts)
    except UnicodeDecodeError:
        raise SaslError("not-authorized") from None
    return authzid, name, typed


def _prepared(typed: str) -> str:
    """The password as it is compared; what is none is nobody's."""
    try:
        return prepare_password(typed)
    except BadPassword:
        raise SaslError("not-authorized") from None


def _pick(found: Credentials) -> tuple[str, ScramKeys]:
    """The keys that take the least time to derive."""
    keys = found.keys.get("sha256")
    if keys:
        return "sha256", keys
    algorithm = next(name for name in HASHES if name in found.keys)
    return algorithm, found.keys[algorithm]


class Anonymous:
    """ANONYMOUS: every login gets a random localpart of its own. The trace information is dropped."""

    name = "ANONYMOUS"
    priority = 10
    needs_tls = False

    def available(self, channel: Channel) -> bool:
        """It works everywhere."""
        return True

    def start(self, channel: Channel) -> Exchange:
        """A fresh exchange."""
        return _AnonymousExchange()


class _AnonymousExchange:
    __slots__ = ()

    def step(self, data: bytes) -> Step:
        try:
            trace = data.decode()
        except UnicodeDecodeError:
            raise SaslError("malformed-request") from None
        if len(trace) > 255:
            raise SaslError("malformed-request")
        return Success(Identity(f"anonymous-{secrets.token_hex(16)}", anonymous=True))
