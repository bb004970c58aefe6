"""A house in which things happen to one client while its sibling plays all the time and must not notice."""

import threading
import time
from dataclasses import dataclass, field

from bad_line import Relay
from daemon import wait_for

FPS = 30
# What a busy machine does to a stream by itself. A sibling that notices something misses more than that.
LONGEST_GAP_S = 0.5
# After this long without a word a client is gone (docs/ARCHITECTURE.md); the rest is for a busy machine.
SILENCE_S = (8.0, 10.0 + 15.0)
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


def check_unnoticed(before, after):
    """Judges what a `Watch` saw by what another saw while nothing happened."""
    assert not after["lost_after_encode"], after
    first, last, count = after["numbers"]
    assert last - first + 1 == count, "frames that went out are missing in the trace"
    assert after["fps"] >= 0.9 * before["fps"], (before, after)
    assert after["longest_gap_s"] <= max(1.1 * before["longest_gap_s"], LONGEST_GAP_S), (before, after)


def outcome(rows, name):
    """What became of a row; raises what it has raised."""
    row = rows[0][name]
    if row.error:
        raise row.error
    return row.facts
