"""The owner's API from outside: what its document says is what it does, whatever it is sent; and a stock client is let
in by nothing but calls of it.

Schemathesis reads the document that the daemon serves and calls every operation with what it allows and with what it
does not, on a host that has an owner, a device that plays and a token, so that what works is answered too. No answer
may be a failure of the host's, be undocumented, or have another shape than it says.
"""

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from api import Api, HttpProblem
from conftest import Client
from daemon import Daemon, wait_for
from network import CLIENT_V4, HOST_V4, Network, inside

HERE = Path(__file__).resolve().parent
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,unsupported_method")
# What says "not here" in good order on the machine of this test: no other operation may answer with a 5xx.
NOT_HERE = ("POST /network/wifi/scan", "PUT /network/wifi")
PASSWORD = "correct horse battery"
CONFIGURATION = "".join(f"""\
[[operations]]
include-name = "{operation.replace(' /', ' /api/v1/')}"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
""" for operation in NOT_HERE)

# Every other time these are called with what there is, so that more than "unknown" is answered: by operation, what is
# given, and of which list.
THERE = {
    "PATCH /clients/{id}": ("path.id", "clients"),
    "DELETE /tokens/{id}": ("path.id", "tokens"),
    "GET /sessions/{id}": ("path.id", "sessions"),
    "POST /doctor/{check}": ("path.check", "checks"),
    "POST /session": ("body.password", "passwords"),
    "POST /os/factory-reset": ("body.password", "passwords"),
}


@pytest.fixture
def examined(request, artefacts):
    """A host with an owner, for one examination, where nothing else is tested: whatever its owner may do is done to
    it, and the relay arms and disarms its pairing desk all the while. Its system is a simulated one: that is updated,
    switched and started again, and not the machine that it runs on. The network, the host, and the port that leads to
    its socket."""
    with Network("x") as street:
        daemon = Daemon(request.config.getoption("--daemon"), street.host, artefacts / "examined-daemon.log",
                        options=("--demo",))
        try:
            daemon.start()
            own(daemon)
            with relayed(street, daemon, artefacts) as port:
                yield street, daemon, port
        finally:
            daemon.discard()


def own(host):
    """Claims the host, and lets somebody look at it."""
    api = Api(host.socket)
    claim = json.loads((host.folder / "state" / "punktfunk" / "claim.json").read_text())
    api.call("POST", "/claim", {"secret": claim["code"], "name": "box", "password": PASSWORD})
    api.call("PUT", "/session/viewer", {"password": "only to look at it"})


def let_in(api, client, name="Kitchen"):
    """Pairs the client by calls of the API alone."""
    api.call("POST", "/pairing/arm", {"seconds": 120})
    assert client.do("reach", port=47989, deadline=30.0, address=HOST_V4)["reached"]
    asking = client.begin("pair", pin="2468")
    try:
        pairing = wait_for("the request", 30, lambda: next(
            (one for one in api.call("GET", "/pairing")["pending"] if one["remote"] == CLIENT_V4), None))
        # What is not a PIN reaches nobody, and the request goes on waiting.
        with pytest.raises(HttpProblem) as refused:
            api.call("POST", "/pairing/answer", {"request": pairing["id"], "pin": "24680a"})
        assert (refused.value.status, refused.value.problem["code"]) == (422, "malformed-pin")
        api.call("POST", "/pairing/answer", {"request": pairing["id"], "pin": "2468", "name": name})
    finally:
        outcome = client.finish(asking, "pair")
    assert outcome["paired"], outcome


