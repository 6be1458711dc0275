"""What the engines are made of: Debian's packages, and Cassandra's jars by Maven into a cache."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engines.errors import EngineError

CASSANDRA = "5.0.8"
JAMM = "0.4.0"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
JAVA_VERSIONS = ("17", "11", "21")
"""Those on which Cassandra 5.0 runs, the better first. Its makers do not promise the last one."""
JAVA_PACKAGES = ("openjdk-17-jdk-headless", "openjdk-21-jdk-headless")
"""Debian 12 has the first, Debian 13 the second."""
SETUP = Path(__file__).resolve().parents[2] / "_setup"
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>xmppd</groupId>
  <artifactId>engines</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>{CASSANDRA}</version>
    </dependency>
    <dependency>
      <groupId>com.github.jbellis</groupId><artifactId>jamm</artifactId><version>{JAMM}</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder() -> Path:
    """Where everything is kept that outlives a checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "xmppd", "engines")


def redis_server() -> Path:
    """The program `redis-server`; installed when it is missing."""
    return _have(lambda: _program("redis-server"), ("redis-server",), "redis-server")


def java() -> Path:
    """A program `java` on which Cassandra runs; installed when there is none."""
    return _have(_find_java, JAVA_PACKAGES, f"Java {' or '.join(JAVA_VERSIONS)}")


def java_version(program: Path) -> str | None:
    """Its major version; None for what is no Java."""
    worked, said = _run([program, "-version"])
    found = re.search(r'version "(\d+)', said)
    return found[1] if worked and found else None


def cassandra_jars() -> Path:
    """The folder of Cassandra's jars; fetched when it is not there.

    It gets its name when it is complete, so one that has the name is whole. Of two callers one fetches.
    """
    cache = cache_folder()
    jars = cache / f"cassandra-{CASSANDRA}"
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        if not jars.is_dir():
            with tempfile.TemporaryDirectory(
                prefix="fetching-", dir=cache, ignore_cleanup_errors=True
            ) as work:
                _fetch(Path(work)).rename(jars)
    return jars


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, no other process holds this lock."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def last_lines(text: str, count: int = 15) -> str:
    """The end of a log, indented."""
    return "\n".join(f"    {line}" for line in text.splitlines()[-count:])


def _fetch(work: Path) -> Path:
    maven = _have(lambda: _program("mvn"), ("maven",), "Maven")
    (work / "pom.xml").write_text(POM)
    jars = work / "jars"
    command: list[str | Path] = [
        *(maven, "-q", "-B", "-Dstyle.color=never", "--strict-checksums", "-f", work / "pom.xml"),
        *(f"-Dmaven.repo.local={work / 'repository'}", f"{PLUGIN}:copy-dependencies"),
        *(f"-DoutputDirectory={jars}", "-DincludeScope=runtime"),
    ]
    worked, said = _run(command, {**os.environ, "JAVA_HOME": str(java().parents[1])})
    if not worked or not (jars / f"cassandra-all-{CASSANDRA}.jar").exists():
        raise EngineError(f"Maven could not fetch Cassandra {CASSANDRA}:\n{last_lines(said)}")
    return jars


def _run(command: Sequence[str | Path], environ: Mapping[str, str] = os.environ) -> tuple[bool, str]:
    """Whether a command ended well, within 15 minutes, and all it said."""
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return done.returncode == 0, done.stdout


def _have(find: Callable[[], Path | None], packages: Sequence[str], what: str) -> Path:
    """What `find` finds, after installing the first package that there is when it finds nothing."""
    if found := find():
        return found
    said = ""
    for package in packages:
        print(f"installing {package}", file=sys.stderr, flush=True)
        _, said = _run(["bash", "-c", '. "$0" && apt_install "$1"', SETUP, package])
        if found := find():
            return found
    names = " or ".join(packages)
    raise EngineError(
        f"{what} is missing: install it (Debian: apt-get install {names})\n{last_lines(said)}".rstrip()
    )


def _program(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _find_java() -> Path | None:
    """The first of JAVA_HOME, the machine's and PATH that fits; the default of a machine is often too new."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    for version in JAVA_VERSIONS:
        homes += sorted(Path("/usr/lib/jvm").glob(f"*{version}*"))
    candidates = [home / "bin" / "java" for home in homes]
    candidates += [path.resolve() for path in [_program("java")] if path]
    return next((path for path in candidates if java_version(path) in JAVA_VERSIONS), None)
