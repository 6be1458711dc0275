"""Several nodes behind one port: what a worker has of its own, what they cannot do, who is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from virtualtime import VirtualLoop

from xmppd import workers
from xmppd.config import Config, made_of
from xmppd.errors import CommandError
from xmppd.serve import RESTART
from xmppd.workers import BAD_CONFIG, Parent, Worker, refuse_alone

LISTEN: Mapping[str, Any] = {"listen": "10.0.0.1:5290"}


def config(folder: Path, port: int = 5222, http: Mapping[str, int] | None = None, **cluster: Any) -> Config:
    return made_of(
        {
            "server": {"data_folder": str(folder)},
            "listen": {"c2s": [{"port": port}], **({"http": http} if http else {})},
            "cluster": cluster,
        }
    )


@pytest.mark.parametrize(
    ("given", "advertised"),
    [({}, None), ({"advertise": "[2001:db8::1]:7000"}, "[2001:db8::1]:7002")],
)
def test_each_has_a_folder_and_a_port_of_its_own(
    tmp_path: Path, given: Mapping[str, Any], advertised: str | None
) -> None:
    worker = Worker(config(tmp_path, **LISTEN, **given), 2)
    environ = worker.environ
    assert environ["XMPPD__SERVER__DATA_FOLDER"] == str(tmp_path / "worker-2")
    assert environ["XMPPD__CLUSTER__LISTEN"] == "10.0.0.1:5292"
    assert environ.get("XMPPD__CLUSTER__ADVERTISE") == advertised
    assert environ["XMPPD__LISTEN__REUSE_PORT"] == environ["XMPPD__CLUSTER__UNIX"] == "true"
    assert worker.socket == tmp_path / "worker-2" / "xmppd.sock"
    worker.notices.close()


def test_each_has_a_port_for_who_watches_it(tmp_path: Path) -> None:
    watched = config(tmp_path, http={"port": 5280, "own_port": 5281}, **LISTEN)
    for place in (0, 3):
        worker = Worker(watched, place)
        assert worker.environ["XMPPD__LISTEN__HTTP__OWN_PORT"] == str(5281 + place)
        worker.notices.close()
    refuse_alone(watched, 2)
    wrong = config(tmp_path, http={"port": 5280, "own_port": 0}, **LISTEN)
    with pytest.raises(CommandError, match="none can be 0"):
        refuse_alone(wrong, 2)


def test_what_they_cannot_do_is_refused(tmp_path: Path) -> None:
    refuse_alone(config(tmp_path, **LISTEN), 1)
    with pytest.raises(CommandError, match="1 or more"):
        refuse_alone(config(tmp_path, **LISTEN), 0)
    with pytest.raises(CommandError, match=r"cluster\.listen has to name a port"):
        refuse_alone(config(tmp_path), 2)
    with pytest.raises(CommandError, match="none can be 0"):
        refuse_alone(config(tmp_path, port=0, **LISTEN), 2)


class Lives:
    """A worker whose lives last so many seconds each, and end with these codes. `starts`: when it began."""

    place = 0
    status = ""

    def __init__(self, *lives: tuple[float, int]) -> None:
        self.starts: list[float] = []
        self.code = 0
        self._lives = list(lives)

    async def live(self, stopping: asyncio.Event) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        seconds, self.code = self._lives.pop(0)
        await asyncio.sleep(seconds)


def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: Lives) -> list[float]:
    """When a worker is started by its parent, until it is left alone."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def work() -> None:
            monkeypatch.setattr(workers.time, "monotonic", asyncio.get_running_loop().time)
            parent = Parent(config(tmp_path, **LISTEN), 1)
            monkeypatch.setattr(parent, "_point", lambda: None)
            parent._workers[0].notices.close()
            await parent._keep(lives)  # type: ignore[arg-type]

        runner.run(work())
    return lives.starts


def test_one_that_dies_is_started_again_after_pauses_that_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = [(0.0, -9)] * 8
    assert kept(tmp_path, monkeypatch, Lives(*dying, (0.0, 0))) == [
        0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5,
    ]  # fmt: skip


def test_one_that_lived_well_counts_as_if_it_had_never_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = Lives((0, 1), (0, 1), (60, 1), (0, 0))
    assert kept(tmp_path, monkeypatch, lives) == [0, 0.5, 1.5, 62]


def test_one_that_is_to_restart_does_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept(tmp_path, monkeypatch, Lives((5, RESTART), (5, RESTART), (5, 0))) == [0, 5, 10]


@pytest.mark.parametrize("code", [0, BAD_CONFIG])
def test_one_that_leaves_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert kept(tmp_path, monkeypatch, Lives((5, code))) == [0]
