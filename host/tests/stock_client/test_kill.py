"""Whatever dies, nobody else notices, and the next launch works.

A sibling plays all the time. Meanwhile clients vanish without a word at each step of their way, compositors and apps
are killed, the disk is full; at last the daemon itself is killed. What must follow is the table "When parts die" in
docs/ARCHITECTURE.md. Rows that do not touch each other run at the same time, for most of them wait for time to pass.
"""

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

import pytest

from bad_line import Relay
from conftest import pair, pending
from daemon import NOBODY, wait_for
from network import CLIENT_V4, HOST_V4

FPS = 30
# What a busy machine does to a stream by itself. A sibling that notices something misses more than that.
LONGEST_GAP_S = 0.5
# After this long without a word a client is gone (docs/ARCHITECTURE.md); the rest is for a busy machine.
SILENCE_S = (8.0, 10.0 + 15.0)
STATE_BYTES = 4 << 20
ROW_DEADLINE_S = 150


@dataclass
class Row:
    """What became of one victim."""

    facts: dict = field(default_factory=dict)
    error: Exception = None


class Street:
    """The house, its sibling, and the rows that have run."""

    def __init__(self, house):
        self.house, self.daemon, self.rows, self.relays = house, house.daemon, {}, []
        self.launching = threading.Lock()
        self.sibling = house.client("sibling")
        self.playing = self.sibling.begin("measure", seconds=600.0, width=1280, height=720, fps=FPS)
        wait_for("the sibling's stream", 60, lambda: self.streams("sibling"))

    def session(self, name):
        """The session of a client, if it has one."""
        sessions = self.daemon.ask_json("sessions", "--json")
        return next((each for each in sessions if each["client_name"] == name and not each.get("ended")), None)

    def ends(self, name):
        """Why sessions of this client have ended."""
        sessions = self.daemon.ask_json("sessions", "--json")
        return [each["ended"] for each in sessions if each["client_name"] == name and each.get("ended")]

    def streams(self, name):
        session = self.session(name)
        return bool(session and session["streaming"])

    def trace(self, name, since_us):
        entries = self.daemon.ask_json("sessions", "--trace", str(self.session(name)["id"]), "--json")
        return [entry for entry in entries if entry["captured_us"] >= since_us]

    def run(self, name, script):
        """Runs the script of a row and keeps its outcome; never raises."""
        row = self.rows[name] = Row()
        try:
            script(row.facts)
        except Exception as error:  # noqa: BLE001 - whatever it is, its own test tells
            row.error = error

    def together(self, scripts):
        threads = {name: threading.Thread(target=self.run, args=(name, script), daemon=True)
                   for name, script in scripts.items()}
        for thread in threads.values():
            thread.start()
        for name, thread in threads.items():
            thread.join(ROW_DEADLINE_S)
            if thread.is_alive():
                self.rows[name] = Row(error=AssertionError(f"not over after {ROW_DEADLINE_S} s"))

    def play(self, client, seconds=1.0):
        """The next launch works: pictures arrive, and the host ends nothing."""
        summary = client.do("measure", seconds=seconds, width=1280, height=720, fps=FPS)
        assert summary["pictures"] > 0 and summary["ended"] is None, summary
        client.do("quit")

    def wait_until_quiet(self, name):
        """How long a stream goes on whose client has vanished."""
        began = time.monotonic()
        wait_for(f"the stream of {name} to end", SILENCE_S[1], lambda: not self.streams(name))
        return time.monotonic() - began


def vanish(street, client, moment, verb="measure"):
    """Lets a client go as far as that moment, then neither it nor its line says anything any more."""
    options = {"measure": {"seconds": 60.0, "width": 1280, "height": 720, "fps": FPS}, "pair": {"pin": "2222"}}[verb]
    relay = Relay(street.house.network, street.house.artefacts / f"{client.name}-relay.json", vanish=moment)
    street.relays.append(relay)
    process = client.begin(verb, address=relay.address, **options)
    try:
        assert relay.vanished.wait(60), f"{client.name} did not come as far as {moment}"
    finally:
        process.kill()
        process.wait()
    return relay


