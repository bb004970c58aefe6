"""A stock client plays while somebody attacks every door: it must not notice, and the host must not grow.

One stream, in rounds: quiet, attacked, quiet, attacked. Both halves meet the same machine, so its load is in both; the
medians over the rounds are compared. A machine that others use disturbs a round now and then, so rounds are added until
the medians agree. If they never do, what decides is whether the attacked rounds are worse than the quiet ones by more
than chance puts them (a rank-sum test at 5 %): a disturbance that comes with the attack is in nearly all of them.
"""

import json
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from conftest import HERE, Client, pair
from daemon import wait_for
from hostile import KINDS
from network import CLIENT_V4, HOST_V4, inside, ip
from test_stock_client import running, traces

ATTACKERS = ["10.77.0.66", "10.77.0.67", "10.77.0.68"]
FPS = 30
ROUND_S = 3.0
ROUNDS, MAX_ROUNDS = 4, 6
WITHIN = 0.10
# Three addresses may hold 32 connections each at HTTP and at HTTPS, and 8 at RTSP; a connection holds a request of at
# most 64 KiB, and a TLS connection its buffers besides: 216 connections of 100 KiB are 21 MiB.
MAX_GROWTH_MIB = 32
# Those connections, 64 of the owner and 4 of strangers at the owner's socket.
MAX_MORE_DESCRIPTORS = 216 + 68
# From the moment of the request, on a machine where everybody shares two cores.
PROMPT_S = 5.0


