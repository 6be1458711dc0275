"""Several nodes behind one port: what a worker has of its own, and what they cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from xmppd.config import Config, made_of
from xmppd.errors import CommandError
from xmppd.workers import Worker, refuse_alone

LISTEN: Mapping[str, Any] = {"listen": "10.0.0.1:5290"}


def config(folder: Path, port: int = 5222, **cluster: Any) -> Config:
    return made_of(
        {
            "server": {"data_folder": str(folder)},
            "listen": {"c2s": [{"port": port}]},
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


def test_what_they_cannot_do_is_refused(tmp_path: Path) -> None:
    refuse_alone(config(tmp_path, **LISTEN), 1)
    with pytest.raises(CommandError, match="1 or more"):
        refuse_alone(config(tmp_path, **LISTEN), 0)
    with pytest.raises(CommandError, match=r"cluster\.listen has to name a port"):
        refuse_alone(config(tmp_path), 2)
    with pytest.raises(CommandError, match="none can be 0"):
        refuse_alone(config(tmp_path, port=0, **LISTEN), 2)
