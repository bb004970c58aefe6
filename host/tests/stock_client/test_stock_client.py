"""A stock client finds, pairs with and plays the real daemon.

The tests run in the order of this file and tell one story: a new device comes into the house, is paired, plays, leaves,
comes back, quits; then the host is switched off. Time limits are for a loaded machine; no test waits a fixed time for
something that it could watch.
"""

import json
import re
import time

import numpy as np
import pytest

import sound
from conftest import pending
from daemon import Daemon, wait_for
from network import HOST_V4, HOST_V6, Network, ip

SECONDS = 10.0
FPS = 30
IDLE_SECONDS = 60
# What an idle host may hold, at first and after all kinds of streams: 25 MB. docs/BENCHMARKS.md says what it is made of.
IDLE_RSS_MIB = 25e6 / 2**20


def test_a_fresh_host_is_small(request, artefacts, measured):
    # One that nobody has played on.
    with Network("f") as street:
        daemon = Daemon(request.config.getoption("--daemon"), street.host, artefacts / "fresh-daemon.log")
        try:
            daemon.start()
            measured["fresh host"] = {"rss_mib": daemon.rss_mib(), "processes": len(daemon.family())}
            maps = daemon.maps("libx264", "libavcodec")
        finally:
            daemon.discard()
    assert measured["fresh host"]["processes"] == 1, measured["fresh host"]
    assert measured["fresh host"]["rss_mib"] <= IDLE_RSS_MIB, measured["fresh host"]
    assert not maps, "the encoder's library is there while nobody streams"


# spec: gamestream 13 item 1
def test_multicast_dns_finds_the_host(client):
    found = client.do("discover", deadline=20.0)
    assert found["services"], "no _nvstream._tcp service was seen"
    service = found["services"][0]
    assert service["port"] == 47989
    assert HOST_V4 in service["addresses"]
    assert HOST_V6 in service["addresses"]
    assert service["properties"] == 0
    assert [server["address"] for server in found["servers"]] == [HOST_V4], "the client's own search"


# spec: gamestream 13 item 29
# spec: gamestream 13 item 30
# spec: gamestream 13 item 37
# spec: gamestream 13 item 123
def test_a_wrong_pin_is_refused_and_the_right_one_pairs(paired, daemon):
    client, wrong, right = paired
    assert not wrong["paired"] and wrong["error"] == "WrongPinError", wrong
    assert wrong["answer"] != 0, f"the owner was not told that the PIN was wrong: {wrong['said']}"
    assert right["paired"], right
    assert right["answer"] == 0, right["said"]
    assert not pending(daemon)
    # By itself: four digits also stand in fingerprints and in fractions of a second.
    said = re.search(r"(?<![0-9A-Za-z:.])(4321|0808)(?![0-9A-Za-z:])", daemon.log())
    assert not said, f"a PIN is in the log: {said}"


# spec: gamestream 13 item 23
def test_a_stranger_sees_no_apps(client, daemon, tmp_path):
    stranger = client.begin("apps", config=tmp_path, out=tmp_path)
    with pytest.raises(AssertionError, match="HttpResponseError.*401|401.*HttpResponseError|not authorized"):
        client.finish(stranger, "apps of a stranger")


# spec: gamestream 13 item 8
def test_a_paired_client_learns_how_to_wake_the_host(paired, network):
    said = paired[0].do("info")
    cable = json.loads(ip("-n", network.host, "-j", "link", "show", "dev", network.cable[0]).stdout)[0]
    assert said["own"]["mac"] == cable["address"]
    assert said["stranger"]["mac"] == "00:00:00:00:00:00"


# spec: gamestream 13 item 17
# spec: gamestream 13 item 18
def test_the_apps_are_listed_with_pictures(paired, artefacts):
    apps = {app["name"]: app for app in paired[0].do("apps", out=artefacts)["apps"]}
    assert list(apps) == ["Test card", "Desktop"]
    for app in apps.values():
        assert (app["status"], app["art"], app["type"]) == (200, "PNG", "image/png"), app
        assert app["size"] == [600, 800]
        assert 0 < app["id"] < 2**31


@pytest.fixture(scope="module")
def card_run(paired, daemon, measured):
    """Ten seconds of the Test card: what the client saw and heard, and what the host says it did."""
    client, _, _ = paired
    summary, out = client.play("card", "test-card", SECONDS)
    seen = json.loads((out / "seen.json").read_text())
    trace = traces(daemon, "Test card")
    (out / "trace.json").write_text(json.dumps(trace))
    measured["test card"] = summary
    return seen, np.load(out / "sound.npz"), trace, measured["test card"]


