"""What a command loads that no running server answers: what it uses, for loading is most of its time."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from xmppd.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write(" ".join(sys.modules))
"""

ELSEWHERE = {
    "aiohttp",
    "cassandra",
    "cryptography",
    "importlib.metadata",
    "jwt",
    "msgspec",
    "pydantic",
    "pymysql",
    "psycopg",
    "redis",
    "uvloop",
    "xmppd.app",
    "xmppd.cluster",
    "xmppd.copying",
    "xmppd.encryption",
    "xmppd.migrating",
    "xmppd.migrate.detect",
    "xmppd.migrate.formats",
    "xmppd.net.certificates",
    "xmppd.net.http.door",
    "xmppd.serve",
}


@pytest.fixture
def loaded(tmp_path):
    """The modules that are loaded when a command is done."""
    config = tmp_path / "xmppd.yaml"
    config.write_text(f"server: {{data_folder: {tmp_path}/data}}\n")

    def loaded(*words):
        command = [sys.executable, "-c", PROGRAM, *words, "--config", str(config)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return set(done.stderr.split())

    return loaded


SERVER = {
    "xmppd.core.arrivals",
    "xmppd.core.contacts",
    "xmppd.core.presence",
    "xmppd.core.router",
    "xmppd.loader",
    "xmppd.net",
    "xmppd.plugin",
    "xmppd.rules",
    "xmppd.tables",
}
"""What makes a server of accounts and rosters."""


@pytest.mark.parametrize("words", [("store", "migrate", "--create"), ("check-config",)])
def test_a_command_without_a_server_loads_its_own_part(loaded, words):
    modules = loaded(*words)
    assert "xmppd.config" in modules
    assert ELSEWHERE & modules == set()


def test_one_that_only_looks_loads_next_to_nothing(loaded):
    modules = loaded("user", "list", "--create")
    assert "xmppd.core.accounts" in modules
    assert (ELSEWHERE | SERVER) & modules == set()


def test_the_parts_that_are_left_out_are_there_where_they_are_used(loaded):
    """So that the tests above cannot pass because a name in them is out of date."""
    formats = loaded("migrate", "formats")
    assert {"xmppd.migrating", "xmppd.migrate.detect", "xmppd.migrate.formats"} <= formats
    server = loaded("user", "add", "alice@localhost", "--generate", "--create")
    assert SERVER | {"xmppd.app"} <= server


def test_who_moves_no_accounts_does_not_load_what_reads_files_of_them(loaded):
    assert "msgspec" not in loaded("user", "add", "alice@localhost", "--generate", "--create")


def test_certificates_that_are_named_are_read(loaded, tmp_path):
    (tmp_path / "xmppd.yaml").write_text(
        f"server: {{data_folder: {tmp_path}/data}}\n"
        f"tls: {{certificates: {{localhost: {{certificate: {tmp_path}/a.crt, key: {tmp_path}/a.key}}}}}}\n"
    )
    with pytest.raises(AssertionError, match=r"a\.crt: No such file"):
        loaded("check-config")


def test_a_command_that_a_server_answers_loads_little():
    program = "import sys, xmppd.admin.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert not {*ELSEWHERE, "asyncio", "ssl", "http.client", "xmppd.admin.remote"} & {*done.stdout.split()}
