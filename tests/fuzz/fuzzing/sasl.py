"""SASL exchanges, honest, mistaken and hostile; and a judge that knows from the bytes which may succeed.

The judge is written from RFC 4616, 5802 and 6120 and shares no code with the server.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Awaitable, Mapping
from random import Random
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import escape, quoteattr

from fuzzing.arena import Arena, Finding, Wire
from fuzzing.jids import DOMAIN, parts
from fuzzing.reference import CLOSE
from xmppd.errors import SaslError
from xmppd.stream.sasl import Authenticator, Challenge, Channel
from xmppd.testing import STREAM_HEADER

PASSWORDS = {"user": "pencil", "admin": "a,b=c", "bärbel": "пароль ½", "gone": "pencil"}
DISABLED = "gone"
NAMES = (
    *("user",) * 20, *("admin", "bärbel") * 5, "gone", "USER", "\uff55ser", "ba\u0308rbel",
    "nobody", "", "user@localhost", "user\0", "us er", "user/x", "use", "users", "x" * 1024,
    "admin,n=user", "=2C", "user'--", "\u200buser", "*",
)  # fmt: skip
BINDINGS = {"tls-exporter": b"E" * 32, "tls-server-end-point": b"S" * 32}
HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
MECHANISMS = (
    *("SCRAM-SHA-256", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS") * 8,
    "PLAIN", "PLAIN", "ANONYMOUS", "EXTERNAL", "scram-sha-1", "SCRAM-SHA-512", "", "X" * 3000, "<&'\">",
)  # fmt: skip
HEADER = STREAM_HEADER.format(domain=DOMAIN, more="").encode()
_SALTED: dict[tuple[str, str, bytes, int], bytes] = {}


def b64(data: bytes) -> str:
    """Base64, as SASL writes it."""
    return base64.b64encode(data).decode() if data else "="


def strict(text: str) -> bytes | None:
    """The bytes of canonical base64, None for anything else."""
    if text in ("", "="):
        return b""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


def known(name: str) -> str | None:
    """The account that a user name means, if there is one and it is not disabled."""
    address = parts(f"{name}@{DOMAIN}") if name and not set(name) & set("@/") else None
    local = address[0] if address and not address[2] else ""
    return local if local in PASSWORDS and local != DISABLED else None


def same_account(authzid: str, local: str) -> bool:
    """Whether an authorization identity names this account."""
    return parts(authzid) == (local, DOMAIN, "")


def plain_right(data: bytes) -> str | None:
    """Who logs in by this message of PLAIN."""
    try:
        fields = data.decode().split("\0")
    except UnicodeDecodeError:
        return None
    if len(fields) != 3:
        return None
    local = known(fields[1])
    if local is None or (fields[0] and not same_account(fields[0], local)):
        return None
    return local if fields[2] == PASSWORDS[local] else None


def unescaped(name: str) -> str | None:
    """A saslname as it was meant, None when it is none."""
    if re.search("=(?!2C|3D)", name):
        return None
    return name.replace("=2C", ",").replace("=3D", "=")


_FIRST = re.compile(
    r"((n|y|p=[A-Za-z0-9.-]+),(?:a=([^,]*))?,)(n=([^,]*),r=([!-+\--~]+)((?:,[A-Za-z]=[^,]+)*))", re.DOTALL
)
_FINAL = re.compile(r"(c=([^,]*),r=([^,]*)((?:,[A-Za-z]=[^,]+)*)),p=([^,]*)", re.DOTALL)


def salted(local: str, algorithm: str, salt: bytes, iterations: int) -> bytes:
    """`Hi()` of an account's password."""
    key = local, algorithm, salt, iterations
    if key not in _SALTED:
        _SALTED[key] = hashlib.pbkdf2_hmac(algorithm, PASSWORDS[local].encode(), salt, iterations)
    return _SALTED[key]


