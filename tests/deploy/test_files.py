"""What is in deploy/ can be used as it is: files that are whole, and agree with each other and the server."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import BOARD, DEPLOY, Strict, alerts, documents, panels

from xmppd import config

ROOT = DEPLOY.parent
OPERATIONS = ROOT / "docs" / "operations.md"
YAML = sorted(DEPLOY.rglob("*.yaml"))
KUBERNETES = DEPLOY / "kubernetes" / "xmppd.yaml"
COMPOSE = DEPLOY / "docker" / "compose.yaml"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
UNIT = DEPLOY / "systemd" / "xmppd.service"


def complaints(text: str) -> Iterator[str]:
    """What is ugly or doubtful in YAML."""
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield "must end with one line end"
    for number, line in enumerate(text.split("\n"), 1):
        if "\t" in line or line != line.rstrip():
            yield f"{number}: has a tab, or space at its end"
        if len(line) > 150:
            yield f"{number}: is too long"
        if re.search(r":\s+(yes|no|on|off)\s*$", line):
            yield f"{number}: is a truth value in YAML 1.1 and text in 1.2"


@pytest.mark.parametrize("file", YAML, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_yaml_is_clean(file: Path) -> None:
    assert list(complaints(file.read_text(encoding="utf-8"))) == []
    assert all(document is not None for document in documents(file))


@pytest.mark.parametrize("text", ["a: 1", "a: yes\n", "a: 1 \n", "\ta: 1\n", "a: 1\n\n"])
def test_what_is_not_is_found(text: str) -> None:
    assert list(complaints(text))


def test_a_key_that_is_there_twice_is_found() -> None:
    with pytest.raises(yaml.YAMLError):
        yaml.load("a: {b: 1, b: 2}\n", Strict)


@pytest.mark.parametrize("which", ["docker", "kubernetes"])
def test_the_configuration_is_one(which: str, tmp_path: Path) -> None:
    if which == "docker":
        file = DEPLOY / "docker" / "xmppd.yaml"
    else:
        file = tmp_path / "xmppd.yaml"
        file.write_text(of_kind("ConfigMap")["data"]["xmppd.yaml"])
    found = config.load(file, {})
    assert found.listen.http is not None
    assert found.http.metrics == "open"


# Kubernetes


def of_kind(kind: str, name: str = "xmppd") -> dict[str, Any]:
    return next(it for it in documents(KUBERNETES) if it["kind"] == kind and it["metadata"]["name"] == name)


def test_probes_ask_what_is_served_at_ports_that_are_there(tmp_path: Path) -> None:
    template = of_kind("StatefulSet")["spec"]["template"]
    pod = template["spec"]
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (tmp_path / "xmppd.yaml").write_text(of_kind("ConfigMap")["data"]["xmppd.yaml"])
    found = config.load(tmp_path / "xmppd.yaml", {})
    assert ports["http"] == found.listen.http.port
    assert [ports["c2s"], ports["c2s-tls"]] == [listener.port for listener in found.listen.c2s]
    assert ports["nodes"] == int(found.cluster.listen.rpartition(":")[2])
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    asked = {probe: container[probe]["httpGet"] for probe in probes}
    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {get["port"] for get in asked.values()} == {"http"}
    for service in ("xmppd", "xmppd-nodes"):
        spec = of_kind("Service", service)["spec"]
        assert {port["targetPort"] for port in spec["ports"]} <= set(ports)
        assert spec["selector"].items() <= template["metadata"]["labels"].items()
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    # A node has time to drain: what the other containers of the world wait for comes first.
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= pause + found.server.drain_seconds + 5


# containers


def test_the_image_is_made_of_what_is_there() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    assert {step[0] for step in steps} <= {
        "FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER",
        "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    copied = [name for step in steps if step[0] == "COPY" and "--from" not in step[1] for name in step[1:-1]]
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored
    version = re.search(r"^uv_version=(\S+)", (ROOT / "scripts" / "_setup").read_text(), re.MULTILINE)
    assert version and f"uv=={version[1]}" in DOCKERFILE.read_text(encoding="utf-8")
    assert ["USER", "10001"] in steps
    assert of_kind("StatefulSet")["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 10001


def test_what_compose_mounts_is_there() -> None:
    compose = documents(COMPOSE)[0]
    volumes = set(compose["volumes"])
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in volumes or (COMPOSE.parent / source).is_file(), source
        for needed in service.get("depends_on", ()):
            assert "healthcheck" in compose["services"][needed]
    found = config.load(DEPLOY / "docker" / "xmppd.yaml", {})
    grace = int(compose["services"]["server"]["stop_grace_period"].removesuffix("s"))
    assert grace >= found.server.drain_seconds + 5
    targets = documents(DEPLOY / "prometheus" / "prometheus.yaml")[0]["scrape_configs"][0]["static_configs"]
    assert targets == [{"targets": [f"server:{found.listen.http.port}"]}]


# systemd


def test_the_unit_is_one(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    assert program is not None, "scripts/test installs systemd-analyze"
    unit = tmp_path / "xmppd.service"
    text = UNIT.read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/xmppd/bin/xmppd", "/bin/true"))
    environ = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        [program, "verify", "--man=no", unit], capture_output=True, text=True, check=False, env=environ
    )
    about = [line for line in done.stderr.splitlines() if "xmppd.service" in line]
    assert (done.returncode, about) == (0, []), done.stderr
    assert int(re.search(r"TimeoutStopSec=(\d+)", text)[1]) >= config.Config().server.drain_seconds + 5


# alerts and board


def test_rules_say_what_they_must() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}


def outages() -> list[list[str]]:
    """The rows of the table of what fails."""
    _, _, behind = OPERATIONS.read_text(encoding="utf-8").partition("\n## When something fails\n")
    rows = [line for line in behind.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[1:]]


def test_every_outage_has_its_alert() -> None:
    known = {rule["alert"] for rule in alerts()}
    rows = outages()
    assert len(rows) > 10
    for row in rows:
        named = set(re.findall(r"`(Xmppd\w+)`", row[-1]))
        assert named, row[0]
        assert named <= known, row[0]
    text = OPERATIONS.read_text(encoding="utf-8")
    assert [name for name in known if f"`{name}`" not in text] == []


def test_the_board_is_whole() -> None:
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert variables == {"datasource", "instance"}
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