def rows_of_clients(street):
    """Each client vanishes once, comes back and plays."""
    house = street.house
    clients = {moment: house.client(moment) for moment in ("launched", "negotiating", "connected", "playing")}
    clients["resuming"] = house.client("resuming")

    def pairing(facts):
        stranger = house.stranger("pairing")
        relay = vanish(street, stranger, "pairing", "pair")
        facts["asked"] = pending(street.daemon, relay.address)
        # It is there again, at another address, while its first request still waits.
        facts["paired"] = pair(stranger, street.daemon, "3333", "3333", "pairing")
        street.play(stranger)

    def launched(facts):
        vanish(street, clients["launched"], "launched")
        facts["session"] = street.session("launched")
        street.play(clients["launched"])

    def negotiating(facts):
        vanish(street, clients["negotiating"], "negotiating")
        facts["session"] = street.session("negotiating")
        street.play(clients["negotiating"])

    def connected(facts):
        vanish(street, clients["connected"], "connected")
        facts["quiet_s"] = street.wait_until_quiet("connected")
        facts["session"] = street.session("connected")
        street.play(clients["connected"])

    def playing(facts):
        vanish(street, clients["playing"], "playing")
        before = street.session("playing")
        facts["quiet_s"] = street.wait_until_quiet("playing")
        facts["same_session"] = street.session("playing")["id"] == before["id"]
        street.play(clients["playing"])

    def resuming(facts):
        client = clients["resuming"]
        client.do("measure", seconds=0.5, width=1280, height=720, fps=FPS)
        before = street.session("resuming")
        vanish(street, client, "negotiating")
        facts["same_session"] = street.session("resuming")["id"] == before["id"]
        street.play(client)

    return {"pairing": pairing, "launched": launched, "negotiating": negotiating, "connected": connected,
            "playing": playing, "resuming": resuming}


def desktop_of(street, name):
    """A client that looks at its Desktop: (the client, its process, {name of a program: its number})."""
    client = street.house.client(name)
    out = street.house.artefacts / name
    out.mkdir(exist_ok=True)
    # One after the other, so that it is known whose agent has come.
    with street.launching:
        before = agents(street)
        process = client.begin("look", out=out, seconds=60.0)
        wait_for(f"the desktop of {name}", 60, lambda: street.streams(name))
        (agent,) = agents(street) - before
    wait_for("pictures", 30, lambda: len(street.trace(name, 0)) > FPS)
    return client, process, {"agent": agent} | programs_under(street, agent)


def agents(street):
    return {pid for pid, name in street.daemon.family().items() if name == "punktfunk-agent"}


def programs_under(street, agent):
    """What an agent has started, and what that has started: {name: number}."""
    parents = {}
    for pid, name in street.daemon.family().items():
        try:
            stat = open(f"/proc/{pid}/stat").read()
        except OSError:
            continue
        parents[pid] = int(stat.rsplit(")", 1)[1].split()[1]), name
    found, grown = {agent}, True
    while grown:
        more = {pid for pid, (parent, _) in parents.items() if parent in found} - found
        grown = bool(more)
        found |= more
    return {parents[pid][1]: pid for pid in sorted(found - {agent}, reverse=True)}