def proof_and_signature(local: str, algorithm: str, challenge: str, message: bytes) -> tuple[bytes, bytes]:
    """What the client of an account has to prove, and what the server has to sign (RFC 5802 3)."""
    fields = dict(field.split("=", 1) for field in challenge.split(",")[-3:])
    key = salted(local, algorithm, base64.b64decode(fields["s"]), int(fields["i"]))
    client = hmac.digest(key, b"Client Key", algorithm)
    signature = hmac.digest(hashlib.new(algorithm, client).digest(), message, algorithm)
    proof = bytes(one ^ other for one, other in zip(client, signature, strict=True))
    return proof, hmac.digest(hmac.digest(key, b"Server Key", algorithm), message, algorithm)


def scram_right(
    mechanism: str, bindings: Mapping[str, bytes], first: bytes, challenge: str, final: bytes
) -> tuple[str, bytes] | None:
    """Who logs in by these messages of SCRAM, and the server's signature."""
    try:
        one, two = _FIRST.fullmatch(first.decode()), _FINAL.fullmatch(final.decode())
    except UnicodeDecodeError:
        return None
    if one is None or two is None or ",m=" in one[7] or ",m=" in two[4]:
        return None
    flag, plus = one[2], mechanism.endswith("-PLUS")
    if plus != flag.startswith("p=") or (flag == "y" and bindings) or (plus and flag[2:] not in bindings):
        return None
    name, authzid = unescaped(one[5]), unescaped(one[3] or "")
    local = known(name) if name is not None else None
    if local is None or authzid is None or (authzid and not same_account(authzid, local)):
        return None
    bound = one[1].encode() + (bindings[flag[2:]] if plus else b"")
    if two[2] != base64.b64encode(bound).decode() or f"r={two[3]}" != challenge.split(",", maxsplit=1)[0]:
        return None
    message = f"{one[4]},{challenge},{two[1]}".encode()
    algorithm = HASHES[mechanism.removesuffix("-PLUS")]
    proof, signature = proof_and_signature(local, algorithm, challenge, message)
    return (local, signature) if two[5] == base64.b64encode(proof).decode() else None


class DirectLine:
    """The server's SASL without a stream, on a channel with TLS."""

    bindings = BINDINGS

    def __init__(self, arena: Arena) -> None:
        app = arena.world.app
        channel = Channel(DOMAIN, True, BINDINGS)
        self._authenticator = Authenticator(app.sasl.mechanisms, channel, app.logins, attempts=5)
        self.account = ""

    @property
    def over(self) -> bool:
        return self._authenticator.exhausted or self.account != ""

    async def say(self, verb: str, text: str, mechanism: str = "") -> tuple[str, str]:
        """One message of the client; the server's verb and text."""
        authenticator = self._authenticator
        try:
            if verb == "abort":
                raise authenticator.abort()
            step = authenticator.start(mechanism, text) if verb == "auth" else authenticator.respond(text)
            if isinstance(step, Awaitable):
                step = await step
        except SaslError as error:
            return "failure", error.condition
        if isinstance(step, Challenge):
            return "challenge", step.payload
        self.account = f"{step.identity.local}@{DOMAIN}"
        return "success", step.payload

    async def close(self) -> None:
        """Nothing to do."""


