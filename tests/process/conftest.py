"""A server process that tests start, signal and kill, and the smallest client there can be."""

import asyncio
import base64
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, XMLPullParser

import pytest
import pytest_asyncio
import stores
from tokens import Tokens

from xmppd import ns
from xmppd.admin.client import request

SECONDS = 60.0
"""How long anything may take on a busy machine."""

PASSWORD = "hunter2-is-secret"


class Client:
    """One stream over plain TCP. What arrives is parsed when it is asked for, and not read before.
    `was_told`: a stream error came.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.jid = ""
        self.is_over = False
        self.was_told = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._numbers = 0
        self._restart()

    def _restart(self) -> None:
        self._parser: XMLPullParser[Any] = XMLPullParser(("start", "end"))
        self._tokens = Tokens()
        self._depth = 0
        self._inbox: list[Element] = []

    async def connect(self, *, receive_buffer: int = 0) -> None:
        """Connect; nothing is sent yet."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        # With the smallest limit the stream stops reading as soon as something is there.
        self._reader, self._writer = await asyncio.open_connection(
            sock=sock, limit=2**16 if not receive_buffer else 1
        )

    def write(self, xml: str) -> None:
        """Send without waiting."""
        self._writer.write(xml.encode())

    async def send(self, xml: str) -> None:
        """Send, and wait while the server does not take it."""
        self.write(xml)
        await self._writer.drain()

    async def receive(self, name: str = "") -> Element:
        """The next element, or the next one of that local name; EOFError at the end of the connection."""
        async with asyncio.timeout(SECONDS):
            while True:
                while self._inbox:
                    found = self._inbox.pop(0)
                    if not name or found.tag.rpartition("}")[2] == name:
                        return found
                data = await self._reader.read(65536)
                if not data:
                    self.is_over = True
                    raise EOFError
                self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._parser.feed(self._tokens.whole(data))
        event: str
        tree: Element
        for event, tree in self._parser.read_events():
            self._depth += 1 if event == "start" else -1
            if event == "end" and self._depth == 1:
                self._inbox.append(tree)
                self.was_told = self.was_told or tree.tag == f"{{{ns.STREAM}}}error"

    async def open(self) -> Element:
        """Open a stream; its features."""
        self._restart()
        self.write(
            f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"
        )
        return await self.receive("features")

    async def authenticate(self, user: str, password: str = PASSWORD) -> Element:
        """Log in by PLAIN; the answer."""
        initial = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.write(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>")
        return await self.receive()

    async def login(self, user: str, *, presence: bool = True, resource: str = "") -> None:
        """Bind a resource, and be available."""
        await self.open()
        answer = await self.authenticate(user)
        assert answer.tag == f"{{{ns.SASL}}}success", answer.tag
        await self.open()
        wanted = f"<resource>{resource}</resource>" if resource else ""
        bound = await self.ask("set", f"<bind xmlns='{ns.BIND}'>{wanted}</bind>")
        self.jid = bound.findtext(f"{{{ns.BIND}}}bind/{{{ns.BIND}}}jid") or ""
        if presence:
            self.write("<presence/>")

    async def ask(self, kind: str, payload: str, to: str = "") -> Element:
        """Send an iq; its answer. Whatever comes before that is left in `others`."""
        self._numbers += 1
        id = f"ask-{self._numbers}"
        address = f" to='{to}'" if to else ""
        await self.send(f"<iq type='{kind}' id='{id}'{address}>{payload}</iq>")
        others = []
        while True:
            found = await self.receive()
            if found.tag.endswith("}iq") and found.get("id") == id:
                self._inbox[:0] = others
                return found
            others.append(found)

    async def ping(self) -> None:
        """Whatever was sent before has been dealt with."""
        answer = await self.ask("get", f"<ping xmlns='{ns.PING}'/>", to="localhost")
        assert answer.get("type") == "result"

    async def put_contact(self, jid: str, name: str) -> Element:
        """Set a roster item; the answer."""
        return await self.ask("set", f"<query xmlns='{ns.ROSTER}'><item jid='{jid}' name='{name}'/></query>")

    async def roster(self) -> list[tuple[str, str]]:
        """Address and name of every contact."""
        answer = await self.ask("get", f"<query xmlns='{ns.ROSTER}'/>")
        return [(item.get("jid", ""), item.get("name", "")) for item in answer[0]]

    async def pushed(self) -> list[tuple[str, str]]:
        """Address and name of every contact that was pushed since the last call."""
        await self.ping()
        pushes = [
            tree[0][0] for tree in self._inbox if tree.tag.endswith("}iq") and tree.get("type") == "set"
        ]
        self._inbox = []
        return [(item.get("jid", ""), item.get("name", "")) for item in pushes]

    async def bodies(self) -> list[str]:
        """The bodies of all messages received so far, offline ones included."""
        await self.ping()
        found = [
            tree.findtext(f"{{{ns.CLIENT}}}body") or ""
            for tree in self._inbox
            if tree.tag.endswith("}message")
        ]
        self._inbox = []
        return found

    async def end(self) -> str:
        """Read to the end of the connection; the condition of the stream error that came last, if any."""
        condition = ""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                tree = await self.receive()
                if tree.tag == f"{{{ns.STREAM}}}error":
                    condition = tree[0].tag.rpartition("}")[2]
        self.is_over = True
        return condition

    def hang_up(self) -> None:
        """Close the connection."""
        self._writer.close()

    def cut(self) -> None:
        """Drop the connection and whatever was not sent yet."""
        self._writer.transport.abort()


class Server:
    """`python -m xmppd serve` in a folder of its own; no TLS and any free port unless `settings` say so.

    What it writes to stderr is in `log_file`; what it tells the service manager comes out of `notified`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.file = folder / "xmppd.yaml"
        self.data = folder / "data"
        self.log_file = folder / "log"
        self.settings: dict[str, Any] = {
            "listen": {"c2s": [{"port": 0, "tls": "none"}]},
            "auth": {"plain_without_tls": True, "iterations": 4096},
        }
        self.engines = {} if "store" in settings else stores.engine_settings()
        self.configure({**self.engines, **settings})
        self.password = PASSWORD
        self.port = 0
        self.process: subprocess.Popen[bytes]
        self._clients: list[Client] = []
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.setblocking(False)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change some settings in the file."""
        for section, values in settings.items():
            self.settings[section] = {**self.settings.get(section, {}), **values}
        self.file.write_text(json.dumps(self.settings, indent=1))  # JSON is YAML

    def write_plugin(self, name: str, body: str) -> Path:
        """Put a plugin beside the configuration, which must name this folder; what its class contains."""
        file = self.folder / f"{name}.py"
        head = "import asyncio\n\nfrom xmppd.plugin import Plugin, iq_get\n\n\nclass Mine(Plugin):\n"
        file.write_text(f'"""A test\'s own."""\n\n{head}{textwrap.indent(textwrap.dedent(body), "    ")}')
        return file

    # its life

    def spawn(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Start a process and do not wait for it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
        environment |= {
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "HOME": str(self.folder),
            **(environ or {}),
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "xmppd", *(arguments or ("serve",))],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=prepare,  # noqa: PLW1509 - our threads only wait for processes
            )

    async def start(
        self,
        *arguments: str,
        descriptors: int = 0,
        environ: Mapping[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> None:
        """Start the server and wait until it says that it is ready."""

        def prepare() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        with contextlib.suppress(BlockingIOError):
            while self._manager.recv(4096):
                pass  # what an earlier process said
        self.spawn(*arguments, environ=environ, prepare=prepare if descriptors else None)
        ready = await self.notified(seconds)
        assert ready.startswith("READY=1\n"), ready
        self.port = int(ready.rpartition(":")[2])

    async def notified(self, seconds: float = SECONDS) -> str:
        """The next datagram to the service manager; AssertionError when the server ends without one."""
        said: list[bytes] = []

        def look() -> bool:
            with contextlib.suppress(BlockingIOError):
                said.append(self._manager.recv(4096))
            assert said or self.process.poll() is None, self.log
            return bool(said)

        await self.until(look, seconds)
        return said[0].decode()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self, seconds: float = SECONDS) -> int:
        """Wait for the end of the process; its exit code."""
        return await asyncio.to_thread(self.process.wait, seconds)

    async def stop(self) -> None:
        """SIGTERM, and a good end."""
        self.signal(signal.SIGTERM)
        assert await self.ended() == 0, self.log

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.ended()

    # what it does

    @property
    def log(self) -> str:
        """Everything it wrote."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def records(self, event: str = "") -> list[dict[str, Any]]:
        """The lines of the log, or those of one event."""
        records = [json.loads(line) for line in self.log.splitlines()]
        return [record for record in records if not event or record["event"] == event]

    async def logged(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for lines of one event."""
        await self.until(lambda: len(self.records(event)) >= count)
        return self.records(event)

    async def until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait for something that another process does."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.01)

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Run a command in the running server."""
        return request(self.data / "xmppd.sock", name, arguments, seconds=SECONDS)

    def run(self, *arguments: str) -> str:
        """Run a command as a person does; what it says."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
        command = [sys.executable, "-m", "xmppd", "--config", str(self.file), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def add(self, *users: str) -> None:
        """Make accounts."""
        for user in users:
            self.command("user add", account=f"{user}@localhost", password=PASSWORD)

    async def connect(self, *, receive_buffer: int = 0) -> Client:
        """A client that has said nothing yet."""
        client = Client(self.port)
        await client.connect(receive_buffer=receive_buffer)
        self._clients.append(client)
        return client

    async def login(
        self, user: str, *, presence: bool = True, resource: str = "", receive_buffer: int = 0
    ) -> Client:
        """A client with a session."""
        client = await self.connect(receive_buffer=receive_buffer)
        await client.login(user, presence=presence, resource=resource)
        return client

    def cpu_seconds(self) -> float:
        """What the process has burnt so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of memory in use."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process is gone")

    def close(self) -> None:
        """Leave nothing behind."""
        for client in self._clients:
            client.cut()
        if hasattr(self, "process") and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._manager.close()
        if self.engines:
            stores.drop_keyspaces(self.engines["store"]["cassandra"]["keyspace"])


MakeServer = Callable[..., Awaitable[Server]]


@contextlib.contextmanager
def making(parent: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers that are not started, and leaves nothing of them."""
    made: list[Server] = []

    def make(**settings: Any) -> Server:
        folder = parent / f"server-{len(made)}"
        folder.mkdir()
        made.append(Server(folder, settings))
        return made[-1]

    try:
        yield make
    finally:
        for server in made:
            server.close()
            print(server.log[-5000:])  # shown when the test failed


@pytest_asyncio.fixture
async def prepared(tmp_path: Path) -> AsyncIterator[Callable[..., Server]]:
    """Makes servers that are not started; settings are given by section."""
    with making(tmp_path) as make:
        yield make


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[..., Server]]:
    """The same for all tests of a module."""
    with making(tmp_path_factory.mktemp("servers")) as make:
        yield make


@pytest_asyncio.fixture
async def serve(prepared: Callable[..., Server]) -> MakeServer:
    """Makes running servers with the accounts alice, bob, carol and dave."""

    async def make(**settings: Any) -> Server:
        server = prepared(**settings)
        await server.start()
        server.add("alice", "bob", "carol", "dave")
        return server

    return make
