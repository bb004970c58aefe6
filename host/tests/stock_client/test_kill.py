"""Whatever dies, nobody else notices, and the next launch works.

A sibling plays all the time. Meanwhile clients vanish without a word at each step of their way, compositors and apps
are killed, the disk is full; at last the daemon itself is killed. What must follow is the table "When parts die" in
docs/ARCHITECTURE.md. Rows that do not touch each other run at the same time, for most of them wait for time to pass.
"""

import os
import signal
import subprocess
import time

import pytest

from conftest import pair, pending
from daemon import NOBODY, wait_for
from street import FPS, SILENCE_S, Street, Watch, check_unnoticed, outcome, vanish

STATE_BYTES = 4 << 20


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
    check_unnoticed(rows[1]["quiet"], rows[1][what])


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
