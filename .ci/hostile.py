"""Runs the hostile client against a server of its own: without TLS, then over STARTTLS.

    python .ci/hostile.py PATH/hostile.py

A case that fails is run once more by itself before it counts, because a busy machine can make one late; a
server that dies or ends badly counts at once. Closes with `N passed, N failed` and exits 1 after a failure.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUPS = "X,S,T,A,B,I,R,L,Z,G"
PASSWORDS = {"alice": "pw-one", "bob": "pw-two", "carol": "pw-canary", "dave": "pw-canary"}
VERDICT = re.compile(r"(PASS~?|FAIL|INFO|SKIP) +([A-Z]\d+) ")
CONFIG = """\
server:
  data_folder: {data}
listen:
  c2s:
    - {{port: {port}}}
tls:
  required: false
auth:
  plain_without_tls: true
plugins:
  enabled: [archive, blocking, disco, ping, version, time, last, vcard, private, offline]
log:
  level: warning
"""


@dataclass
class Run:
    """What one run of the tool showed: a verdict for each case, and what went wrong beside the cases."""

    verdicts: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        return [case for case, verdict in self.verdicts.items() if verdict == "FAIL"]


PROBE = """
from xml.parsers import expat
seen = []
parser = expat.ParserCreate()
parser.StartElementHandler = lambda name, attrs: seen.append(name)
for piece in (b"<a b='", *[b"x" * 2048] * 29, b"'>"):
    parser.Parse(piece, False)
raise SystemExit(not seen)
"""


def interpreter() -> str:
    """Who runs the tool: it gives its parser what comes, and some builds of expat keep a long token that came
    in pieces until much more has come.
    """
    for candidate in (sys.executable, *map(shutil.which, ("python3", "python"))):
        if candidate and subprocess.run([candidate, "-c", PROBE], check=False).returncode == 0:
            return candidate
    return sys.executable


def _xmppd(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "xmppd", *arguments, "--config", str(folder / "xmppd.yaml")]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def serving(run: Run) -> Iterator[tuple[int, int]]:
    """The port and pid of a fresh server with the four accounts; ending badly is one of the run's faults."""
    with tempfile.TemporaryDirectory(prefix="xmppd-hostile-") as name:
        folder, port = Path(name), _free_port()
        (folder / "xmppd.yaml").write_text(CONFIG.format(data=folder / "data", port=port))
        for user, password in PASSWORDS.items():
            add = _xmppd(folder, "user", "add", f"{user}@localhost", "--password-stdin", "--create")
            subprocess.run(add, input=password.encode(), check=True, stdout=subprocess.DEVNULL)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(_xmppd(folder, "serve"), stdout=log, stderr=log)
        try:
            _await_port(port, process)
            yield port, process.pid
        finally:
            status = _stop(process)
            if status != 0:
                run.faults.append(f"the server exited {status}")
                print((folder / "log").read_text()[-4000:], file=sys.stderr)


def _await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if process.poll() is not None:
            return
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def _stop(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def run_cases(tool: Path, starttls: str, only: str) -> Run:
    """The cases named in `only` against a fresh server."""
    run = Run()
    with serving(run) as (port, pid):
        command = [
            *(interpreter(), str(tool), "--port", str(port), "--pid", str(pid)),
            *("--starttls", starttls, "--only", only, "--patience", "2"),
            *(
                "--user",
                "alice",
                "--password",
                PASSWORDS["alice"],
                "--user2",
                "bob",
                "--password2",
                PASSWORDS["bob"],
            ),
            *("--canary-user", "carol", "--canary-user2", "dave", "--canary-password", PASSWORDS["carol"]),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as client:
            assert client.stdout is not None
            for line in client.stdout:
                found = VERDICT.match(line)
                if found:
                    run.verdicts[found[2]] = found[1]
                if found is None or found[1] == "FAIL":
                    print(line, end="", flush=True)
                if line.startswith("server does not answer"):
                    run.faults.append("the server died")
        if client.returncode not in (0, 1) or not run.verdicts:
            run.faults.append(f"the hostile client exited {client.returncode}")
    return run


def judge(tool: Path, starttls: str) -> tuple[int, list[str]]:
    """How many cases held, and what failed: cases that failed twice, and faults."""
    first = run_cases(tool, starttls, GROUPS)
    if not first.failed:
        return len(first.verdicts), first.faults
    print(f"once more: {','.join(first.failed)}", flush=True)
    second = run_cases(tool, starttls, ",".join(first.failed))
    failed = [case for case in first.failed if second.verdicts.get(case, "FAIL") == "FAIL"]
    return len(first.verdicts) - len(failed), failed + first.faults + second.faults


def main() -> int:
    """Both passes; 1 when something failed."""
    tool = Path(sys.argv[1]).resolve()
    os.chdir(ROOT)
    passed, failed = 0, []
    for starttls in ("no", "yes"):
        print(f"hostile client, STARTTLS: {starttls}", flush=True)
        try:
            held, broken = judge(tool, starttls)
        except subprocess.CalledProcessError as error:
            held, broken = 0, [str(error)]
        passed += held
        failed += [f"{what} (STARTTLS: {starttls})" for what in broken]
    if failed:
        print("failed:", ", ".join(failed))
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
