"""Nodes in network namespaces of their own, and the net between them: packets that are lost, in one direction
or both, or late; for `nemesis.py`. Linux, and the right to make namespaces.

Each namespace has a tun device, and this process has one too. What is routed into one comes here, and goes on
to where it is addressed: so both ends are the kernel's own TCP, whatever queueing disciplines it has.
"""

import asyncio
import contextlib
import fcntl
import os
import random
import struct
import subprocess

NET = "10.77.{}.{}"
HERE = 254
"""The host number of this process in that net; nodes are 1 and so on."""
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
PACKET = 65536
RUSH = 64
"""Packets that are read from one device before others have their turn."""


class Wires:
    """A net of `count` nodes and this process. Ways go from one number to another: nodes from 1, or HERE."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self._chance = chance
        self._net = os.getpid() % 200 + 1
        self._loss: dict[tuple[int, int], float] = {}
        self._late: dict[tuple[int, int], float] = {}
        self._devices: dict[int, int] = {}
        self._spaces: list[str] = []
        self.passed = self.lost = 0
        try:
            for number in (HERE, *range(1, count + 1)):
                self._make(number)
        except BaseException:
            self.close()
            raise

    def address(self, number: int) -> str:
        """Where a node is."""
        return NET.format(self._net, number)

    def enter(self, number: int) -> list[str]:
        """What goes before a command that is to run where a node is."""
        return ["nsenter", f"--net=/run/netns/{self._space(number)}", "--"]

    def _space(self, number: int) -> str:
        return f"nemesis-{os.getpid()}-{number}"

    def _make(self, number: int) -> None:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._devices[number] = device
        name = f"nem{os.getpid() % 1_000_000}x{number}"
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN_NO_PI))
        at: list[str] = []
        if number != HERE:
            space = self._space(number)
            call("ip", "netns", "add", space)
            self._spaces.append(space)
            call("ip", "link", "set", name, "netns", space)
            at = ["-n", space]
            call("ip", *at, "link", "set", "lo", "up")
        call("ip", *at, "addr", "add", f"{self.address(number)}/24", "dev", name)
        call("ip", *at, "link", "set", name, "up")

    def start(self) -> None:
        """Carry packets from now on, on the loop that runs."""
        for number, device in self._devices.items():
            asyncio.get_running_loop().add_reader(device, self._read, number, device)

    def close(self) -> None:
        """Take everything down that was made."""
        for device in self._devices.values():
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(device)
            os.close(device)
        self._devices = {}
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        self._spaces = []

    # what is wrong with the net

    def lose(self, one: int, other: int, share: float = 1.0) -> None:
        """A share of the packets from one to the other is lost."""
        self._loss[one, other] = share

    def delay(self, one: int, other: int, seconds: float) -> None:
        """Packets from one to the other are late."""
        self._late[one, other] = seconds

    def heal(self) -> None:
        """A good net."""
        self._loss, self._late = {}, {}

    def _read(self, number: int, device: int) -> None:
        for _ in range(RUSH):
            try:
                packet = os.read(device, PACKET)
            except OSError:  # nothing more for now
                return
            if packet[0] >> 4 == 4:
                self._carry((number, packet[19]), packet)

    def _carry(self, way: tuple[int, int], packet: bytes) -> None:
        share = self._loss.get(way, 0.0)
        if share and self._chance.random() < share:
            self.lost += 1
            return
        self.passed += 1
        if late := self._late.get(way, 0.0):
            asyncio.get_running_loop().call_later(late, self._write, way[1], packet)
        else:
            self._write(way[1], packet)

    def _write(self, number: int, packet: bytes) -> None:
        if (device := self._devices.get(number)) is not None:
            with contextlib.suppress(OSError):  # a device that is full, or down: lost, as on any net
                os.write(device, packet)


def call(*command: str) -> None:
    """Run a command of `ip`. RuntimeError with what it said."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
