"""The wall clock of a running host jumps, and nobody notices.

A host of its own runs with libfaketime between it and the C library: its wall clock shows what a file says, and its
monotonic clock what the kernel's does. It wakes in 1970, as a machine whose battery is empty. While a sibling plays,
the clock jumps to a time when every certificate has expired, to one before any of them began, and at last to the truth.
Meanwhile somebody waits at the desk for his PIN, somebody vanishes without a word, and others come.
"""

import os
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bad_line import Relay
from conftest import House, pair
from daemon import Daemon, wait_for
from network import Network
from street import SILENCE_S, Street, Watch, check_unnoticed, outcome, vanish

BATTERY_IS_EMPTY = datetime(1970, 1, 2, tzinfo=UTC)
# Here 32 bits no longer hold the seconds, either.
ALL_HAS_EXPIRED = datetime(2110, 6, 1, tzinfo=UTC)
# The host's own certificate begins in 2020.
NOTHING_HAS_BEGUN = datetime(2016, 6, 1, tzinfo=UTC)
TRUTH = None
JUMPS = {"late": ALL_HAS_EXPIRED, "early": NOTHING_HAS_BEGUN, "in time": TRUTH}
# Two looks at something that counts seconds.
ROUNDING_S = 3
SOON_S = 300
MOST_GROWTH_MIB = 16


class WallClock:
    """What a host takes for the time of day."""

    def __init__(self, folder, shows):
        self._file, self.shown = folder / "clock", []
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self.wrapper = ["env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={self._file}", "FAKETIME_NO_CACHE=1",
                        "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]
        self.set(shows)

    def set(self, shows):
        """From now on it shows this; `TRUTH` is what every other clock does."""
        self._offset_s = round(shows.timestamp() - time.time()) if shows else 0
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._offset_s:+}\n")
        new.rename(self._file)
        self.shown.append(self.now())

    def now(self):
        return time.time() + self._offset_s


@pytest.fixture(scope="module")
def house(request, artefacts, tmp_path_factory):
    if os.getuid() != 0:
        pytest.fail("network namespaces need root: run ci/test stream")
    with Network("t") as network:
        daemon = Daemon(request.config.getoption("--daemon"), network.host, artefacts / "clock-daemon.log")
        daemon.environment["PUNKTFUNK_LIMITS__SESSIONS"] = "10"
        house = House(network, daemon, artefacts, tmp_path_factory)
        house.clock = WallClock(daemon.folder, BATTERY_IS_EMPTY)
        daemon.wrapper = house.clock.wrapper
        try:
            daemon.start()
            yield house
        finally:
            daemon.discard()
            pid = daemon.process and daemon.process.pid
            for left in Path("/dev/shm").glob(f"*faketime_*_{pid}"):
                left.unlink()


class Desk:
    """A request for pairing that waits for its PIN; it comes from an address that no other comes from."""

    def __init__(self, house):
        self.house, self.client = house, house.stranger("waiting")
        self.relay = Relay(house.network, house.artefacts / "waiting-relay.json")
        self.asking = self.client.begin("pair", pin="1111", address=self.relay.address)
        self.began_s, self.first = wait_for("the request that waits", 30, self.look)

    def look(self):
        """When this is, and the request as it stands."""
        requests = self.house.daemon.ask_json("pairing", "list", "--json")["pending"]
        mine = next((each for each in requests if each["remote"] == self.relay.address), None)
        return mine and (time.monotonic(), mine)

    def astray_s(self):
        """By how much more or less than the time that has passed the request's own time has become shorter; `None`
        once it waits no more."""
        looked = self.look()
        if looked is None:
            return None
        at_s, request = looked
        return self.first["expires_seconds"] - request["expires_seconds"] - (at_s - self.began_s)

    def answer(self):
        number = str(self.first["id"])
        answered = self.house.daemon.ask("pair", "1111", "--name", "waiting", "--request", number, check=False)
        return self.client.finish(self.asking, "pair") | {"answer": answered.returncode}

    def close(self):
        self.asking.kill()
        self.asking.wait()
        self.relay.close()


@pytest.fixture(scope="module")
def street(house):
    """The sibling pairs and begins to play in 1970."""
    street = Street(house)
    try:
        yield street
    finally:
        street.playing.kill()
        street.playing.wait()
        for relay in street.relays:
            relay.close()