def what_is_there(api):
    """The part of a configuration that names what the host has."""
    token = api.call("POST", "/tokens", {"name": "to be removed", "scopes": ["view"]})["token"]["id"]
    lists = {
        "clients": [one["id"] for one in api.call("GET", "/clients")],
        "tokens": [token],
        "sessions": [one["id"] for one in api.call("GET", "/sessions")],
        # It needs no device, and is quick.
        "checks": ["network"],
        "passwords": [PASSWORD],
    }
    words = [f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n" for name, values in lists.items() if values]
    for operation, (place, name) in THERE.items():
        if not lists[name]:
            continue
        words.append(f"""\
[[operations]]
include-name = "{operation.replace(' /', ' /api/v1/')}"
parameters."{place}" = {{ dictionary = "{name}", probability = 0.5 }}
""")
    return "".join(words)


@contextmanager
def relayed(street, host, artefacts):
    """Where the host's socket is reached over TCP, in its namespace."""
    with open(artefacts / "api-relay.log", "ab") as log:
        relay = subprocess.Popen(inside(street.host, [sys.executable, "-B", HERE / "api_relay.py", host.socket]),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield int(relay.stdout.readline())
        finally:
            relay.stdin.close()
            relay.wait(10)


@pytest.fixture
def house(request, artefacts):
    """A network and a host that nobody is paired with."""
    with Network("a") as street:
        daemon = Daemon(request.config.getoption("--daemon"), street.host, artefacts / "api-daemon.log")
        try:
            daemon.start()
            yield street, daemon
        finally:
            daemon.discard()


def examine(examined, artefacts, folder, *options, deadline_s, url=None):
    """Runs Schemathesis against the host, over its local socket unless an address is given; its words go to the
    artefacts."""
    street, host, port = examined
    configuration = folder / "schemathesis.toml"
    configuration.write_text(what_is_there(Api(host.socket)) + CONFIGURATION)
    document = folder / "openapi.json"
    document.write_text(json.dumps(Api(host.socket).call("GET", "/openapi.json")))
    url = url or f"http://127.0.0.1:{port}"
    # Whatever runs this may have proxies in its environment; there is nothing between here and the host.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    command = [sys.executable, "-B", "-m", "schemathesis.cli", "--config-file", configuration, "run",
               document, "--url", url, "--checks", CHECKS, "--seed", "1", "--suppress-health-check", "all",
               "--request-timeout", "60", "--no-color", *options]
    done = subprocess.run(inside(street.host, command), cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=deadline_s)
    with open(artefacts / "schemathesis.log", "a") as log:
        log.write(done.stdout)
    assert done.returncode == 0, done.stdout[-12_000:]
    assert host.process.poll() is None, "the daemon died"
    assert "panicked" not in host.log(), "something in the daemon panicked"
    return done.stdout


def play(examined, artefacts, tmp_path):
    """Lets a device in, which begins a session and leaves it running."""
    street, host, _ = examined
    client = Client(street.client, tmp_path, artefacts, "examined-client")
    let_in(Api(host.socket), client)
    client.launch("Test card")


def test_the_api_does_what_its_document_says(examined, artefacts, tmp_path):
    play(examined, artefacts, tmp_path)
    said = examine(examined, artefacts, tmp_path, "--generation-deterministic", "--max-examples", "6",
                   "--phases", "examples,coverage,fuzzing", "--max-time", "38", deadline_s=150)
    # A document of which nothing is called would pass as well.
    selected, tested = (int(re.search(rf"{word}: (\d+)", said)[1]) for word in ("Selected", "Tested"))
    assert tested == selected > 50, said[-4000:]
    # Nor is it worth much if what is there is never found. Schemathesis lists the operations of which that is so.
    warnings = said.partition("= WARNINGS =")[2].partition("Schema validation")[0]
    never = [operation for operation in [*THERE, "DELETE /session/viewer"]
             if re.search(rf"- {re.escape(operation.replace(' /', ' /api/v1/'))}$", warnings, re.MULTILINE)]
    assert not never, warnings


def test_what_is_excused_says_that_it_is_not_here_and_nothing_else(examined):
    _, host, _ = examined
    for operation in NOT_HERE:
        method, path = operation.split()
        with pytest.raises(HttpProblem) as refused:
            Api(host.socket).call(method, path, {})
        assert (refused.value.status, refused.value.problem["code"]) == (503, "unavailable"), operation


def test_the_api_does_what_its_document_says_to_a_program_far_away(examined, artefacts, tmp_path):
    _, host, _ = examined
    api = Api(host.socket)
    scopes = ["view", "pair", "play", "manage", "system"]
    token = api.call("POST", "/tokens", {"name": "examiner", "scopes": scopes})["secret"]
    # What is followed never ends, and no relay ends it here.
    said = examine(examined, artefacts, tmp_path, "--generation-deterministic", "--max-examples", "2",
                   "--phases", "examples,coverage", "--max-time", "12", "--tls-verify", "false",
                   "--header", f"Authorization: Bearer {token}", "--exclude-path-regex", "/(events|follow|live)$",
                   deadline_s=60, url="https://127.0.0.1:47990")
    assert int(re.search(r"Tested: (\d+)", said)[1]) > 20, said[-4000:]


@pytest.mark.long
def test_the_api_does_what_its_document_says_for_longer(examined, artefacts, tmp_path):
    play(examined, artefacts, tmp_path)
    examine(examined, artefacts, tmp_path, "--max-examples", "200", "--max-time", "480", deadline_s=580)


def test_a_stock_client_is_paired_by_calls_of_the_api_alone(house, artefacts, tmp_path):
    street, host = house
    api = Api(host.socket)
    client = Client(street.client, tmp_path, artefacts, "api-client")
    let_in(api, client)
    listed = [one for one in api.call("GET", "/clients") if one["name"] == "Kitchen"]
    assert len(listed) == 1, listed
    apps = tmp_path / "apps"
    apps.mkdir()
    assert client.do("apps", out=apps), "the paired client sees no apps"
    api.call("DELETE", f"/clients/{listed[0]['id']}")
    assert all(one["name"] != "Kitchen" for one in api.call("GET", "/clients"))
    # What was typed is in no record; what happened is.
    records = api.call("GET", "/logs?limit=1000")["records"]
    assert records and "2468" not in json.dumps(records)
