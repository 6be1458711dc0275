"""What others find wrong with deploy/: a linter of images, the schemas of Kubernetes and of Compose."""

import subprocess
from pathlib import Path

import pytest
from deployed import DEPLOY

TOOLS = DEPLOY.parent / ".tools" / "deploy" / "venv" / "bin"
COMPOSE = (
    "import compose_spec, sys; print(compose_spec.PyCompose.from_yaml(sys.stdin.read()).service_names())"
)
KUBERNETES = DEPLOY / "kubernetes" / "xmppd.yaml"
VERSIONS = ("1.26", "1.31", "1.37")
"""Of Kubernetes."""


@pytest.fixture(autouse=True)
def installed() -> None:
    """What is missing is a failure."""
    if not TOOLS.is_dir():
        pytest.fail("the linters are not installed: scripts/test installs them")


def said(*words: str | Path, text: str | None = None) -> tuple[int, str]:
    """The exit code of a linter, and its words."""
    command = [TOOLS / words[0], *words[1:]]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_image() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert said("hadolint", "--no-color", "-", text=text) == (0, "")
    code, words = said("hadolint", "--no-color", "-", text=text.replace("USER 10001", "USER root"))
    assert (code, "DL3002" in words) == (1, True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests(version: str, tmp_path: Path) -> None:
    code, words = said("kubernetes-validate", "--strict", "-k", version, KUBERNETES)
    assert code == 0, words
    spoilt = tmp_path / "spoilt.yaml"
    text = KUBERNETES.read_text(encoding="utf-8")
    spoilt.write_text(text.replace("readinessProbe:", "readynessProbe:"))
    code, words = said("kubernetes-validate", "--strict", "-k", version, spoilt)
    assert (code, "readynessProbe" in words) == (1, True)


def test_the_services_of_compose() -> None:
    text = (DEPLOY / "docker" / "compose.yaml").read_text(encoding="utf-8")
    code, words = said("python", "-c", COMPOSE, text=text)
    assert code == 0, words
    assert all(f"'{name}'" in words for name in ("server", "cassandra", "redis", "prometheus"))
    for right, wrong in (("stop_grace_period: 30s", "stop_grace_period: soon"), ("restart: ", "restat: ")):
        assert said("python", "-c", COMPOSE, text=text.replace(right, wrong))[0] != 0, wrong