def rows_of_desktops(street, thorough):
    """A compositor, an app, an agent or a sound server is killed or hangs under a client that looks at a desktop."""
    for name in ("compositor", "app", "hang", "agent", "sound"):
        street.house.client(name)

    def end_of(client, process, facts):
        facts["client"] = client.finish(process, "look", 90)
        facts["ends"] = wait_for("the session to be over", 15, lambda: street.ends(client.name))
        street.play(client)

    def compositor(facts):
        client, process, programs = desktop_of(street, "compositor")
        os.kill(programs["sway"], signal.SIGKILL)
        end_of(client, process, facts)

    def app(facts):
        client, process, programs = desktop_of(street, "app")
        os.kill(programs["foot"], signal.SIGKILL)
        end_of(client, process, facts)

    def agent(facts):
        client, process, programs = desktop_of(street, "agent")
        os.kill(programs["agent"], signal.SIGKILL)
        facts["client"] = client.finish(process, "look", 90)
        facts["ends"] = wait_for("the session to be over", 15, lambda: street.ends("agent"))
        wait_for(f"what the agent had started to end: {programs}", 15,
                 lambda: not set(programs.values()) & set(street.daemon.family()))
        street.play(client)

    def sound(facts):
        client, process, programs = desktop_of(street, "sound")
        facts["programs"] = programs
        if "pipewire" in programs:
            os.kill(programs["pipewire"], signal.SIGKILL)
            killed_us = time.monotonic_ns() // 1000
            wait_for("two seconds of pictures without the sound server", 30, lambda: sum(
                entry["fate"] == "sent" for entry in street.trace("sound", killed_us)) > 2 * FPS)
            facts["server_again"] = wait_for("the sound server to be started again", 30, lambda: (
                programs_under(street, programs["agent"]).get("pipewire")))
            facts["streams"] = street.streams("sound")
        process.kill()
        process.wait()
        client.do("quit")
        street.play(client)

    def hang(facts):
        client, process, programs = desktop_of(street, "hang")
        os.kill(programs["sway"], signal.SIGSTOP)
        stopped_us = time.monotonic_ns() // 1000
        wait_for("a second of the picture that stands still", 30, lambda: sum(
            entry["fate"] == "sent" for entry in street.trace("hang", stopped_us)) > FPS)
        facts["client"] = client.finish(process, "look", 90)
        facts["ends"] = wait_for("the session to be over", 15, lambda: street.ends("hang"))
        wait_for("the programs of a compositor that hangs to end", 30,
                 lambda: not set(programs.values()) & set(street.daemon.family()))
        street.play(client)

    return {"compositor": compositor, "app": app, "agent": agent, "sound": sound} | (
        {"hang": hang} if thorough else {})


def row_of_the_launcher(street):
    """The launcher is killed while a client looks at its desktop, and comes back."""

    def launcher(facts):
        client, process, programs = desktop_of(street, "launcher")
        late = street.house.client("late")
        street.daemon.launcher.kill()
        killed_us = time.monotonic_ns() // 1000
        # What runs goes on, what needs no programs starts, and what does is refused with a reason.
        facts["refused"] = refusal(street, late)
        street.play(late)
        wait_for("two seconds of pictures without the launcher", 30, lambda: sum(
            entry["fate"] == "sent" for entry in street.trace("launcher", killed_us)) > 2 * FPS)
        street.daemon.launcher.start()
        client.do("quit")
        wait_for("the programs to end", 15, lambda: not set(programs.values()) & set(street.daemon.family()))
        process.kill()
        process.wait()
        _, process, _ = desktop_of(street, "late")
        process.kill()
        process.wait()
        late.do("quit")

    return {"launcher": launcher}


def refusal(street, client):
    """Why the host does not start the Desktop for this client."""
    out = street.house.artefacts / client.name
    out.mkdir(exist_ok=True)
    with pytest.raises(AssertionError) as told:
        client.finish(client.begin("look", out=out, seconds=5.0), "look, refused")
    return str(told.value)


def row_of_a_full_disk(street):
    """Nothing more can be written to the state folder while one client pairs and another launches."""
    house, daemon = street.house, street.daemon
    stranger, known = house.stranger("newcomer"), house.client("launched")
    filler = daemon.folder / "state" / "punktfunk" / "filler"

    def disk(facts):
        fill(filler)
        facts["refused"] = pair(stranger, daemon, "4444", "4444", "newcomer")
        street.play(known)
        facts["clients"] = [each["name"] for each in daemon.ask_json("clients", "list", "--json")]
        filler.unlink()
        facts["paired"] = pair(stranger, daemon, "5555", "5555", "newcomer")
        street.play(stranger)

    return {"disk": disk}


