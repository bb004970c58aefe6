"""What the stream tests stand on: the network, the daemon in it, and the client as a person would switch it on.

One daemon and one client identity live through all tests, in the order of the file: pairing once is what makes the
rest possible, as in a home.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import Daemon
from network import CLIENT_V4, HOST_V4, Network, inside

HERE = Path(__file__).resolve().parent
CLIENT_DEADLINE_S = 180


def pytest_addoption(parser):
    parser.addoption("--daemon", required=True, help="the punktfunk-host to test")
    parser.addoption("--artefacts", required=True, help="the folder for logs and pictures")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: a case for ci/test full")
    config.measured = {}


def pytest_sessionfinish(session):
    folder = Path(session.config.getoption("--artefacts"))
    (folder / "measured.json").write_text(json.dumps(session.config.measured, indent=2) + "\n")


@pytest.fixture(scope="session")
def artefacts(request):
    folder = Path(request.config.getoption("--artefacts")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def measured(request):
    """Figures that the run leaves behind, by name."""
    return request.config.measured


@pytest.fixture(scope="session")
def network():
    if os.getuid() != 0:
        pytest.fail("network namespaces need root: run ci/test stream")
    with Network() as network:
        yield network


@pytest.fixture(scope="session")
def daemon(request, network, artefacts):
    daemon = Daemon(request.config.getoption("--daemon"), network.host, artefacts / "daemon.log")
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.discard()


class Client:
    """The device: one identity, a fresh process for each thing that is done with it."""

    def __init__(self, namespace, folder, artefacts, name="client"):
        self.namespace, self.folder, self.artefacts, self.name = namespace, folder, artefacts, name

    def launch(self, title):
        """Starts an app and leaves it running."""
        seen = self.do("begin", title=title)
        assert seen["pictures"] > 0, f"{title} was not seen: {seen}"

    def begin(self, verb, **options):
        options = {"config": self.folder, "address": HOST_V4, "fps": 30} | options
        words = [word for name in VERBS[verb] for word in (f"--{name}", options[name])]
        return subprocess.Popen(
            inside(self.namespace, [sys.executable, "-B", HERE / "client.py", verb, *words]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process, verb, deadline_s=CLIENT_DEADLINE_S):
        try:
            output, errors = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += f"\nkilled after {deadline_s} s"
        with open(self.artefacts / f"{self.name}.log", "a") as log:
            log.write(f"== {verb}: {process.returncode}\n{output}{errors}\n")
        assert process.returncode == 0, f"client {verb}: {errors[-4000:]}"
        return json.loads(output.splitlines()[-1])

    def do(self, verb, **options):
        return self.finish(self.begin(verb, **options), verb)

    def play(self, verb, name, seconds=10.0):
        """Plays into a folder of the artefacts; returns what came of it and the folder."""
        out = self.artefacts / name
        out.mkdir(exist_ok=True)
        return self.do(verb, out=out, seconds=seconds), out


# Which options each verb of client.py takes.
VERBS = {
    "reach": ("address", "port", "deadline"),
    "discover": ("config", "deadline"),
    "pair": ("config", "address", "pin"),
    "info": ("config", "address"),
    "apps": ("config", "address", "out"),
    "card": ("config", "address", "out", "seconds", "fps"),
    "desktop": ("config", "address", "out", "seconds"),
    "measure": ("config", "address", "seconds", "width", "height", "fps"),
    "look": ("config", "address", "out", "seconds"),
    "count": ("config", "address", "out", "seconds", "title", "fps"),
    "begin": ("config", "address", "title"),
    "listen": ("config", "address", "out", "seconds", "command"),
    "quit": ("config", "address"),
}


class House:
    """A host and its clients on a street of their own, for tests that are rough with them."""

    def __init__(self, network, daemon, artefacts, folders):
        self.network, self.daemon, self.artefacts, self._folders = network, daemon, artefacts, folders
        self.clients = {}

    def client(self, name):
        """A paired client; its identity is made when it is first asked for."""
        if name not in self.clients:
            client = self.stranger(name)
            outcome = pair(client, self.daemon, "1470", "1470", name)
            assert outcome["paired"], outcome
            self.clients[name] = client
        return self.clients[name]

    def stranger(self, name):
        """A client that nobody knows yet."""
        return Client(self.network.client, self._folders.mktemp(name), self.artefacts, name)


@pytest.fixture(scope="session")
def house(request, artefacts, tmp_path_factory):
    if os.getuid() != 0:
        pytest.fail("network namespaces need root: run ci/test stream")
    with Network("r") as network:
        daemon = Daemon(request.config.getoption("--daemon"), network.host, artefacts / "rough-daemon.log")
        daemon.environment["PUNKTFUNK_LIMITS__SESSIONS"] = "10"
        try:
            daemon.start()
            yield House(network, daemon, artefacts, tmp_path_factory)
        finally:
            daemon.discard()


@pytest.fixture(scope="session")
def client(network, daemon, artefacts, tmp_path_factory):
    client = Client(network.client, tmp_path_factory.mktemp("client"), artefacts)
    assert client.do("reach", port=47989, deadline=30.0)["reached"], "the host takes no connections on 47989"
    return client


@pytest.fixture(scope="session")
def paired(client, daemon):
    """The client, paired: first with the wrong PIN, then with the right one."""
    return client, pair(client, daemon, "1234", "4321"), pair(client, daemon, "0808", "0808")


def pair(client, daemon, shown, typed, name="the device"):
    """The client shows one PIN; its owner types one at the host once the request is seen there."""
    from daemon import wait_for

    asking = client.begin("pair", pin=shown)
    try:
        request = wait_for("the pairing request", 30, lambda: asking.poll() is not None or pending(daemon))
        number = ["--request", str(request)] if request is not True else []
        answer = daemon.ask("pair", typed, "--name", name, *number, check=False)
    finally:
        outcome = client.finish(asking, "pair")
    return outcome | {"answer": answer.returncode, "said": answer.stdout + answer.stderr}


def pending(daemon, remote=CLIENT_V4):
    """The number of the request that waits from this address, or None; numbers begin at 1."""
    requests = daemon.ask_json("pairing", "list", "--json")["pending"]
    return next((request["id"] for request in requests if request["remote"] == remote), None)
