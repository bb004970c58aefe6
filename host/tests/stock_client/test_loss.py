"""What a bad network does to a stock client: nothing that parity makes up for, and never for long.

A relay in the client's namespace loses datagrams by a seeded model. The host's trace says which frame, block and shard
each datagram was, so it is known which pictures the client must have shown in spite of the losses.
"""

import json
import subprocess
import time

import pytest

from bad_line import Relay
from daemon import wait_for
from losses import breaks, frame_of_each_datagram, frames_of, lost_sound, verdicts
from network import HOST_V4, inside

SEED = 20_261_122
# From the first frame that cannot be shown to the next IDR picture: the client has to notice and to ask, both on a
# machine that does other things as well.
LONGEST_WAIT_FOR_AN_IDR_S = 0.5

RANDOM = {percent: {"name": f"{percent} %", "loss": percent / 100} for percent in (1, 5, 15)}
# Bursts of five datagrams on average, of which nearly all are lost.
BURSTS = {"name": "bursts", "turn_bad": 0.01, "turn_good": 0.2, "loss": 0.9}
SOUND = {"name": "sound", "loss": 0.05}


def overflows(namespace):
    """How many datagrams the kernel of a namespace threw away because a program did not fetch them."""
    text = subprocess.run(inside(namespace, ["cat", "/proc/net/snmp"]), capture_output=True, text=True, check=True).stdout
    names, values = [line.split()[1:] for line in text.splitlines() if line.startswith("Udp:")]
    return int(dict(zip(names, values))["RcvbufErrors"])


def play(house, name, seconds, video, audio=(), verb="card", **options):
    """Plays through a relay. Returns (frames the host sent, the relay's log, what was written down of each picture that
    was seen, summary)."""
    client, namespace = house.client("on-a-bad-line"), house.network.client
    out = house.artefacts / name
    out.mkdir(exist_ok=True)
    for _ in range(3):
        before, began_us = overflows(namespace), time.monotonic_ns() // 1000
        with Relay(house.network, out / "relay.json", video=video, audio=audio, seed=SEED) as relay:
            summary = client.do(verb, out=out, seconds=seconds, address=relay.address, **options)
        session = next(each for each in house.daemon.ask_json("sessions", "--json") if not each.get("ended"))
        wait_for("the stream to end", 20, lambda: not any(
            each["streaming"] for each in house.daemon.ask_json("sessions", "--json")))
        trace = house.daemon.ask_json("sessions", "--trace", str(session["id"]), "--json")
        client.do("quit", address=HOST_V4)
        # Where the machine itself lost datagrams nobody can say which; such a run proves nothing.
        if overflows(namespace) == before:
            break
    else:
        pytest.fail("this machine is too slow to lose only what it is told to")
    trace = [entry for entry in trace if entry["captured_us"] >= began_us]
    (out / "trace.json").write_text(json.dumps(trace))
    return frames_of(trace), relay.rows(), json.loads((out / "seen.json").read_text()), summary


def pictures_of_the_card(frames, seen):
    """Which frames were seen, by what the pictures of the Test card say of themselves."""
    read = {each["frame"] for each in seen}
    return {frame.index for frame in frames if frame.source in read}


def check(frames, rows, shown, fps=30):
    """Judges a run by the numbers of the frames that were shown; returns its figures."""
    owner = frame_of_each_datagram(frames)
    astray = [row for row in rows["video"] if owner.get(row[4]) != row[5]]
    assert not astray, f"the trace does not explain these datagrams: {astray[:5]}"
    sizes = {row[1] for row in rows["video"]}
    assert len(sizes) == 1 and max(sizes) <= 1500, f"the relay met something other than single datagrams: {sizes}"

    judged = verdicts(frames, {row[4] for row in rows["video"] if not row[3]})
    # The client's decoder keeps its last pictures to itself, and the end of the stream may be on its way.
    last = max(shown)
    until = [verdict for verdict in judged if verdict.frame.index <= last]
    unseen = [verdict.frame.index for verdict in until if verdict.showable and verdict.frame.index not in shown]
    assert not unseen, "pictures that were never shown, though nothing that they need was lost for good"
    saved = [verdict for verdict in until if verdict.showable and verdict.repaired]

    waits = [(after.index - frame.index if after else None, frame) for frame, after in breaks(judged)]
    slow = [(wait, frame.index) for wait, frame in waits
            if (wait or judged[-1].frame.index - frame.index) > fps * LONGEST_WAIT_FOR_AN_IDR_S]
    assert not slow, f"no IDR picture followed for too many frames: {slow}"
    return {
        "frames": len(frames), "seen": len(shown), "saved": len(saved), "breaks": len(waits),
        "lost": sum(row[3] for row in rows["video"]), "datagrams": len(rows["video"]),
        "unrecoverable": sum(not verdict.recoverable for verdict in judged),
        "frames_to_an_idr": sorted(wait for wait, _ in waits if wait is not None),
    }