# spec: gamestream 13 item 57
def test_the_card_is_seen(card_run, measured):
    seen, _, _, summary = card_run
    assert summary["ended"] is None, "the host ended the stream"
    codes = [picture for picture in seen if picture["frame"] is not None]
    assert len(codes) >= 0.98 * len(seen), "pictures whose number cannot be read"
    assert min(picture["mean"] for picture in seen) > 60, "the card is dark"
    numbers = [picture["frame"] for picture in codes]
    assert numbers == sorted(numbers), "pictures came out of order"
    shown = numbers[-1] - numbers[0] + 1
    assert len(set(numbers)) >= 0.95 * shown, f"{len(set(numbers))} of {shown} pictures were decoded"
    wanted = (codes[-1]["time_us"] - codes[0]["time_us"]) * FPS / 1e6 + 1
    assert len(set(numbers)) >= 0.9 * wanted, f"{len(set(numbers))} pictures in {wanted / FPS:.1f} s"
    ages = np.array([picture["at_us"] - picture["time_us"] for picture in codes]) / 1000
    assert ages.min() > 0, "a picture was seen before it was captured"
    measured["test card"] |= {
        "decoded": len(set(numbers)), "shown": shown,
        "capture_to_decoded_ms": {"p50": float(np.median(ages)), "p99": float(np.percentile(ages, 99))}}


def test_each_missing_picture_is_one_that_the_host_dropped(card_run):
    seen, _, trace, _ = card_run
    codes = {picture["frame"]: picture["time_us"] for picture in seen if picture["frame"] is not None}
    first, last = min(codes), max(codes)
    # A picture is captured at the moment that its strip names; an earlier stream of the session has other moments.
    within = [entry for entry in trace if codes[first] <= entry["captured_us"] <= codes[last]]
    fates = {entry["source"]: entry["fate"] for entry in within if not entry["repeated"]}
    assert len(fates) >= 0.95 * (last - first + 1), "the host's trace is too short to explain anything"
    unexplained = {number: fates.get(number, "not in the trace") for number in range(first, last + 1)
                   if number not in codes and fates.get(number) != "dropped"}
    assert not unexplained, f"pictures that were never seen, though the host did not drop them: {unexplained}"


