"""A server of the game layer with two scripted players; see `scripts/demo`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import shlex
import socket
import ssl
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jwt
from slixmpp import ClientXMPP
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp.xmlstream.tostring import tostring

SECONDS = 20.0
"""How long anything may take."""

PLAYERS, FRIENDS, PRESENCE, INVITES, EVENTS = (
    f"urn:xmppd:{name}:0" for name in ("players", "friends", "rich-presence", "invites", "game-events")
)
ISSUER, AUDIENCE = "https://id.example.org", "chat.example.org"
NOISE = re.compile(r" xml:lang='[^']*'|<(stanza-id|origin-id) [^>]*/>")


def configuration(folder: Path, ports: list[int], key: str) -> dict[str, Any]:
    """Of the server: config/game.yaml says what else there is."""
    words = folder / "words"
    words.mkdir()
    (words / "en.txt").write_text("# found however it is written\nnoob\n[refuse]\ncheap gold\n")
    issuer = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["HS256"], "keys": [key]}
    chess = {
        "name": "Chess",
        "status": "Playing {mode}",
        "says": {
            "properties": {"mode": {"type": "string", "enum": ["blitz", "rapid"]}},
            "required": ["mode"],
        },
    }
    return {
        "server": {"domains": ["localhost"], "data_folder": str(folder / "data")},
        "listen": {"c2s": [{"address": "127.0.0.1", "port": ports[0], "tls": "starttls"}]},
        "log": {"level": "warning"},
        "plugins": {
            "enabled": [
                *("disco", "ping", "blocking", "offline", "last"),
                *(
                    "game_login",
                    "players",
                    "friends",
                    "rich_presence",
                    "invites",
                    "moderation",
                    "game_events",
                ),
            ],
            "config": {
                "game_login": {"issuers": [issuer]},
                "rich_presence": {"games": {"chess": chess}},
                "moderation": {"words": str(words)},
            },
        },
    }


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tell(text: str) -> None:
    """A step, in words."""
    print("\n" + textwrap.fill(text, 100), flush=True)


def show(who: str, arrow: str, xml: str) -> None:
    """What goes over the wire, without what says nothing here."""
    shown = NOISE.sub("", re.sub('="([^"]*)"', r"='\1'", xml)).replace("&quot;", '"').replace(" />", "/>")
    first = f"  {who:>5} {arrow} "
    folded = textwrap.fill(
        shown, 100, initial_indent=first, subsequent_indent=" " * 10, break_on_hyphens=False
    )
    print(folded, flush=True)


def answer(iq: Any) -> None:
    """What the server tells by an iq is answered by an empty result."""
    if iq["type"] == "set":
        iq.reply().send()


class Player(ClientXMPP):  # type: ignore[misc]
    """A game's client that says what it is told to, and shows what it is told."""

    def __init__(self, name: str, token: str, tls: ssl.SSLContext) -> None:
        super().__init__(f"{name}@localhost/game", token)
        self.name = name
        self.ssl_context, self.use_ipv6 = tls, False
        self.plugin["feature_mechanisms"].use_mech = "PLAIN"  # the token is the password
        self._heard: list[str] = []
        self._news = asyncio.Event()
        self.add_filter("in", self._note)
        for namespace, payload in ((FRIENDS, "friends"), (INVITES, "invite")):
            pushed = MatchXPath(f"{{jabber:client}}iq/{{{namespace}}}{payload}")
            self.register_handler(Callback(payload, pushed, answer))

    def _note(self, stanza: Any) -> Any:
        self._heard.append(str(stanza).replace('"', "'"))
        self._news.set()
        return stanza

    async def enter(self, port: int) -> None:
        """Log in, and be there."""
        begun = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", begun.set_result)
        self.connect("127.0.0.1", port)
        await asyncio.wait_for(begun, SECONDS)
        self.send_presence()

    async def ask(self, kind: str, payload: str) -> ET.Element | None:
        """An iq to the own account, and its answer, both shown."""
        show(self.name, "->", payload)
        iq = self.make_iq(itype=kind)
        iq.append(ET.fromstring(payload))
        result = await iq.send(timeout=SECONDS)
        found: ET.Element | None = next(iter(result.xml), None)
        if found is not None:
            show(self.name, "<-", tostring(found))
        return found

    def say(self, stanza: str) -> None:
        """Anything else."""
        show(self.name, "->", stanza)
        self.send_raw(stanza)

    def has_heard(self, word: str) -> bool:
        """Whether anything with that in it came."""
        return any(word in heard for heard in self._heard)

    async def hear(self, *words: str) -> None:
        """Wait for a stanza that has all of these in it, and show it."""
        async with asyncio.timeout(SECONDS):
            while True:
                for heard in self._heard:
                    if all(word in heard for word in words):
                        self._heard.remove(heard)
                        show(self.name, "<-", heard)
                        return
                self._news.clear()
                await self._news.wait()


