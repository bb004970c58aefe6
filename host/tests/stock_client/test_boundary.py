"""Programs of a session cannot reach the host, its keys, its doors, or another session.

A house of its own, so that the story of the other tests is not disturbed: two devices, each with a session. In one of
them runs a program that tries everything; what it must fail at, somebody who may is seen to succeed at.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from conftest import Client, pair
from daemon import NOBODY, Daemon, wait_for
from launcher import PROFILES, TCP_PORTS, UDP_PORTS
from network import HOST_V4, HOST_V6, Network, inside

PROBE = Path(__file__).with_name("probe.py")
CONFIG = """
discovery = false
[[app]]
title = "Probe"
display = "pattern"
command = ["/usr/bin/python3", "-B", "FOLDER/probe.py", "FOLDER/targets.json", "result.json"]
[[app]]
title = "Sleeper"
display = "pattern"
command = ["sleep", "6000"]
"""


@pytest.fixture(scope="module")
def house(request, artefacts, tmp_path_factory):
    """A daemon with its launcher, and two paired devices."""
    if os.getuid() != 0:
        pytest.fail("network namespaces need root: run ci/test stream")
    with Network("b") as network:
        daemon = Daemon(request.config.getoption("--daemon"), network.host, artefacts / "boundary.log", CONFIG)
        shutil.copy(PROBE, daemon.folder)
        try:
            daemon.start()
            # As on a machine where it is a service: the folder keeps nobody from the host's socket, the host does.
            (daemon.folder / "run").chmod(0o711)
            clients = [Client(network.client, tmp_path_factory.mktemp(name), artefacts) for name in ("one", "two")]
            assert clients[0].do("reach", port=47989, deadline=30.0)["reached"]
            for client, pin in zip(clients, ("1357", "2468")):
                assert pair(client, daemon, pin, pin)["paired"]
            yield daemon, *clients
        finally:
            daemon.discard()


@pytest.fixture(scope="module")
def sleeper(house):
    """The second device's session; its profile and the program in it."""
    daemon, _, second = house
    before = busy_profiles(daemon)
    second.launch("Sleeper")
    (profile,) = busy_profiles(daemon) - before
    return profile, pid_of(daemon, profile, "sleep")


@pytest.fixture(scope="module")
def targets(house, sleeper):
    """What there is to be attacked, as the hostile program is told."""
    daemon, launcher = house[0], house[0].launcher
    state = daemon.folder / "state" / "punktfunk"
    other, program = sleeper
    told = {
        "secrets": [str(path) for path in sorted(state.rglob("*")) if path.is_file()],
        "folders": [str(path) for path in (
            state, daemon.folder / "run", launcher.homes / str(other), launcher.folder / str(other))],
        "programs": [str(launcher.agent), str(launcher.binary), str(daemon.binary), str(daemon.config)],
        "parents": [str(launcher.folder), str(launcher.homes), str(daemon.folder)],
        "host": str(daemon.socket), "launcher": str(launcher.socket),
        "processes": {"the daemon": daemon.process.pid, "the launcher": launcher.process.pid,
                      "another session's program": program,
                      "another session's agent": pid_of(daemon, other, "punktfunk-agent")},
        "addresses": ["127.0.0.1", "127.0.0.2", "::1", HOST_V4, HOST_V6, f"::ffff:{HOST_V4}"],
        "everybody": ["10.77.0.255", "224.0.0.1"],
        "tcp": TCP_PORTS, "udp": UDP_PORTS, "stays": True,
    }
    # The host's private key is in the database.
    assert str(state / "state.db") in told["secrets"], told
    (daemon.folder / "targets.json").write_text(json.dumps(told))
    return told


@pytest.fixture(scope="module")
def probed(house, targets):
    """What the hostile program managed, and its profile."""
    daemon, first, _ = house
    before = busy_profiles(daemon)
    first.launch("Probe")
    (profile,) = busy_profiles(daemon) - before
    result = daemon.launcher.homes / str(profile) / "result.json"
    wait_for("the hostile program", 60, result.exists)
    return json.loads(result.read_text()), profile


def test_a_program_in_a_session_reaches_nothing(probed):
    managed = [what for what, succeeded in probed[0].items() if succeeded]
    assert not managed, managed