@pytest.fixture(scope="module")
def rows(house, street, measured):
    """What became of each, of the sibling before and meanwhile, and those who came after a jump."""
    daemon, victim, gone = house.daemon, house.client("victim"), threading.Event()
    newcomers = {name: house.stranger(name) for name in JUMPS}
    desk = Desk(house)

    def vanishing(facts):
        try:
            vanish(street, victim, "playing")
        finally:
            gone.set()
        facts["quiet_s"] = street.wait_until_quiet("victim")
        street.play(victim)

    def jumping(facts):
        assert gone.wait(120)
        for name, shows in JUMPS.items():
            house.clock.set(shows)
            facts[name] = pair(newcomers[name], daemon, "2222", "2222", name)
            street.play(newcomers[name])
            facts[name]["desk_astray_s"] = desk.astray_s()
        facts["desk"] = desk.answer()

    try:
        with Watch(street) as quiet:
            time.sleep(3)  # What is measured is this time.
        before_mib = daemon.rss_mib()
        with Watch(street) as watch:
            street.together({"vanishing": vanishing, "jumping": jumping})
        grown_mib = daemon.rss_mib() - before_mib
    finally:
        desk.close()
    figures = {"quiet": quiet.figures, "jumps": watch.figures, "grown_mib": grown_mib}
    measured["the wall clock jumps"] = figures
    return street.rows, figures, newcomers


def known(house):
    """The paired clients by name."""
    return {each["name"]: each for each in house.daemon.ask_json("clients", "list", "--json")}


def year(seconds):
    return datetime.fromtimestamp(seconds, UTC).year


def test_the_host_believed_its_clock(house, rows):
    outcome(rows, "jumping")
    paired = {name: year(each["paired_at"]) for name, each in known(house).items()}
    wanted = {"sibling": 1970, "late": 2110, "early": 2016, "in time": datetime.now(UTC).year}
    assert paired | wanted == paired, "the clock did not jump, so the other tests prove nothing"
    stamps = {int(stamp) for stamp in re.findall(r"^(\d{4})-\d\d-\d\dT", house.daemon.log(), re.MULTILINE)}
    assert stamps >= set(wanted.values()), stamps


@pytest.mark.parametrize("name", JUMPS)
def test_whoever_comes_after_a_jump_pairs_and_plays(rows, name):
    facts = outcome(rows, "jumping")
    assert facts[name]["paired"], facts[name]


def test_a_request_waits_as_long_as_it_would_have(rows):
    facts = outcome(rows, "jumping")
    astray = {name: facts[name]["desk_astray_s"] for name in JUMPS}
    assert all(seconds is not None and abs(seconds) < ROUNDING_S for seconds in astray.values()), astray
    assert facts["desk"]["paired"] and facts["desk"]["answer"] == 0, facts["desk"]


def test_a_client_that_vanishes_is_missed_after_ten_seconds_of_no_wall_clock(rows):
    facts = outcome(rows, "vanishing")
    assert SILENCE_S[0] < facts["quiet_s"] < SILENCE_S[1], facts


def test_the_sibling_does_not_notice(rows):
    check_unnoticed(rows[1]["quiet"], rows[1]["jumps"])


def test_when_somebody_was_last_here_becomes_true_again(house, rows):
    outcome(rows, "jumping"), outcome(rows, "vanishing")
    for name, each in known(house).items():
        nearest = min(abs(each["last_seen_at"] - shown) for shown in house.clock.shown)
        assert nearest < SOON_S, f"{name} was seen at a time that the clock never showed: {each}"
    assert year(known(house)["late"]["last_seen_at"]) == 2110
    # Who was here in the future comes again.
    for name in ("late", "early"):
        rows[2][name].do("info")
        assert abs(known(house)[name]["last_seen_at"] - time.time()) < SOON_S, known(house)[name]


def test_nothing_is_broken_by_it(house, rows):
    log = house.daemon.log()
    bad = [line for line in log.splitlines() if "panicked" in line or " ERROR " in line]
    assert not bad, bad
    assert rows[1]["grown_mib"] < MOST_GROWTH_MIB, rows[1]
    assert house.daemon.stop() == 0
