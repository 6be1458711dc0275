"""SIGHUP: configuration, certificates and plugins anew, sessions stay; after a mistake all is as before."""

import asyncio
import hashlib
import re
import shutil
import signal
import ssl
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from patience import PATIENCE

from xmppd.errors import CommandError
from xmppd.net.certificates import development_certificate

GREETER = '''"""Greets."""

from xml.etree.ElementTree import Element

from xmppd.plugin import Plugin, PluginConfig, Request, element, iq_get


class GreeterConfig(PluginConfig):
    """How."""

    word: str = "hello"


class Greeter(Plugin):
    """Answers a greeting."""

    Config = GreeterConfig

    @iq_get("{urn:xmppd:test}greet")
    def greet(self, request: Request) -> Element:
        return element("{urn:xmppd:test}greet", None, f"%s {self.config.word}")
'''
GREET = "<greet xmlns='urn:xmppd:test'/>"


async def greeting(client):
    return (await client.ask("get", GREET, to="localhost"))[0].text


async def hang_up(server):
    """SIGHUP; until it is dealt with."""
    server.signal(signal.SIGHUP)
    said = (await server.notified()).split("\n")
    assert said[0] == "RELOADING=1"
    name, _, microseconds = said[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert abs(time.monotonic() - int(microseconds) / 1e6) < PATIENCE
    assert await server.notified() == "READY=1"


async def certificate_at(port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_limits_and_log_level(serve):
    server = await serve(limits={"sessions_per_account": 1, "connections": 3}, log={"level": "info"})
    alice = await server.login("alice")
    crowd = [await server.connect() for _ in range(3)]
    assert await crowd[-1].end() == "resource-constraint"
    crowd[-1].hang_up()
    server.configure({"limits": {"connections": 0, "sessions_per_account": 2}, "log": {"level": "warning"}})
    before = len(server.records("login"))
    await hang_up(server)
    assert len([await server.login("alice"), await server.login("bob")]) == 2
    await alice.ping()
    assert len(server.records("login")) == before, "logins are told at the level info"
    server.configure({"log": {"level": "debug"}})
    await hang_up(server)
    await server.login("bob")
    await server.logged("login", before + 1)


@pytest.mark.asyncio
async def test_certificates(prepared, free_ports):
    server = prepared()
    first = development_certificate(server.folder / "first", ["localhost"])
    second = development_certificate(server.folder / "second", ["localhost"])
    (port,) = free_ports(1)
    listeners = [{"port": port, "tls": "direct"}, {"port": 0, "tls": "none"}]
    pair = {"certificate": str(first.certificate), "key": str(first.key)}
    server.configure({"listen": {"c2s": listeners}, "tls": {"certificates": {"*": pair}}})
    await server.start()
    server.add("alice")
    alice = await server.login("alice")
    shown = await certificate_at(port)
    assert shown == ssl.PEM_cert_to_DER_cert(first.certificate.read_text())

    first.key.write_text("garbage")  # half of a renewal
    await hang_up(server)
    (refused,) = await server.logged("reload-refused")
    assert str(first.key) in refused["problem"]
    assert await certificate_at(port) == shown

    shutil.copy(second.key, first.key)
    shutil.copy(second.certificate, first.certificate)
    await hang_up(server)
    assert await certificate_at(port) == ssl.PEM_cert_to_DER_cert(second.certificate.read_text()) != shown

    server.configure({"tls": {"certificates": {}}})
    await hang_up(server)
    own = (server.data / "development.crt").read_text()
    assert await certificate_at(port) == ssl.PEM_cert_to_DER_cert(own)
    await alice.ping()
    assert not alice.is_over


@pytest.mark.asyncio
async def test_plugins(prepared):
    server = prepared()
    server.configure({"plugins": {"folders": [str(server.folder)], "enabled": ["greeter", "ping"]}})
    file = server.folder / "greeter.py"
    file.write_text(GREETER % "first")
    await server.start()
    server.add("alice")
    alice = await server.login("alice")
    assert await greeting(alice) == "first hello"

    file.write_text(GREETER % "second")
    await hang_up(server)
    assert await greeting(alice) == "second hello"

    server.configure({"plugins": {"config": {"greeter": {"word": "servus"}}}})
    await hang_up(server)
    assert await greeting(alice) == "second servus"

    server.configure({"plugins": {"enabled": ["ping"]}})
    await hang_up(server)
    assert (await alice.ask("get", GREET, to="localhost")).get("type") == "error"
    await alice.ping()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("limits:\n  depth: 64\n  stanza_rats: 5\n", r"xmppd\.yaml:3:3: limits\.stanza_rats: .*stanza_rate"),
        ("limits:\n  depth: [\n", r"xmppd\.yaml:\d+:\d+: not valid YAML"),
        ("plugins:\n  enabled: [ping, dosco]\n", r"xmppd\.yaml:2:19: .*dosco.*disco"),
        ("plugins:\n  enabled: [greeter]\n  folders: [.]\n", r"greeter\.py: .*SyntaxError"),
        (
            "plugins:\n  folders: [.]\n  enabled: [greeter2]\n  config:\n    greeter2:\n      ward: x\n",
            r"xmppd\.yaml:6:7: plugins\.config\.greeter2\.ward: .*word",
        ),
    ],
)
async def test_a_mistake_keeps_everything(serve, text, where):
    server = await serve(limits={"connections": 2}, plugins={"enabled": ["ping"]})
    alice = await server.login("alice")
    (server.folder / "greeter.py").write_text(GREETER % "x" + "!")
    (server.folder / "greeter2.py").write_text(GREETER % "x")
    server.file.write_text(text)
    await hang_up(server)
    problems = [record["problem"] for record in await server.logged("reload-refused")]
    assert len(problems) == 1
    assert re.search(where, problems[0]), problems
    assert not server.records("reloaded")
    await alice.ping()
    await server.connect()
    assert await (await server.connect()).end() == "resource-constraint", "the old limit must hold"
    assert [row["name"] for row in server.command("plugin list")] == ["ping"], "the old list must hold"
    assert server.command("plugin reload") == {"reloaded": []}, "nothing has changed"