def test_each_attempt_can_succeed(house, targets, probed):
    daemon = house[0]
    told = daemon.folder / "control.json"
    told.write_text(json.dumps(targets | {"stays": False}))
    succeeded = set()
    for uid in (NOBODY, 0):
        result = daemon.folder / "home" / f"control-{uid}.json"
        words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--groups=4", "/usr/bin/python3", "-B",
                 daemon.folder / "probe.py", told, result]
        subprocess.run(inside(daemon.namespace, words), check=True, timeout=120, cwd="/")
        done = json.loads(result.read_text())
        assert done.keys() == probed[0].keys(), "the attempts were not the same"
        succeeded |= {what for what, managed in done.items() if managed}
    never = probed[0].keys() - succeeded
    assert not never, f"attempts that nobody succeeds at prove nothing: {sorted(never)}"


def test_sessions_have_users_of_their_own(house, sleeper, probed):
    daemon = house[0]
    assert probed[1] != sleeper[0]
    for profile in (probed[1], sleeper[0]):
        names = {Path(words[0]).name for words in daemon.launcher.processes_of(profile).values()}
        assert "punktfunk-agent" in names and len(names) > 1, names


def test_sessions_end_before_the_host_when_memory_runs_out(house, sleeper, probed):
    daemon = house[0]
    host = int(Path(f"/proc/{daemon.process.pid}/oom_score_adj").read_text())
    for pid, words in (daemon.launcher.processes_of(probed[1]) | daemon.launcher.processes_of(sleeper[0])).items():
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) >= host + 500, words


def test_what_left_its_session_ends_with_it(house, probed):
    daemon, first, _ = house
    living = daemon.launcher.processes_of(probed[1])
    assert sum("sleep" in words[0] for words in living.values()) == 2, f"nothing has left the session: {living}"
    assert first.do("quit")["quit"]
    wait_for("the session's programs to end", 15, lambda: not daemon.launcher.processes_of(probed[1]))
    wait_for("its runtime folder to go", 15, lambda: not (daemon.launcher.folder / str(probed[1])).exists())
    assert (daemon.launcher.homes / str(probed[1]) / "result.json").exists(), "the home is to stay"


def test_a_launcher_that_is_killed_takes_no_session_along(house, sleeper, probed):
    daemon, first, second = house
    profile, program = sleeper
    daemon.launcher.kill()
    assert program in daemon.launcher.processes_of(profile)
    refused = first.begin("begin", title="Sleeper")
    with pytest.raises(AssertionError):
        first.finish(refused, "an app without a launcher")
    assert program in daemon.launcher.processes_of(profile)
    daemon.launcher.start()
    first.launch("Sleeper")
    assert first.do("quit")["quit"]
    # The new launcher has never seen the second device's session, and ends it.
    assert second.do("quit")["quit"]
    wait_for("its programs to end", 15, lambda: not daemon.launcher.processes_of(profile))


def test_a_daemon_that_is_killed_takes_its_sessions_along(house):
    daemon, first, _ = house
    first.launch("Sleeper")
    (profile,) = busy_profiles(daemon)
    daemon.process.kill()
    daemon.process.wait()
    wait_for("its sessions to end", 15, lambda: not daemon.launcher.processes_of(profile))
    daemon.start()
    first.launch("Sleeper")
    assert first.do("quit")["quit"]


def test_what_the_launcher_does_not_know_it_refuses(house):
    launcher = house[0].launcher
    for request in (b"start %d" % PROFILES, b"start 65536", b"start -1", b"start", b"start 1 2", b"stop x", b"restart 1", b"status ",
                    b"\xff\xfe", b"start 1" + bytes(500), b"x" * 60_000):
        answer, agents = launcher.ask(request)
        assert answer.startswith("no ") and not agents, (request[:40], answer)
    assert launcher.ask(b"status") == ("ok " + ",".join(map(str, TCP_PORTS + UDP_PORTS)), [])
    assert launcher.process.poll() is None


def test_whoever_is_silent_keeps_nobody_waiting(house):
    launcher = house[0].launcher
    silent = [launcher.connect() for _ in range(8)]
    assert launcher.ask(b"status")[0].startswith("ok ")
    for client in silent:
        assert client.recv(512).startswith(b"no "), "the launcher does not wait for ever"
        client.close()