def test_a_verdict_counts_shards_by_block_and_follows_references():
    sizes = [("idr", [(2, 1)]), ("predicted", [(2, 1), (1, 1)]), ("predicted", [(3, 1)]), ("predicted", [(1, 1)]),
             ("idr", [(1, 2)]), ("predicted", [(1, 1)])]
    trace, number = [], 65_530
    for index, (kind, blocks) in enumerate(sizes, 1):
        shards = sum(map(sum, blocks))
        trace.append({"fate": "sent", "index": index, "kind": kind, "source": index - 1, "last_sent_us": index,
                      "first_sequence": number & 0xFFFF, "datagrams": shards,
                      "blocks": [{"data": data, "parity": parity} for data, parity in blocks]})
        number += shards
    frames = frames_of(trace)
    assert [frame.first for frame in frames] == [65_530, 65_533, 65_538, 65_542, 65_544, 65_547]
    # One of each block, then two of one block, then an IDR picture of which parity alone is left.
    lost = {65_531, 65_533, 65_536, 65_538, 65_541, 65_544, 65_545}
    judged = verdicts(frames, set(frame_of_each_datagram(frames)) - lost)
    assert [verdict.showable for verdict in judged] == [True, True, False, False, True, True]
    assert [verdict.repaired for verdict in judged] == [True, True, False, False, True, False]
    assert [(frame.index, after.index) for frame, after in breaks(judged)] == [(3, 5)]


def test_a_network_that_gets_worse_and_better_again(house, measured):
    """One stream meets each kind of loss for a while, and sound loses packets all the time."""
    kinds = [RANDOM[1], RANDOM[5], RANDOM[15], BURSTS]
    frames, rows, seen, summary = play(
        house, "loss", 15.0, [[3.0, kind] for kind in kinds], [[60.0, SOUND]])
    figures = check(frames, rows, pictures_of_the_card(frames, seen))
    assert {row[2] for row in rows["video"]} == {kind["name"] for kind in kinds} | {"calm"}
    assert figures["saved"] >= 20, figures
    assert figures["breaks"] >= 3, figures
    lost, restored = lost_sound(rows["audio"])
    sound = {"lost": lost, "restored": restored, "client": summary["sound_lost"]}
    measured["a bad network"] = figures | {"sound": sound}
    assert restored >= 50, sound
    # Nothing is missing but what too much was lost of: with six in a hundred that is about one packet in a thousand.
    assert summary["sound_lost"]["lost"] <= lost - restored, sound


@pytest.mark.long
@pytest.mark.parametrize("kind", [RANDOM[1], RANDOM[5], RANDOM[15], BURSTS], ids=lambda kind: kind["name"])
def test_half_a_minute_of_loss(house, measured, kind):
    frames, rows, seen, _ = play(house, f"loss-{kind['name'].replace(' %', '')}", 30.0, [[40.0, kind]])
    figures = check(frames, rows, pictures_of_the_card(frames, seen))
    measured[f"half a minute of loss: {kind['name']}"] = figures
    assert figures["saved"] >= 10, figures


@pytest.mark.long
def test_loss_at_sixty_pictures_a_second(house, measured):
    frames, rows, seen, _ = play(house, "loss-60", 20.0, [[30.0, RANDOM[5]]], fps=60)
    measured["loss at 60 fps"] = figures = check(frames, rows, pictures_of_the_card(frames, seen), fps=60)
    assert figures["saved"] >= 10, figures


@pytest.mark.long
def test_loss_on_the_desktop(house, measured):
    """Its pictures come when something moves, and none says which it is: the client's own numbers tell."""
    frames, rows, seen, summary = play(
        house, "loss-desktop", 20.0, [[30.0, RANDOM[5]]], verb="count", title="Desktop", fps=60)
    # One may be in its hands.
    assert 0 <= summary["undecoded"] <= 1, f"the decoder made no picture of frames that it was given: {summary}"
    measured["loss on the desktop"] = figures = check(frames, rows, {each["number"] for each in seen}, fps=60)
    assert figures["saved"] >= 10, figures