@pytest.mark.asyncio
async def test_all_mistakes_are_told(serve):
    server = await serve()
    server.file.write_text("limits:\n  depth: deep\nsession: {}\n")
    await hang_up(server)
    problems = [record["problem"] for record in await server.logged("reload-refused", 2)]
    assert [re.search(r"yaml:(\d+:\d+)", problem)[1] for problem in problems] == ["2:10", "3:1"]


@pytest.mark.asyncio
async def test_what_needs_a_restart_is_told_until_then(serve):
    server = await serve()
    port = server.port
    server.configure(
        {
            "server": {"domains": ["elsewhere.example"], "data_folder": "other", "drain_seconds": 1},
            "listen": {"c2s": [{"port": 0, "tls": "none"}, {"port": 0, "tls": "none"}]},
            "cluster": {"seeds": ["127.0.0.1:5299"]},
        }
    )
    for count in (1, 2):
        await hang_up(server)
        told = (await server.logged("restart-needed", count))[-1]
        assert told["keys"] == "server.domains,server.data_folder,listen,cluster"
    assert server.port == port
    await (await server.login("alice")).ping()
    assert not (server.folder / "other").exists()


@pytest.mark.asyncio
async def test_many_at_once(serve):
    server = await serve(plugins={"enabled": ["ping", "disco", "offline"]})
    alice = await server.login("alice")
    for _ in range(5):
        server.signal(signal.SIGHUP)
        await alice.ping()
    await server.logged("reloaded")
    assert server.command("plugin reload") == {"reloaded": []}, (
        "it waits for its turn, and nothing has changed"
    )
    await alice.ping()
    assert [row["name"] for row in server.command("plugin list")] == ["ping", "disco", "offline"]
    assert not [record for record in server.records() if record["level"] == "error"]


@pytest.mark.asyncio
async def test_certificates_about_to_end_are_warned_of(prepared):
    server = prepared()
    soon = development_certificate(server.folder, ["localhost"], now=lambda: time.time() - 360 * 86400)
    pair = {"certificate": str(soon.certificate), "key": str(soon.key)}
    server.configure({"tls": {"certificates": {"*": pair}}})
    await server.start()
    (warning,) = await server.logged("certificate-expires")
    assert warning["file"] == str(soon.certificate) and warning["days"] in (4, 5)


STARTS = """
from xmppd.plugin import PUBLIC, Counter, Plugin, route

class Starts(Plugin):
    '''Counts how often it was started.'''
    starts = Counter("Starts.")

    async def start(self):
        self.starts.inc()

    @route("GET", "/starts", scope="look")
    def show(self, request):
        return self.starts.value
"""


def asked(port: int, token: str) -> tuple[int, str]:
    """What is served by HTTP."""
    request = Request(f"http://127.0.0.1:{port}/starts", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, ""


@pytest.mark.asyncio
async def test_http_stays_open_and_a_certificate_starts_no_plugin_again(prepared, free_ports):
    server = prepared()
    (port,) = free_ports(1)

    def tokens(secret: str) -> dict[str, object]:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return {"tokens": [{"name": "tests", "sha256": digest, "scopes": ["look"]}]}

    (server.folder / "starts.py").write_text(STARTS)
    server.configure(
        {
            "listen": {"c2s": [{"port": 0, "tls": "none"}], "http": {"port": port}},
            "http": tokens("one"),
            "plugins": {"enabled": ["starts"], "folders": ["."]},
        }
    )
    await server.start()
    assert await asyncio.to_thread(asked, port, "one") == (200, "1")
    pair = development_certificate(server.folder / "new", ["localhost"])
    renewed = {"certificate": str(pair.certificate), "key": str(pair.key)}
    server.configure({"tls": {"certificates": {"*": renewed}}, "http": tokens("two")})
    await hang_up(server)
    assert await asyncio.to_thread(asked, port, "one") == (401, "")
    assert await asyncio.to_thread(asked, port, "two") == (200, "1")
    (server.folder / "starts.py").write_text(STARTS + "\n# changed\n")
    await hang_up(server)
    assert await asyncio.to_thread(asked, port, "two") == (200, "2")
    assert server.command("status")["metrics"] == {"starts_starts": 2}


@pytest.mark.asyncio
async def test_commands_show_compare_and_reload_the_configuration(prepared):
    server = prepared()
    server.configure({"limits": {"name_bytes": 200}})
    await server.start()
    [row] = server.command("config show", section="limits.name_bytes")
    assert (row["value"], "xmppd.yaml:" in row["origin"]) == (200, True)
    assert server.command("config diff") == []
    server.configure({"limits": {"name_bytes": 300}})
    [row] = server.command("config diff")
    assert (row["running"], row["file"]) == (200, 300)
    done = await asyncio.to_thread(server.command, "config reload")
    assert done["reloaded"] is True
    assert server.command("config diff") == ([] if row["needs"] == "reload" else [row])
    server.configure({"limits": {"name_bytes": "many"}})
    with pytest.raises(CommandError, match=r"limits\.name_bytes: must be"):
        await asyncio.to_thread(server.command, "config reload")
    assert server.command("config show", section="limits.name_bytes")[0]["value"] in (200, 300)
