"""A stream plays while its owner looks at it: ten pages follow its figures, others call the API, and the client sees
every picture that was encoded.

Time is only measured, never asserted: the figures go to `measured.json`, and docs/BENCHMARKS.md says what they were.
"""

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from api import Api
from conftest import HERE, Client, pair
from daemon import Daemon, wait_for
from network import HOST_V4, Network, inside
from test_stock_client import percentiles, running, traces

CONSOLE_PORT = 47990
FOLLOWERS = 10
# The name of the threads that answer callers.
ANSWERING = "pf-control"
# Long enough that each follower is told figures, once a second, some times over.
WINDOW_S = 3.0
LONG_WINDOW_S = 20.0
# What a console asks for, again and again; the session's number is filled in.
ASKED = ["/status", "/sessions", "/sessions/SESSION", "/clients", "/pairing", "/logs?limit=200", "/settings", "/health"]
CALL_EVERY_MS = 25


class Owned:
    """A claimed host that a device is paired with, and tokens for its API."""

    def __init__(self, street, daemon, client, tokens):
        self.street, self.daemon, self.client, self.tokens = street, daemon, client, tokens

    def caller(self, verb, **task):
        """A process on the client's machine that calls the API; api_callers.py says what the task is."""
        process = subprocess.Popen(inside(self.street.client, [sys.executable, "-B", HERE / "api_callers.py", verb]),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        task |= {"address": HOST_V4, "port": CONSOLE_PORT, "tokens": self.tokens}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return process

    def calls(self, paths, seconds):
        """How long each path took over that time, in milliseconds, one call after the other."""
        process = self.caller("call", paths=paths, seconds=seconds, every_ms=CALL_EVERY_MS)
        took = finished(process, 60 + seconds)
        return [one for path in paths for one in took[path]]

    @contextmanager
    def followed(self, path):
        """Ten follow this path; yields a list that afterwards holds what each of them heard."""
        process, heard = self.caller("follow", path=path, count=FOLLOWERS), []
        try:
            said = process.stdout.readline()
            if not said:
                finished(process, 10)
            assert said.strip() == "following", said
            yield heard
            heard.extend(finished(process, 30))
        finally:
            process.kill()
            process.wait()


def finished(process, deadline_s):
    output, errors = process.communicate(timeout=deadline_s)
    assert process.returncode == 0, errors[-4000:]
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def owned(request, artefacts, tmp_path_factory):
    log = artefacts / "owned-daemon.log"
    # The link is looked for in it, and each host has its own.
    log.unlink(missing_ok=True)
    with Network("o") as street:
        daemon = Daemon(request.config.getoption("--daemon"), street.host, log)
        try:
            daemon.start()
            api = Api(daemon.socket)
            link = wait_for("the claim link", 30, lambda: re.search(r"https://\S+#claim=([0-9a-f]{32})\b", daemon.log()))
            api.call("POST", "/claim", {"secret": link[1], "name": "den", "password": "correct horse battery"})
            # No token has places for ten followers.
            tokens = [api.call("POST", "/tokens", {"name": name, "scopes": ["view", "manage", "pair"]})["secret"]
                      for name in ("pages", "more pages")]
            client = Client(street.client, tmp_path_factory.mktemp("owned"), artefacts, "owned-client")
            assert client.do("reach", port=47989, deadline=30.0)["reached"]
            outcome = pair(client, daemon, "1357", "1357")
            assert outcome["paired"], outcome
            yield Owned(street, daemon, client, tokens)
        finally:
            daemon.discard()


def the_session(daemon):
    return next((one["id"] for one in running(daemon) if one["streaming"]), None)


def cpu_percent(daemon, seconds):
    """The processor time that the daemon uses over the next seconds, of one core: all of it, and of the threads that
    answer callers, which do nothing else while a stream runs. The others' differs from second to second by more than
    followers cost."""
    cpu, threads, began = daemon.cpu_s(), daemon.cpu_of_threads_s(ANSWERING), time.monotonic()
    time.sleep(seconds)  # What is measured is this time.
    answering = sum(used - threads.get(thread, 0.0) for thread, used in daemon.cpu_of_threads_s(ANSWERING).items())
    cpu, share = daemon.cpu_s() - cpu, 100 / (time.monotonic() - began)
    return {"host": cpu * share, "answering": answering * share}


def per_follower(alone, followed):
    return (followed["answering"] - alone["answering"]) / FOLLOWERS


def test_ten_followers_take_no_picture_from_a_stream(owned, artefacts, measured):
    daemon, out = owned.daemon, artefacts / "followed"
    out.mkdir(exist_ok=True)
    playing = owned.client.begin("card", out=out, seconds=2 * WINDOW_S + 4)
    session = wait_for("the stream", 60, lambda: playing.poll() is not None or the_session(daemon))
    alone = cpu_percent(daemon, WINDOW_S)
    with owned.followed(f"/sessions/{session}/live") as heard:
        began_us = time.monotonic_ns() // 1000
        followed = cpu_percent(daemon, WINDOW_S)
        ended_us, rss_mib = time.monotonic_ns() // 1000, daemon.rss_mib()
    summary = owned.client.finish(playing, "card, followed")
    trace = traces(daemon, "Test card")
    owned.client.do("quit")

    assert summary["ended"] is None, "the host ended the stream"
    assert all(one["figures"] >= WINDOW_S - 1 and set(one) == {"figures"} for one in heard), heard
    seen = json.loads((out / "seen.json").read_text())
    moments = {picture["time_us"]: picture["at_us"] for picture in seen if picture["frame"] is not None}
    meanwhile = [moment for moment in moments if began_us <= moment <= ended_us]
    assert len(meanwhile) > 10 * WINDOW_S, f"{len(meanwhile)} pictures while {FOLLOWERS} followed"
    # The decoder keeps its last pictures to itself, so only up to the last one that was seen.
    sent = [entry for entry in trace if entry["fate"] == "sent" and not entry["repeated"]
            and meanwhile[0] <= entry["captured_us"] <= meanwhile[-1]]
    lost = [entry["source"] for entry in sent if entry["captured_us"] not in moments]
    measured["ten followers of a stream"] = {
        "pictures_read": len(meanwhile), "sent": len(sent), "lost_after_encode": len(lost), "rss_mib": rss_mib,
        "cpu_percent": {"alone": alone, "followed": followed},
        "cpu_percent_per_follower": per_follower(alone, followed)}
    assert sent and not lost, f"encoded and never seen: {lost}"


@pytest.mark.long
def test_the_api_beside_a_stream_at_1080p60(owned, measured):
    """How long calls take while nothing streams, beside a stream, and with ten followers as well; and what that does to
    the stream."""
    daemon = owned.daemon
    at_rest = owned.calls([path for path in ASKED if "SESSION" not in path], LONG_WINDOW_S)
    rss_at_rest = daemon.rss_mib()
    playing = owned.client.begin("measure", seconds=4 * LONG_WINDOW_S + 15, width=1920, height=1080, fps=60)
    session = wait_for("the stream", 60, lambda: playing.poll() is not None or the_session(daemon))
    paths = [path.replace("SESSION", str(session)) for path in ASKED]

    marks, cpu, rss = [], {}, {}

    def window(name, measure):
        began_us, value = time.monotonic_ns() // 1000, measure()
        marks.append((name, began_us, time.monotonic_ns() // 1000))
        rss[name] = daemon.rss_mib()
        return value

    cpu["alone"] = window("alone", lambda: cpu_percent(daemon, LONG_WINDOW_S))
    beside = window("called", lambda: owned.calls(paths, LONG_WINDOW_S))
    with owned.followed(f"/sessions/{session}/live") as heard:
        cpu["followed"] = window("followed", lambda: cpu_percent(daemon, LONG_WINDOW_S))
        with_followers = window("followed and called", lambda: owned.calls(paths, LONG_WINDOW_S))
    trace = traces(daemon, "Test card")
    summary = owned.client.finish(playing, "measure, with a console")
    owned.client.do("quit")

    assert summary["pictures"] > 0 and all(set(one) == {"figures"} for one in heard), heard
    sent = [entry for entry in trace if entry["fate"] == "sent"]
    latency = {name: percentiles([entry for entry in sent if since <= entry["captured_us"] <= until],
                                 "captured_us", "last_sent_us") for name, since, until in marks}
    measured["the API beside 1920x1080@60"] = {
        "calls_ms": {"at rest": spread(at_rest), "beside a stream": spread(beside),
                     "beside a stream with ten followers": spread(with_followers)},
        "cpu_percent": cpu, "cpu_percent_per_follower": per_follower(cpu["alone"], cpu["followed"]),
        "rss_mib": {"at rest": rss_at_rest} | rss, "host_latency_ms": latency}


def spread(took):
    percentile = {f"p{part}": float(np.percentile(took, part)) for part in (50, 95, 99)}
    return {"calls": len(took)} | percentile | {"most": max(took)}