def fill(path):
    """Writes until nothing more fits."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1 << 9, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break


@pytest.fixture(scope="module")
def street(house):
    state = house.daemon.folder / "state"
    house.daemon.stop()
    # A disk of its own for the state, small enough to be filled. The daemon starts on it with nothing.
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_BYTES},mode=700,uid={NOBODY},gid={NOBODY}", "tmpfs",
                    state], check=True)
    house.daemon.start()
    house.clients.clear()
    street = Street(house)
    try:
        yield street
    finally:
        street.playing.kill()
        street.playing.wait()
        for relay in street.relays:
            relay.close()
        house.daemon.stop()
        subprocess.run(["umount", "-l", state], check=True)
        house.daemon.start()
        house.clients.clear()


class Watch:
    """Looks at the sibling while something happens."""

    def __init__(self, street):
        self.street = street

    def __enter__(self):
        self.began_us = time.monotonic_ns() // 1000
        self.session = self.street.session("sibling")["id"]
        return self

    def __exit__(self, *_):
        ended_us = time.monotonic_ns() // 1000
        session = self.street.session("sibling")
        assert session and session["id"] == self.session, "the sibling has lost its session"
        trace = [entry for entry in self.street.trace("sibling", self.began_us) if entry["captured_us"] <= ended_us]
        sent = sorted((entry for entry in trace if entry["fate"] == "sent"), key=lambda entry: entry["index"])
        leaves = [entry["last_sent_us"] for entry in sent]
        self.figures = {
            "fps": len(sent) * 1e6 / (ended_us - self.began_us),
            "longest_gap_s": max(after - before for before, after in zip(leaves, leaves[1:])) / 1e6,
            "lost_after_encode": [entry for entry in trace if entry.get("reason") in ("unsendable", "stream-ended")],
            "numbers": [sent[0]["index"], sent[-1]["index"], len(sent)],
        }


@pytest.fixture(scope="module")
def quiet(street):
    """The sibling while nothing happens: what the others are compared with."""
    with Watch(street) as watch:
        time.sleep(3)  # What is measured is this time.
    return watch.figures


@pytest.fixture(scope="module")
def rows(request, street, quiet, measured):
    """Everything that can be done to others while the sibling plays."""
    figures = {"quiet": quiet}
    thorough = "not long" not in request.config.getoption("markexpr")
    for name, scripts in (("clients", rows_of_clients(street)), ("desktops", rows_of_desktops(street, thorough)),
                          ("disk", row_of_a_full_disk(street)), ("launcher", row_of_the_launcher(street))):
        with Watch(street) as watch:
            if len(scripts) > 1:
                street.together(scripts)
            else:
                # On this thread, for the launcher dies with the thread that has started it.
                street.run(*next(iter(scripts.items())))
        figures[name] = watch.figures
    measured["siblings of those who die"] = figures
    return street.rows, figures


def outcome(rows, name):
    row = rows[0][name]
    if row.error:
        raise row.error
    return row.facts


def test_a_client_that_vanishes_while_it_pairs_may_pair_again(rows):
    facts = outcome(rows, "pairing")
    assert facts["asked"], "its request never reached the host, so this test would prove nothing"
    assert facts["paired"]["paired"], facts


@pytest.mark.parametrize("moment", ["launched", "negotiating"])
def test_a_client_that_vanishes_before_its_stream_leaves_its_app(rows, moment):
    session = outcome(rows, moment)["session"]
    assert session and session["app"] == "Test card", session


def test_a_client_that_vanishes_before_its_first_ping_gives_its_stream_back(rows):
    facts = outcome(rows, "connected")
    assert facts["session"] and not facts["session"]["streaming"], facts


def test_a_client_that_vanishes_while_it_plays_is_missed_after_ten_seconds(rows):
    facts = outcome(rows, "playing")
    assert SILENCE_S[0] < facts["quiet_s"] < SILENCE_S[1], facts
    assert facts["same_session"], facts


def test_a_client_that_vanishes_while_it_resumes_finds_its_app_again(rows):
    assert outcome(rows, "resuming")["same_session"]


def test_a_compositor_that_is_killed_ends_its_session(rows):
    facts = outcome(rows, "compositor")
    assert facts["client"]["ended"] not in (None, 0, -1), "the client was not told that the host failed"
    assert len(facts["ends"]) == 1 and "sway" in facts["ends"][0], facts


@pytest.mark.long
def test_a_compositor_that_hangs_ends_its_session(rows):
    facts = outcome(rows, "hang")
    assert facts["client"]["ended"] not in (None, 0, -1), "the client was not told that the host failed"
    assert len(facts["ends"]) == 1, facts


def test_an_agent_that_is_killed_takes_its_session_along(rows):
    facts = outcome(rows, "agent")
    assert facts["client"]["ended"] is not None, facts
    assert len(facts["ends"]) == 1, facts


def test_a_sound_server_that_is_killed_comes_back_and_the_stream_goes_on(rows):
    facts = outcome(rows, "sound")
    assert "pipewire" in facts["programs"], f"no session has a sound server: {facts}"
    assert facts["server_again"] != facts["programs"]["pipewire"] and facts["streams"], facts


def test_a_launcher_that_is_killed_is_missed_only_by_who_starts(rows):
    assert "could not be started" in outcome(rows, "launcher")["refused"], rows[0]["launcher"].facts


def test_an_app_that_is_killed_ends_its_session(rows):
    facts = outcome(rows, "app")
    assert facts["client"]["ended"] == 0, facts


def test_a_full_disk_refuses_a_newcomer_and_loses_nothing(rows):
    facts = outcome(rows, "disk")
    assert not facts["refused"]["paired"], facts
    assert facts["refused"]["answer"] != 0, f"the owner was not told: {facts['refused']}"
    assert "newcomer" not in facts["clients"] and "sibling" in facts["clients"], facts
    assert facts["paired"]["paired"], facts


@pytest.mark.parametrize("what", ["clients", "desktops", "disk", "launcher"])
def test_the_sibling_does_not_notice(rows, what):
    before, after = rows[1]["quiet"], rows[1][what]
    assert not after["lost_after_encode"], after
    first, last, count = after["numbers"]
    assert last - first + 1 == count, "frames that went out are missing in the trace"
    assert after["fps"] >= 0.9 * before["fps"], (before, after)
    assert after["longest_gap_s"] <= max(1.1 * before["longest_gap_s"], LONGEST_GAP_S), (before, after)


def test_a_daemon_that_is_killed_leaves_nothing_and_knows_its_clients(street, rows):
    daemon = street.daemon
    client, process, programs = desktop_of(street, "app")
    assert {"sway", "foot"} <= set(programs), programs
    known = daemon.ask_json("clients", "list", "--json")
    daemon.process.kill()
    daemon.process.wait()
    wait_for(f"every process to end: {daemon.family()}", 15, lambda: not daemon.family() or None)
    summary = client.finish(process, "look, until the host was killed", 60)
    assert summary["ended"] not in (None, 0), "a host that was killed said goodbye"
    daemon.start()
    # The sessions' agents clear up after themselves, whether or not there is a daemon again.
    sessions = daemon.folder / "run" / "punktfunk" / "host.sessions"
    wait_for("what the sessions left to be cleared away", 15, lambda: not list(sessions.glob("*")))
    same = [each["id"] for each in daemon.ask_json("clients", "list", "--json")]
    assert sorted(same) == sorted(each["id"] for each in known)
    street.play(client)
    street.play(street.sibling)