class StreamLine:
    """A stream without TLS, where nothing can be bound to."""

    bindings: Mapping[str, bytes] = {}

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.wire = Wire(arena.world)
        self.wire.push(HEADER)
        self.wire.taken()

    @property
    def account(self) -> str:
        return self.wire.stream.account

    @property
    def over(self) -> bool:
        return self.wire.closed or self.account != ""

    async def say(self, verb: str, text: str, mechanism: str = "") -> tuple[str, str]:
        """One message of the client; the server's last verb and text."""
        attribute = f" mechanism={quoteattr(mechanism)}" if verb == "auth" else ""
        element = f"<{verb} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'{attribute}>{escape(text)}</{verb}>"
        return await self.push(element.encode("utf-8", "replace"))

    async def push(self, data: bytes) -> tuple[str, str]:
        """Bytes of the client; the server's last verb and text, "" for none."""
        await self._arena.give(self.wire, [data])
        said = self.wire.taken()
        closed = said.endswith(CLOSE)
        try:
            root = fromstring(HEADER + said + (b"" if closed else CLOSE))
        except SyntaxError as error:
            raise Finding("output", f"{data!r} was answered by {said!r}: {error}") from None
        if closed != self.wire.closed:
            raise Finding("output", f"{data!r} was answered by {said!r}, closed: {self.wire.closed}")
        verbs = [child for child in root if not child.tag.endswith("}error")]
        if not verbs:
            return "", ""
        last = verbs[-1]
        condition = last[0].tag.partition("}")[2] if len(last) else ""
        return last.tag.partition("}")[2], condition or last.text or ""

    async def close(self) -> None:
        """Hang up."""
        self.wire.transport.close()


Line = DirectLine | StreamLine