class Server:
    """The process, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.port, self.key = free_port(), secrets.token_hex(32)
        self._config = folder / "demo.yaml"
        self._socket = folder / "data" / "xmppd.sock"
        self._config.write_text(json.dumps(configuration(folder, [self.port], self.key)))  # JSON is YAML
        self._program = [sys.executable, "-m", "xmppd", "--config", str(self._config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes commands."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
        self._process = subprocess.Popen([*self._program, "serve"], env=environment)
        end = time.monotonic() + SECONDS
        while not self._socket.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the server did not start")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def token(self, player: str) -> str:
        """What the game's own service gives a client (docs/game-login.md has more languages)."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": player, "iat": now, "exp": now + 3600}
        return jwt.encode(claims, self.key, algorithm="HS256")

    async def command(self, words: list[str], last: str) -> None:
        """What an operator, or the game's back end, does; shown with its answer."""
        words = [*words, last]
        print(f"  $ xmppd {shlex.join(words)}", flush=True)
        done = await asyncio.create_subprocess_exec(*self._program, *words, stdout=subprocess.PIPE)
        answer, _ = await done.communicate()
        print(textwrap.indent(answer.decode().rstrip(), "    "), flush=True)
        if done.returncode:
            raise SystemExit(f"xmppd {words[0]} failed")


async def play(server: Server) -> None:
    """All steps."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # the certificate was made a second ago
    tell(
        "What a client sends stands behind ->, what it is told behind <-, and what an operator or the game's "
        "back end does behind $."
    )
    tell(
        "1. Alice and Bob log in by tokens that the game's own service signed. Their accounts are made by "
        "that."
    )
    alice, bob = (Player(name, server.token(name), tls) for name in ("alice", "bob"))
    for player in (alice, bob):
        show(player.name, "->", f"PLAIN, as the password: {player.password[:40]}...")
        await player.enter(server.port)

    tell("2. They take names, which nobody else has or can imitate.")
    await alice.ask("set", f"<player xmlns='{PLAYERS}' name='Zoe#EUW'/>")
    await bob.ask("set", f"<player xmlns='{PLAYERS}' name='Kiva#EUW'/>")

    tell(
        "3. Alice asks Bob, by his name, to be her friend, and he accepts: three stanzas. They see each "
        "other from then on."
    )
    for player in (alice, bob):
        await player.ask("get", f"<friends xmlns='{FRIENDS}'/>")
    await alice.ask("set", f"<request xmlns='{FRIENDS}' name='kiva#euw'>Good game!</request>")
    await bob.hear("<friends", "state='asked'")
    await bob.ask("set", f"<accept xmlns='{FRIENDS}' jid='alice@localhost'/>")
    await alice.hear("<friends", "state='friend'")

    tell(
        "4. Alice plays: her client says so, checked by the game's schema, and Bob sees it. So would "
        "Gajim, by the status."
    )
    await alice.ask(
        "set", f"<game xmlns='{PRESENCE}' id='chess'><state>{{\"mode\": \"blitz\"}}</state></game>"
    )
    await bob.hear("<presence", "blitz")

    tell("5. She invites him to her match, and he comes.")
    for player in (alice, bob):
        await player.ask("get", f"<invites xmlns='{INVITES}'/>")
    invite = (
        f"<invite xmlns='{INVITES}' to='bob@localhost' kind='match' target='m-17' game='chess' seconds='60'/>"
    )
    made = await alice.ask("set", invite)
    assert made is not None
    await bob.hear("<invite", "state='pending'")
    await bob.ask("set", f"<accept xmlns='{INVITES}' id='{made.get('id')}'/>")
    await alice.hear("<invite", "state='accepted'")

    tell(
        "6. The game's back end says that the match is ready: one call for up to 10,000 players (here by "
        "the command)."
    )
    for player in (alice, bob):
        await player.ask("set", f"<enable xmlns='{EVENTS}'/>")
    await server.command(
        "game-events push match/m-17 1 --to alice --to bob --payload".split(), '{"map": "rift"}'
    )
    for player in (alice, bob):
        await player.hear("<event", "match/m-17")

    tell("7. What they say goes through the game's lists of words, however it is written.")
    bob.say("<message to='alice@localhost' type='chat' id='1'><body>gg, you n 0 o b</body></message>")
    await alice.hear("<message", "<body>")
    bob.say("<message to='alice@localhost' type='chat' id='2'><body>CHEAP GOLD at my shop</body></message>")
    await bob.hear("<message", "type='error'")

    tell("8. A moderator mutes Bob for a minute. He is told so, and nobody hears him; he still hears Alice.")
    await server.command(
        "moderation sanction bob@localhost mute --minutes 1 --reason".split(), "Selling gold."
    )
    await bob.hear("<sanction", "Selling gold")
    bob.say("<message to='alice@localhost' type='chat' id='3'><body>hello?</body></message>")
    await bob.hear("<message", "<muted")
    alice.say("<message to='bob@localhost' type='chat' id='4'><body>Bob?</body></message>")
    await bob.hear("<message", "Bob?")
    if alice.has_heard("hello?"):
        raise SystemExit("Bob was heard")

    tell(
        "That was all. docs/game-protocol.md has every stanza, docs/operations.md (Games) every command "
        "and setting."
    )
    for player in (alice, bob):
        await player.disconnect(wait=SECONDS)


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="demo", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="xmppd-demo-") as folder:
        server = Server(Path(folder))
        try:
            server.start()
            asyncio.run(play(server))
        finally:
            server.stop()


main()
