"""A link between two hosts is cut and healed: hosts are network namespaces of this machine."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import pytest

from tests.lpml.test_tls import members

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import pickle, sys, tempfile
from pathlib import Path
from lpml.wire import tls
from tests.lpml import test_tls
identity = pickle.loads(Path(sys.argv[1]).read_bytes())
tls.join(identity)
listen = tls.listen_tcp
tls.listen_tcp = lambda host: listen("10.77.31.1")
with tempfile.TemporaryDirectory() as folder:
    node = test_tls.Node(Path(folder), identity)
    print(node.address, flush=True)
    sys.stdin.read()
"""
CLIENT = """
import pickle, sys, time
from pathlib import Path
import lpml
from lpml import wire
from lpml.service import interface_of
from lpml.wire import tls
from tests.lpml.test_tls import Service
tls.join(pickle.loads(Path(sys.argv[1]).read_bytes()))
client = wire.connect(sys.argv[2], interface_of(Service), node="server/0", caller="client")
for line in sys.stdin:
    began = time.monotonic()
    try:
        with lpml.deadline(60.0):
            if line == "wait\\n":
                call = lpml.future(client.wait, 50.0)
                print("sent", flush=True)
                result = call.result()
            else:
                result = client.echo(line)
    except lpml.NodeUnavailable:
        result = "unavailable"
    print(str(result).strip(), time.monotonic() - began, flush=True)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@final
class Hosts:
    """Two namespaces, joined by a pair of virtual interfaces."""

    def __init__(self) -> None:
        self.names = [f"lpml-{os.getpid()}-{side}" for side in "ab"]
        self._links = [f"lpml{os.getpid() % 100_000}{side}" for side in "ab"]

    def make(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self._links[0], "type", "veth", "peer", "name", self._links[1])
        for number, (name, link) in enumerate(zip(self.names, self._links, strict=True), 1):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.31.{number}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def cut(self, *, heal: bool = False) -> None:
        ip("-n", self.names[0], "link", "set", self._links[0], "up" if heal else "down")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def run(self, side: int, script: str, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(script), *args]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[side], *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None or os.getuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    made = Hosts()
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr!r}")
        yield made
    finally:
        made.remove()


def ask(process: subprocess.Popen[str], word: str) -> tuple[str, float]:
    """What the client answers to a word, and the seconds that its call took."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    result, seconds = process.stdout.readline().split()
    return result, float(seconds)


def test_a_cut_link_is_found_and_a_healed_one_is_used_again(hosts: Hosts, tmp_path: Path) -> None:
    files: list[Any] = [tmp_path / "server", tmp_path / "client"]
    for file, identity in zip(files, members("server", "client"), strict=True):
        file.write_bytes(pickle.dumps(identity))
    with hosts.run(0, SERVER, str(files[0])) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with hosts.run(1, CLIENT, str(files[1]), address) as client:
            assert client.stdin is not None
            assert ask(client, "hello")[0] == "hello"
            client.stdin.write("wait\n")
            client.stdin.flush()
            assert client.stdout is not None
            assert client.stdout.readline() == "sent\n"
            hosts.cut()
            result, after = client.stdout.readline().split()
            assert result == "unavailable"  # nobody writes, and the cut is found all the same
            assert float(after) < 25.0
            assert ask(client, "more")[0] == "unavailable"
            hosts.cut(heal=True)
            assert ask(client, "again")[0] == "again"
            client.stdin.close()
        server.stdin.close()