class Neighbour:
    """hostile.py, in the client's house and on no side of it."""

    def __init__(self, network, owner_socket):
        self.network = network
        for address in ATTACKERS:
            ip("-n", network.client, "addr", "add", f"{address}/24", "dev", network.cable[1])
        self.process = subprocess.Popen(
            inside(network.client, [
                sys.executable, "-B", HERE / "hostile.py", "--host", HOST_V4, "--attackers", ",".join(ATTACKERS),
                "--guest", CLIENT_V4, "--interface", network.cable[1], "--owner-socket", owner_socket]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def order(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], 30)[0], "the attacker does not answer"
        return json.loads(self.process.stdout.readline())

    def end(self):
        said = self.order("end")
        assert not said["broken"], f"the attacker itself failed: {said['broken']}"
        return said

    def leave(self):
        self.process.kill()
        self.process.wait()
        for address in ATTACKERS:
            ip("-n", self.network.client, "addr", "del", f"{address}/24", "dev", self.network.cable[1], check=False)


@pytest.fixture
def neighbour(network, daemon):
    neighbour = Neighbour(network, daemon.socket)
    yield neighbour
    neighbour.leave()


@pytest.fixture
def playing(paired, daemon):
    """A stream of the Test card under way; ended with its client."""
    client, _, _ = paired
    process = client.begin("measure", seconds=120.0, width=1280, height=720, fps=FPS)
    wait_for("the stream", 60, lambda: process.poll() is not None or any(
        session["streaming"] for session in running(daemon)))
    yield process
    process.terminate()
    process.wait(20)
    client.do("quit")


def now_us():
    return time.monotonic_ns() // 1000


def sent_between(daemon, spans):
    """For each span of time the frames that the host sent in it, and what it lost of them after encoding."""
    trace = traces(daemon, "Test card")
    assert not [entry for entry in trace if entry.get("reason") == "unsendable"], "coded frames were thrown away"
    sent = [entry for entry in trace if entry["fate"] == "sent"]
    numbers = [entry["index"] for entry in sent]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a frame was lost after encoding"
    return [[entry for entry in sent if since <= entry["last_sent_us"] < until] for since, until in spans]


def figures(frames, seconds):
    """Frames a second, and the longest time between two frames in milliseconds."""
    left = np.array([frame["last_sent_us"] for frame in frames]) / 1000
    return {"fps": len(frames) / seconds, "longest_gap_ms": float(np.diff(left).max())}


def agree(quiet, attacked):
    """Whether the medians of the attacked rounds are within 10 % of the quiet ones, or better."""
    middle = {name: [float(np.median([figure[name] for figure in side])) for side in (quiet, attacked)]
              for name in ("fps", "longest_gap_ms")}
    fps, gap = middle["fps"], middle["longest_gap_ms"]
    return middle, fps[1] >= fps[0] * (1 - WITHIN) and gap[1] <= gap[0] * (1 + WITHIN)


def by_chance(quiet, attacked):
    """Whether chance alone makes the attacked rounds look as bad as they do, once in a hundred times or more often."""
    def are_higher(these, those):
        above = sum((one > other) + 0.5 * (one == other) for one in these for other in those)
        pairs, spread = len(these) * len(those), len(these) + len(those) + 1
        return (above - 0.5 - pairs / 2) / (pairs * spread / 12) ** 0.5 > 2.326

    figures_of = {name: ([figure[name] for figure in quiet], [figure[name] for figure in attacked])
                  for name in ("fps", "longest_gap_ms")}
    slower = are_higher(*figures_of["fps"])
    return not slower and not are_higher(*reversed(figures_of["longest_gap_ms"]))


def rounds(daemon, attack, cease, least=ROUNDS, most=MAX_ROUNDS):
    """Quiet and attacked rounds by turns until they agree; returns the medians and whether they do."""
    quiet, attacked = [], []
    for _ in range(most):
        for side, before, after in ((quiet, cease, None), (attacked, attack, cease)):
            if before:
                before()
            since = now_us()
            time.sleep(ROUND_S)  # What is measured is this time.
            span = (since, now_us())
            if after:
                after()
            (frames,) = sent_between(daemon, [span])
            assert len(frames) > 2, "the stream stands still"
            side.append(figures(frames, (span[1] - span[0]) / 1e6))
        middle, same = agree(quiet, attacked)
        if same and len(quiet) >= least:
            break
    same = same or by_chance(quiet, attacked)
    return middle | {"rounds": len(quiet), "quiet": quiet, "attacked": attacked}, same


# spec: gamestream 13 item 120
def test_a_stream_does_not_notice_an_attack_on_every_door(playing, neighbour, daemon, measured):
    log_before, said, attacking = len(daemon.log()), [], []
    before, most = {}, {"rss_mib": 0, "descriptors": 0}

    def cease():
        nonlocal most
        if not attacking:
            return
        attacking.clear()
        most = {"rss_mib": max(most["rss_mib"], daemon.rss_mib()),
                "descriptors": max(most["descriptors"], daemon.descriptors())}
        said.append(neighbour.end())

    def attack():
        if not said:
            # The stream has its buffers by now.
            before.update(rss_mib=daemon.rss_mib(), descriptors=daemon.descriptors())
        attacking.append(True)
        neighbour.order("begin")

    middle, same = rounds(daemon, attack, cease)
    # Medians forgive a round; the end of the stream they shall not.
    assert playing.poll() is None, "the client gave up"
    assert [session["streaming"] for session in running(daemon)] == [True], "the stream was ended"
    done = {what: sum(round["done"].get(what, 0) for round in said) for what in KINDS}
    probes = {door: [took for round in said for took in round["probes"].get(door, [])] for door in ("47989", "47984")}
    measured["attack on every door"] = middle | {"done": done, "before": before, "most": most, "probes_s": {
        door: {"count": len(took), "worst": max((one for one in took if one is not None), default=None)}
        for door, took in probes.items()}}
    assert all(done.values()) and done["half-open"] > 500, f"the attack was none: {done}"
    assert same, f"the stream was disturbed: {middle}"
    for door, took in probes.items():
        assert took and all(one is not None and one < PROMPT_S for one in took), f"guests at {door} waited: {took}"
    assert most["rss_mib"] - before["rss_mib"] < MAX_GROWTH_MIB, (before, most)
    assert most["descriptors"] - before["descriptors"] <= MAX_MORE_DESCRIPTORS, (before, most)
    # A connection that says nothing is closed after 15 s at the latest.
    wait_for("every connection to be closed", 40, lambda: daemon.descriptors() <= before["descriptors"] + 2)
    log = daemon.log()[log_before:]
    assert "panicked" not in log and "Bug" not in log, log[-4000:]
    assert len(log) < 64 * 1024, f"strangers wrote {len(log)} bytes into the log"
    assert daemon.ask("status").returncode == 0


@pytest.mark.long
def test_a_stream_does_not_notice_a_client_that_stops_reading(playing, network, daemon, artefacts, tmp_path, measured):
    """The other client acknowledges nothing and reads nothing in the second half of each pair of rounds."""
    other = Client(network.client, tmp_path, artefacts)
    assert pair(other, daemon, "2468", "2468")["paired"]
    slow = other.begin("measure", seconds=120.0, width=320, height=240, fps=15)
    try:
        wait_for("both streams", 60, lambda: slow.poll() is not None or (
            [session["streaming"] for session in running(daemon)] == [True, True]))
        middle, same = rounds(daemon, lambda: slow.send_signal(signal.SIGSTOP),
                              lambda: slow.send_signal(signal.SIGCONT))
        measured["another client that stops reading"] = middle
        assert same, f"the stream was disturbed: {middle}"
        assert [session["streaming"] for session in running(daemon)] == [True, True]
    finally:
        slow.send_signal(signal.SIGCONT)
        slow.terminate()
        slow.wait(20)
    other.do("quit")
