"""Whatever `scripts/bench/http_hostile` says, the server's HTTP serves others."""

import os
import subprocess
from pathlib import Path

HOSTILE = Path(__file__).parents[3] / "scripts" / "bench" / "http_hostile"
SECONDS = 280


def test_whoever_means_ill_harms_nobody():
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
    done = subprocess.run(
        [HOSTILE], env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert (done.returncode, failed) == (0, []), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" passed, 0 failed")
