"""The programs of docs/game-login.md make tokens by which the server lets in."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from secrets import token_hex

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gametokens import game, logged_in
from keyserver import public

from xmppd.testing import START

PAGE = (Path(__file__).parents[2] / "docs" / "game-login.md").read_text(encoding="utf-8")
GO = shutil.which("go") or next((it for it in ("/usr/local/go/bin/go",) if Path(it).exists()), None)
COMMANDS = {
    "python": (sys.executable, "mint.py", ("mint.py",)),
    "javascript": (shutil.which("node"), "mint.js", ("mint.js",)),
    "go": (GO, "mint.go", ("run", "mint.go")),
    "csharp": (shutil.which("dotnet"), "mint.cs", ("run", "--project", "mint.csproj", "--")),
}
MONO = shutil.which("mono"), shutil.which("mcs")
PROJECT = """<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup>
  <OutputType>Exe</OutputType><TargetFramework>net{version}</TargetFramework>
  <ImplicitUsings>enable</ImplicitUsings><UseAppHost>false</UseAppHost>
</PropertyGroup></Project>"""
"""What `dotnet new console` makes, for the version that is at hand."""


@pytest.mark.asyncio
@pytest.mark.parametrize("language", COMMANDS)
async def test_a_token_that_a_sample_makes(language: str, tmp_path: Path) -> None:
    program, name, words = COMMANDS[language]
    if language == "csharp" and program is None and all(MONO):
        program, words = MONO[0], ("mint.exe",)
    if program is None:
        pytest.skip(f"there is no {language} here")
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / name).write_text(code, encoding="utf-8")
    if language == "csharp":
        algorithm, secret, known = "HS256", *2 * (f"{token_hex(32)}\n",)
        await compiled(program, tmp_path)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        algorithm, secret, known = "ES256", pem.decode(), public(key)
    (tmp_path / "key").write_text(secret, encoding="ascii")
    (tmp_path / "known").write_text(known, encoding="ascii")
    made = await said([program, *words, str(tmp_path / "key"), "kiva"], tmp_path)
    about = {
        "issuer": "https://id.example.org",
        "audience": "chat.example.org",
        "algorithms": [algorithm],
        "key_files": [str(tmp_path / "known")],
    }
    async with game(issuers=[about]) as world:
        world.clock.seconds = time.time() - START
        kiva = await logged_in(world, "kiva", made.strip())
        assert kiva.bare == "kiva@localhost"
        assert kiva.session.facts["token_id"]
        await kiva.drop()


async def compiled(program: str, folder: Path) -> None:
    """What C# needs before it runs: Mono the program, .NET a project."""
    if program == MONO[0]:
        await said([str(MONO[1]), "-r:System.Runtime.Serialization", "mint.cs"], folder)
        return
    version = (await said([program, "--version"], folder)).partition(".")[0]
    (folder / "mint.csproj").write_text(PROJECT.format(version=f"{version}.0"), encoding="utf-8")


async def said(command: list[str], folder: Path) -> str:
    """What a command prints."""
    run = subprocess.check_output
    return await asyncio.to_thread(run, command, text=True, timeout=100, cwd=folder)
