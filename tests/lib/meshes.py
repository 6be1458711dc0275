"""A mesh that keeps trunks by name and notes what it is told, for tests of what is below it; and its time."""

import asyncio

from xmppd.cluster.connection import Links
from xmppd.cluster.hello import Hello

SECRET = b"the secret of all nodes"


class Time:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 0.0
        self._alarms = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        """Wait until so much time has passed."""
        alarm = asyncio.get_running_loop().create_future()
        self._alarms.append((self.now + seconds, alarm))
        await alarm

    def call_later(self, seconds, do):
        """Have something done when so much time has passed."""
        alarm = asyncio.get_running_loop().create_future()
        self._alarms.append((self.now + seconds, alarm))
        alarm.add_done_callback(lambda done: None if done.cancelled() else do())
        return alarm

    def advance(self, seconds):
        """Let time pass."""
        self.now += seconds
        for end, alarm in self._alarms:
            if end <= self.now + 1e-9 and not alarm.done():
                alarm.set_result(None)
        self._alarms = [(end, alarm) for end, alarm in self._alarms if not alarm.done()]


class NotingMesh:
    """`events`: all that it was told, in order. `wanting`: what wants whoever was met."""

    def __init__(self, name, clock, *, incarnation=1, addresses=(), secrets=(SECRET,)):
        self.name = name
        self.incarnation = incarnation
        self.addresses = tuple(addresses or (name,))
        self.links = Links(self, clock, secrets)
        self.trunks = {}
        self.connections = {}
        self.events = []
        self.frames = []
        self.wanting = None
        self.raises = None

    def hello_of(self, name):
        return Hello(
            name=self.name,
            incarnation=self.incarnation,
            trunk=self.trunks.get(name, 0),
            addresses=self.addresses,
        )

    def met(self, peer):
        self.events.append(("met", peer.name))
        if self.wanting is not None:
            self.wanting.want(peer.name, peer.addresses)

    def connected(self, greeting, connection):
        self.events.append(("resumed" if greeting.is_resumed else "connected", greeting.peer.name))
        self.trunks[greeting.peer.name] = greeting.trunk
        self.connections[greeting.peer.name] = connection

    def received(self, connection, frame):
        if self.raises is not None:
            raise self.raises
        self.frames.append((connection.name, frame))

    def disconnected(self, connection, reason):
        self.events.append(("disconnected", connection.name, reason))
        if self.connections.get(connection.name) is connection:
            del self.connections[connection.name]

    def failed(self, name, reason, *, is_refused):
        self.events.append(("failed", name, reason, is_refused))

    def told(self, *kinds):
        """The events of these kinds."""
        return [event for event in self.events if event[0] in kinds]