def test_the_tone_and_the_beeps_are_heard(card_run, measured):
    _, heard, _, summary = card_run
    samples = heard["samples"][:, :, 0].ravel()
    assert len(samples) > 5 * sound.RATE, f"only {len(samples) / sound.RATE:.1f} s of sound"
    onsets = sound.beep_onsets(samples)
    assert len(onsets) >= 4, onsets
    # Between two beeps there is nothing but the pilot tone.
    between = samples[onsets[1] + sound.RATE // 5 : onsets[1] + sound.RATE * 4 // 5]
    assert abs(sound.strongest_hz(between) - sound.PILOT_HZ) < 5
    assert -46 < sound.level_db(between, sound.PILOT_HZ) < -34
    beep = samples[onsets[1] + 480 : onsets[1] + 1920]
    assert abs(sound.strongest_hz(beep) - sound.BEEP_HZ) < 30
    lost = sum(summary["sound_lost"].values())
    assert lost <= 0.02 * len(heard["index"]), summary["sound_lost"]


def test_beep_and_flash_are_one_event(card_run, measured):
    seen, heard, _, _ = card_run
    samples = heard["samples"][:, :, 0].ravel()
    packet = heard["samples"].shape[1]
    beeps = np.array([heard["at_us"][onset // packet] for onset in sound.beep_onsets(samples)])
    flashes = np.array([now["at_us"] for before, now in zip(seen, seen[1:])
                        if now["flash"] and not before["flash"]])
    assert len(flashes) >= SECONDS - 3, "flashes that were not seen"
    distances = [(beep - flashes[np.abs(flashes - beep).argmin()]) / 1000 for beep in beeps]
    middle = float(np.median(distances))
    measured["test card"]["sound_after_picture_ms"] = middle
    assert abs(middle) < 150, f"beeps come {middle:.0f} ms after the flashes: {distances}"


@pytest.fixture(scope="module")
def desktop_run(paired, daemon, measured, card_run):
    """The Desktop, once the Test card has been quit: the host runs one app for a client."""
    assert paired[0].do("quit")["quit"]
    assert running(daemon) == []
    summary, out = paired[0].play("desktop", "desktop", SECONDS)
    trace = traces(daemon, "Desktop")
    (out / "trace.json").write_text(json.dumps(trace))
    measured["desktop"] = summary
    return summary, trace


def test_the_desktop_moves_and_is_decoded(desktop_run):
    summary, trace = desktop_run
    assert summary["ended"] is None, "the host ended the stream"
    assert summary["moving"] > 0.5, "less than half of the pictures differ from the one before"
    sent = sum(entry["fate"] == "sent" for entry in trace)
    assert sent > 5 * FPS, "the host's trace is too short"
    # The client's decoder keeps its last two pictures to itself, and the last one sent may be on its way.
    assert summary["pictures"] >= 0.95 * sent - 3, f"{summary['pictures']} of {sent} pictures were decoded"
    assert summary["pictures"] >= 0.9 * FPS * (summary["ran_s"] - summary["first_picture_s"]) - FPS


def test_keys_and_text_arrive_on_the_desktop(desktop_run):
    summary, _ = desktop_run
    assert summary["shares"]["before"] < 0.01, summary["shares"]
    assert summary["keyed"], f"the typed command did not paint the terminal: {summary['shares']}"
    assert summary["sent"], f"the text sent did not paint the terminal: {summary['shares']}"


# spec: gamestream 13 item 80
def test_a_client_that_left_comes_back_to_the_same_desktop(desktop_run, paired, daemon, measured):
    before = running(daemon)
    assert [session["app"] for session in before] == ["Desktop"]
    wait_for("the stream to end", 20, lambda: not running(daemon)[0]["streaming"])
    summary, _ = paired[0].play("look", "resumed", 10.0)
    measured["resumed desktop"] = summary
    assert summary["still"], "the desktop is not as it was left"
    assert [session["id"] for session in running(daemon)] == [before[0]["id"]], "it is another session"


LEFT_HZ, RIGHT_HZ, TONE_DB, TONE_SECONDS = 700, 1900, -12.0, 6


def test_programs_on_the_desktop_are_heard(desktop_run, paired, daemon, artefacts, measured):
    out = artefacts / "programs"
    out.mkdir(exist_ok=True)
    said = daemon.folder / "said"
    said.touch()
    said.chmod(0o666)
    tone = daemon.folder / "tone.wav"
    sound.write_tones(tone, (LEFT_HZ, RIGHT_HZ), TONE_DB, TONE_SECONDS)
    tone.chmod(0o644)
    play = daemon.folder / "play"
    play.write_text(f"pw-cli ls Node >{said}\nexec pw-play {tone}\n")
    play.chmod(0o644)
    summary = paired[0].do("listen", out=out, seconds=TONE_SECONDS + 2.0, command=f"sh {play}")
    measured["programs"] = summary
    nodes = said.read_text()
    assert nodes.count('node.name = "punktfunk"') == 1, nodes
    assert nodes.count('media.class = "Audio/Sink"') == 1 and "alsa" not in nodes, nodes
    before = np.load(out / "before.npz")["samples"]
    assert len(before) > 100 and abs(before).max() < 0.003, "the Desktop is not silent before anything plays"
    heard = np.load(out / "sound.npz")["samples"]
    channels = [heard[:, :, side].ravel() for side in (0, 1)]
    loud = np.flatnonzero(abs(channels[0]) > 0.05)
    assert len(loud), "nothing was heard"
    # From soon after the beginning of the tone; it lasts longer than this.
    second = slice(loud[0] + sound.RATE // 2, loud[0] + sound.RATE * 5 // 2)
    for samples, own, other in ((channels[0], LEFT_HZ, RIGHT_HZ), (channels[1], RIGHT_HZ, LEFT_HZ)):
        assert abs(sound.strongest_hz(samples[second]) - own) < 5
        best = max(sound.level_db(samples[at : at + sound.RATE // 10], own)
                   for at in range(second.start, second.stop - sound.RATE // 10, sound.RATE // 20))
        assert abs(best - TONE_DB) < 1.5, f"{own} Hz is heard at {best:.1f} dB"
        assert sound.level_db(samples[second], other) < TONE_DB - 20, "the sides are mixed"
    blocks = abs(channels[0][second]).reshape(-1, 480).max(axis=1)
    summary["sounding"] = float((blocks > 0.1).mean())
    assert summary["sounding"] > 0.8, "the tone is full of holes"


# spec: gamestream 13 item 48
def test_quitting_leaves_no_process(desktop_run, paired, daemon):
    assert len(daemon.family()) > 1, "the Desktop has no process, so this test would prove nothing"
    assert paired[0].do("quit")["quit"]
    assert running(daemon) == []
    wait_for(f"the app's processes to end: {daemon.family()}", 15, lambda: len(daemon.family()) == 1)


@pytest.mark.long
def test_an_idle_host_costs_next_to_nothing(paired, daemon, measured):
    wait_for("the last app's processes to end", 15, lambda: len(daemon.family()) == 1)
    before = daemon.cpu_s()
    time.sleep(IDLE_SECONDS)  # What is measured is this time.
    idle = {"cpu_percent": (daemon.cpu_s() - before) * 100 / IDLE_SECONDS, "rss_mib": daemon.rss_mib(),
            "processes": len(daemon.family())}
    measured["idle host"] = idle
    assert idle["cpu_percent"] <= 0.1, idle
    assert idle["processes"] == 1, f"something runs beside the host: {daemon.family()}"
    assert idle["rss_mib"] <= IDLE_RSS_MIB, idle
    assert not daemon.maps("libx264"), "the encoder's library stayed after the last stream"


@pytest.mark.long
@pytest.mark.parametrize("width,height", [(1280, 720), (1920, 1080)])
def test_figures_at_60_hz(paired, daemon, measured, width, height):
    client, _, _ = paired
    playing = client.begin("measure", seconds=15.0, width=width, height=height, fps=60)
    wait_for("the stream", 60, lambda: playing.poll() is not None or any(
        session["streaming"] for session in running(daemon)))
    began_us, cpu = time.monotonic_ns() // 1000, daemon.cpu_s()
    summary = client.finish(playing, "measure")
    cpu = daemon.cpu_s() - cpu
    trace = [entry for entry in traces(daemon, "Test card") if entry["captured_us"] >= began_us]
    client.do("quit")
    sent = [entry for entry in trace if entry["fate"] == "sent"]
    assert summary["pictures"] > 0 and len(sent) > 0
    way = ["captured_us", "encode_began_us", "encoded_us", "first_sent_us", "last_sent_us"]
    stages = dict(zip(["wait", "encode", "packetize", "send"], zip(way, way[1:])))
    measured[f"test card {width}x{height}@60"] = summary | {
        "sent": len(sent), "dropped": len(trace) - len(sent), "cpu_ms_per_frame": cpu * 1000 / len(sent),
        "kib_per_frame": float(np.mean([entry["bytes"] for entry in sent])) / 1024,
        "host_latency_ms": percentiles(sent, way[0], way[-1]),
        "stages_ms": {name: percentiles(sent, *ends) for name, ends in stages.items()}}


@pytest.mark.long
def test_a_minute_of_the_card(paired, daemon, measured):
    client, _, _ = paired
    summary, out = client.play("card", "test-card-minute", 60.0)
    codes = [picture["frame"] for picture in json.loads((out / "seen.json").read_text()) if picture["frame"]]
    client.do("quit")
    measured["a minute of the test card"] = summary
    assert len(set(codes)) >= 0.95 * (codes[-1] - codes[0] + 1)


@pytest.mark.long
def test_ten_launches_leave_nothing(paired, daemon, measured):
    client, _, _ = paired
    held = []
    for number in range(10):
        client.play(["card", "look"][number % 2], "again", 1.0)
        client.do("quit")
        wait_for("the app's processes to end", 15, lambda: len(daemon.family()) == 1)
        held.append({"descriptors": daemon.descriptors(), "threads": daemon.threads(), "rss_mib": daemon.rss_mib()})
    measured["after each launch, Test card and Desktop in turns"] = held
    warm, end = held[2:4], held[8:]
    for what, allowance in (("descriptors", 0), ("threads", 1), ("rss_mib", 1)):
        least = [min(counts[what] for counts in some) for some in (warm, end)]
        assert least[1] <= least[0] + allowance, f"{what} grow: {held}"


# spec: gamestream 13 item 81
def test_a_stopped_host_leaves_nothing_and_tells_its_client(paired, daemon, artefacts):
    client, _, _ = paired
    out = artefacts / "stopped"
    out.mkdir(exist_ok=True)
    playing = client.begin("desktop", out=out, seconds=60.0)
    wait_for("the client to see the desktop", 60, (out / "before.png").exists)
    assert daemon.stop() == 0
    assert wait_for("every process to end", 10, lambda: not daemon.family() or None) is True
    assert not daemon.socket.exists()
    summary = client.finish(playing, "desktop, until the host stopped", 60)
    # 0 is the end that a host announced; a connection that broke off is -1.
    assert summary["ended"] == 0, summary


def test_a_restarted_host_knows_its_client(paired, daemon):
    daemon.start()
    assert [app["name"] for app in paired[0].do("apps", out=daemon.folder)["apps"]] == ["Test card", "Desktop"]
    assert daemon.stop() == 0


def percentiles(entries, since, until):
    """How long frames took from one stamp to another, in milliseconds."""
    took = np.array([entry[until] - entry[since] for entry in entries]) / 1000
    return {"p50": float(np.median(took)), "p99": float(np.percentile(took, 99))}


def running(daemon):
    """The sessions that live, as the owner sees them."""
    return [session for session in daemon.ask_json("sessions", "--json") if not session.get("ended")]


def traces(daemon, title):
    """What the host says became of each picture of the session that runs this app."""
    session = next(session for session in running(daemon) if session["app"] == title)
    return daemon.ask_json("sessions", "--trace", str(session["id"]), "--json")
