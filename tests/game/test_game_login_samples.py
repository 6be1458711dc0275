"""The programs of docs/game-login.md make tokens by which the server lets in."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gametokens import game, logged_in
from keyserver import public

from xmppd.testing import START

PAGE = (Path(__file__).parents[2] / "docs" / "game-login.md").read_text(encoding="utf-8")
GO = shutil.which("go") or next((it for it in ("/usr/local/go/bin/go",) if Path(it).exists()), None)
COMMANDS = {
    "python": (sys.executable, "mint.py", ()),
    "javascript": (shutil.which("node"), "mint.js", ()),
    "go": (GO, "mint.go", ("run",)),
    "csharp": (shutil.which("dotnet"), "mint.cs", ("run", "--project", "mint.csproj", "--")),
}
PROJECT = """<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup>
  <OutputType>Exe</OutputType><TargetFramework>net{version}</TargetFramework>
  <ImplicitUsings>enable</ImplicitUsings><UseAppHost>false</UseAppHost>
</PropertyGroup></Project>"""
"""What `dotnet new console` makes, for the version that is at hand."""


@pytest.mark.asyncio
@pytest.mark.parametrize("language", COMMANDS)
async def test_a_token_that_a_sample_makes(language: str, tmp_path: Path) -> None:
    program, name, words = COMMANDS[language]
    if program is None:
        pytest.skip(f"there is no {language} here")
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / name).write_text(code, encoding="utf-8")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    command = [program, *words, str(tmp_path / name), str(tmp_path / "key.pem"), "kiva"]
    if language == "csharp":
        said = await asyncio.to_thread(
            subprocess.check_output, [program, "--version"], text=True, timeout=100
        )
        project = PROJECT.format(version=f"{said.partition('.')[0]}.0")
        (tmp_path / "mint.csproj").write_text(project, encoding="utf-8")
        command.remove(str(tmp_path / name))
    made = await asyncio.to_thread(subprocess.check_output, command, text=True, timeout=100, cwd=tmp_path)
    about = {
        "issuer": "https://id.example.org",
        "audience": "chat.example.org",
        "algorithms": ["ES256"],
        "keys": [public(key)],
    }
    async with game(issuers=[about]) as world:
        world.clock.seconds = time.time() - START
        kiva = await logged_in(world, "kiva", made.strip())
        assert kiva.bare == "kiva@localhost"
        assert kiva.session.facts["token_id"]
        await kiva.drop()