class Exchanges:
    """Draws and judges exchanges."""

    def __init__(self, random: Random, arena: Arena) -> None:
        self.random = random
        self.arena = arena
        self.counts: Counter[str] = Counter()
        self.story: list[str] = []
        """What was said on the line at hand."""

    async def run(self, count: int) -> None:
        """So many exchanges, a few on each line."""
        while self.counts["exchanges"] < count:
            line: Line = DirectLine(self.arena) if self.random.random() < 0.4 else StreamLine(self.arena)
            self.story = [type(line).__name__]
            while not line.over and self.random.random() < 0.8:
                await self.exchange(line)
            await line.close()
            if self.counts["exchanges"] % 50 == 0:
                await self.arena.check()
        await self.arena.check()

    async def exchange(self, line: Line) -> None:
        """One attempt to log in."""
        self.counts["exchanges"] += 1
        random = self.random
        mechanism = random.choice(MECHANISMS)
        draw = random.random()
        if draw < 0.03:
            await self.judge(line, None, await self.say(line, random.choice(("response", "abort")), "AAAA"))
        elif draw < 0.08 and isinstance(line, StreamLine):
            await self.disturb(line)
        elif mechanism.startswith("SCRAM") and mechanism.removesuffix("-PLUS") in HASHES:
            await self.scram(line, mechanism)
        else:
            await self.simple(line, mechanism)

    async def say(self, line: Line, verb: str, text: str, mechanism: str = "") -> tuple[str, str]:
        """Say it, and remember that."""
        self.story.append(f"C: {verb} {mechanism} {text}")
        answer = await line.say(verb, text, mechanism)
        self.story.append(f"S: {answer[0]} {answer[1]}")
        self.counts[answer[0] or "closed"] += 1
        return answer

    async def judge(self, line: Line, local: str | None, answer: tuple[str, str]) -> None:
        """Success if it should be, and for that account; anything else otherwise."""
        success = answer[0] == "success" or line.account != ""
        if local is None and success:
            raise Finding("let in", f"{line.account} by {self.story}")
        if local is not None and (not success or line.account != f"{local}@{DOMAIN}"):
            raise Finding("kept out", f"{local}, as {line.account!r}, by {self.story}")
        if local is None and answer[0] not in ("failure", "") and not (answer[0] == "challenge"):
            raise Finding("output", f"{answer} in {self.story}")

    async def disturb(self, line: StreamLine) -> None:
        """Things that have no place in a negotiation."""
        random = self.random
        auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>"
        first = b64(b"n,,n=user,r=abc")
        noise = random.choice(
            (
                f"{auth}{first}</auth>{auth}{first}</auth>",
                f"{auth}{first}</auth><response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{first}</response>",
                f"{auth}{first}</auth><abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>" * 3,
                f"{auth}{first}</auth><message to='bob@localhost'><body>x</body></message>",
                f"{auth}<b>{first}</b></auth>",
                f"{auth}<![CDATA[=]]></auth>",
                f"{auth[:-1]}/>",
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
                "<auth xmlns='urn:x' mechanism='PLAIN'/>",
                "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
                "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
                "<iq type='get' id='1'><query xmlns='jabber:iq:auth'/></iq>",
                f"{auth}{'A' * 11_000}</auth>",
                "<presence/>",
                HEADER.decode(),
                "</stream:stream>",
            )
        )
        self.story.append(f"C: {noise}")
        answer = await line.push(noise.encode())
        self.story.append(f"S: {answer[0]} {answer[1]}")
        await self.judge(line, None, answer)
        if answer[0] == "challenge" and not line.over:  # an exchange is open, in which nothing else may begin
            await self.judge(line, None, await self.say(line, "abort", ""))

    def spoilt(self, data: bytes) -> bytes:
        """A message with something done to it."""
        random = self.random
        at = random.randrange(len(data) + 1)
        match random.randrange(6):
            case 0:
                return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
            case 1:
                return data[:at] + data[at + 1 :]
            case 2:
                return (
                    data[:at]
                    + random.choice((b",", b"=", b"\0", b",,", b",m=x", b",x=y", b"\xff"))
                    + data[at:]
                )
            case 3:
                return data[:at]
            case 4:
                return data + random.choice((b",", b",x=y", b",m=1", b"\n", b" ", b",p=AAAA", b"=" * 9000))
            case _:
                return random.choice(
                    (b"", b",", b",,,", b"n,,", b"n,,n=,r=", b"\0\0", b"\0" * 9, b"c=biws,r=,p=")
                )

    def text(self, data: bytes) -> str:
        """As base64, mostly right."""
        text, random = b64(data), self.random
        if random.random() < 0.95:
            return text
        at = random.randrange(len(text) + 1)
        return random.choice(
            (text[:at] + "\n" + text[at:], text + "=", text.rstrip("="), text[:at] + "é" + text[at:],
             f" {text}", text.replace("A", "-"), text[:at] + "=" + text[at:], "", "=", "===", text[:at])
        )  # fmt: skip

    async def simple(self, line: Line, mechanism: str) -> None:
        """PLAIN, and what nobody offers."""
        random = self.random
        name = random.choice(NAMES)
        local = known(name)
        password = PASSWORDS[local] if local and random.random() < 0.7 else random.choice(("", "x", "pencil"))
        authzid = random.choice(
            ("",) * 4 + ("user@localhost", "admin@localhost", f"{name}@{DOMAIN}", "user", "@")
        )
        data = f"{authzid}\0{name}\0{password}".encode()
        if random.random() < 0.2:
            data = self.spoilt(data)
        text = self.text(data)
        late = random.random() < 0.1
        answer = await self.say(line, "auth", "" if late else text, mechanism)
        if answer[0] == "challenge":
            answer = await self.say(line, "response", text)
        elif late:
            return await self.judge(line, None, answer)
        sent = strict(text)
        empty = text == "" and not late  # then there was no message yet
        right = plain_right(sent) if mechanism == "PLAIN" and sent is not None and not empty else None
        return await self.judge(line, right, answer)

    async def scram(self, line: Line, mechanism: str) -> None:
        """One of the SCRAM mechanisms."""
        random = self.random
        plus = mechanism.endswith("-PLUS")
        name = random.choice(NAMES)
        flag = "p=tls-exporter" if plus else "n"
        if random.random() < 0.15:
            flag = random.choice(
                ("n", "y", "p=tls-exporter", "p=tls-server-end-point", "p=tls-unique", "p=", "q", "")
            )
        authzid = (
            f"a={random.choice((name, f'{name}@{DOMAIN}', 'admin@localhost'))}"
            if random.random() < 0.1
            else ""
        )
        gs2 = f"{flag},{authzid},"
        nonce = "".join(chr(random.randrange(45, 127)) for _ in range(random.choice((1, 16, 16, 16, 500))))
        bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        if random.random() < 0.03:
            bare += ",x=ext"
        first = (gs2 + bare).encode()
        if random.random() < 0.15:
            first = self.spoilt(first)
        text = self.text(first)
        answer = await self.say(line, "auth", text, mechanism)
        if answer[0] == "challenge" and answer[1] in ("", "="):
            text = b64(first)
            answer = await self.say(line, "response", text)
        if answer[0] != "challenge":
            return await self.judge(line, None, answer)
        if random.random() < 0.03:
            return await self.judge(line, None, await self.say(line, "abort", ""))
        return await self.prove(line, mechanism, strict(text) or b"", gs2, answer[1])

    def lie(self, without: str, gs2: str) -> str:
        """The final message without its proof, changed before the proof is made."""
        random = self.random
        binding, nonce = without.split(",", 1)
        other = random.choice(("n,,", "y,,", "n,a=admin@localhost,", "p=tls-exporter,,", gs2[:-1], gs2 + ","))
        return random.choice(
            (
                f"{without},x=ext",
                f"{without},m=ext",
                f"c={base64.b64encode(other.encode()).decode()},{nonce}",
                f"{binding}=,{nonce}",
                f"{binding},{nonce[:-1]}",
                f"{binding},{nonce}x",
                f"{binding},{nonce[: len(nonce) // 2]}",
                f"{binding},r=",
                f"{nonce},{binding}",
                nonce,
            )
        )

    async def prove(self, line: Line, mechanism: str, first: bytes, gs2: str, challenge_text: str) -> None:
        """The client's final message."""
        random = self.random
        challenge = base64.b64decode(challenge_text).decode()
        match = _FIRST.fullmatch(first.decode(errors="replace"))
        gs2 = match[1] if match else gs2
        flag = gs2.partition(",")[0]
        bound = gs2.encode() + (line.bindings.get(flag[2:], b"?") if flag.startswith("p=") else b"")
        without = f"c={base64.b64encode(bound).decode()},{challenge.split(',')[0]}"
        if random.random() < 0.15:
            without = self.lie(without, gs2)
        name = unescaped(match[5]) if match else None
        local = (known(name) if name is not None else None) or "user"
        message = f"{match[4] if match else ''},{challenge},{without}".encode()
        algorithm = HASHES[mechanism.removesuffix("-PLUS")]
        proof = hashlib.new(algorithm, b"no proof").digest()
        if challenge.split(",")[1][2:]:
            proof, _ = proof_and_signature(local, algorithm, challenge, message) if match else (proof, b"")
        final = f"{without},p={base64.b64encode(proof).decode()}".encode()
        if random.random() < 0.3:
            final = self.spoilt(final)
        text = self.text(final)
        sent = strict(text)
        right = scram_right(mechanism, line.bindings, first, challenge, sent) if sent is not None else None
        answer = await self.say(line, "response", text)
        await self.judge(line, right[0] if right else None, answer)
        if right and base64.b64decode(answer[1]) != b"v=" + base64.b64encode(right[1]):
            raise Finding("signature", f"{answer} in {self.story}")


async def exchanges(seed: int, count: int) -> tuple[Counter[str], Finding | None]:
    """A run from a seed; what it did, and what it found."""
    async with Arena() as arena:
        for name, password in PASSWORDS.items():
            if f"{name}@{DOMAIN}" not in arena.oracle.accounts:
                await arena.world.app.accounts.create(f"{name}@{DOMAIN}", password)
            else:
                await arena.world.app.accounts.set_password(f"{name}@{DOMAIN}", password)
        await arena.world.app.accounts.disable(f"{DISABLED}@{DOMAIN}")
        run = Exchanges(Random(seed), arena)
        try:
            await run.run(count)
            await arena.finish()
        except Finding as finding:
            return run.counts, finding
    return run.counts, None