def test_nothing_escapes_a_sweep(house):
    """Programs that change their number all the time, and stop or kill whoever comes near."""
    launcher = house[0].launcher
    answer, (agent,) = launcher.ask(b"start 15")
    assert answer == "ok" and b"hello" in agent.recv(65536)
    assert launcher.ask(b"start 15")[0] == "no profile 15 is in use"
    uid = launcher.first_uid + 15
    runner = """
import os, signal
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if b"sweep" in open(f"/proc/{name}/cmdline", "rb").read().split(b"\\0"):
                    os.kill(int(name), signal.SIGSTOP)
                    os.kill(int(name), signal.SIGKILL)
            except OSError:
                pass
"""
    run = [*user(uid), "/usr/bin/python3", "-c", runner]
    for _ in range(4):
        subprocess.run(run, check=True, cwd="/", stdin=subprocess.DEVNULL, timeout=60)
    assert launcher.processes_of(15)
    deep = launcher.folder / "15" / "closed"
    subprocess.run([*run[:4], "mkdir", "-m", "000", deep], check=True)
    # Deeper than a program has descriptors, and than a path may be long.
    digger = "import os\nfor _ in range(3000): os.mkdir('deep'); os.chdir('deep')"
    subprocess.run([*run[:4], "/usr/bin/python3", "-c", digger], check=True, cwd=launcher.folder / "15")
    assert launcher.ask(b"stop 15") == ("ok", [])
    assert not launcher.processes_of(15)
    assert not list(launcher.folder.glob("15*")), "something was put aside"
    agent.close()


def test_an_agent_that_owns_its_user_leaves_nothing_of_it(house):
    """The launcher sweeps up what no parent leads to from the agent; where the launcher has died, the agent has to."""
    launcher = house[0].launcher
    profile, neighbour = 14, 13
    escaped, spared = daemonise(launcher, profile), daemonise(launcher, neighbour)
    for words in ([], ["--owns-user"]):
        assert escaped in launcher.processes_of(profile), "it ended with an agent that does not own its user"
        agent, channel, said = agent_of(house[0], profile, *words)
        assert b"hello" in said, said
        channel.close()
        assert agent.wait(30) == 0
    wait_for("what was killed to end", 15, lambda: not launcher.processes_of(profile))
    assert spared in launcher.processes_of(neighbour), "it ended somebody else's program"
    os.kill(spared, signal.SIGKILL)


def test_an_agent_of_root_owns_nobody(house):
    # Among processes of its own: one that did would end all there are.
    agent, _, said = agent_of(house[0], None, "--owns-user")
    assert b"sorry" in said and b"root" in said, said
    assert agent.wait(30) != 0


def test_what_is_cleared_is_gone(house):
    daemon, first, _ = house
    first.launch("Sleeper")
    assert busy_profiles(daemon)
    daemon.launcher.kill()
    done = daemon.launcher.clear()
    assert done.returncode == 0, done.stderr
    assert not busy_profiles(daemon)
    assert list(daemon.launcher.folder.iterdir()) == []
    tables = subprocess.run(inside(daemon.namespace, ["/usr/sbin/nft", "list", "tables"]), capture_output=True,
                            text=True, check=True)
    assert tables.stdout == ""


def busy_profiles(daemon):
    """The numbers of the profiles in which something lives."""
    return {number for number in range(16) if daemon.launcher.processes_of(number)}


def pid_of(daemon, profile, name):
    """The process of a profile that runs this program."""
    living = daemon.launcher.processes_of(profile)
    (pid,) = [pid for pid, words in living.items() if words and Path(words[0]).name == name]
    return pid


def daemonise(launcher, profile):
    """A program that leaves its parent, its session and its terminal by the book, and heeds no polite signal."""
    uid = launcher.first_uid + profile
    leave = "trap '' TERM HUP INT; sleep 6000 &"
    subprocess.run([*user(uid), "setsid", "--fork", "sh", "-c", leave], check=True, cwd="/", timeout=60,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("the program to be alone", 30, lambda: (
        [words[:1] for words in launcher.processes_of(profile).values()] == [["sleep"]]))
    return next(iter(launcher.processes_of(profile)))


def agent_of(daemon, profile, *words):
    """An agent that nobody but this test knows: (its process, the host's end of its channel, what it says first)."""
    folder = daemon.folder / f"agent-{profile}"
    folder.mkdir(exist_ok=True)
    uid = 0 if profile is None else daemon.launcher.first_uid + profile
    os.chown(folder, uid, uid)
    within = ["unshare", "--pid", "--fork"] if uid == 0 else user(uid)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(30)
    with its:
        agent = subprocess.Popen([*within, daemon.launcher.agent, "--runtime-dir", folder / "run", "--home", folder,
                                  *words], stdin=its, cwd="/")
    return agent, ours, ours.recv(65536)


def user(uid):
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
