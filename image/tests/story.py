"""What happens to a box in the tests, as its owner and its devices do it: each step waits for what can be seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from home import BOX, wait_for
from network import inside
from owner import Refused

ROOT = Path(__file__).resolve().parents[2]
STOCK_CLIENT = ROOT / "host/tests/stock_client"
# Software emulation on two cores that are busy with other things is a hundred times slower than a PC.
START_S, GREEN_S, OFF_S = 900, 600, 240
# Fetching and staging are done with what a stream leaves of the processor, which is not much of an emulated one.
STEP_S = 1200
# What the image is called that the machine begins with: as the workspace is.
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]


class Browser:
    """The owner's browser, in the home's network: each call is a process there."""

    def __init__(self, home):
        self.home, self.memory = home, {}

    def ask(self, what, *words, limit_s=120):
        done = subprocess.run(
            inside(self.home.namespace, [sys.executable, "-B", Path(__file__).parent / "browser.py", what, *words]),
            input=json.dumps(self.memory), capture_output=True, text=True, timeout=limit_s,
            env=os.environ | {"PYTHONPATH": str(STOCK_CLIENT)})
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        self.memory = answer["memory"]
        if "refused" in answer:
            raise Refused(answer["refused"], answer["value"])
        return answer["value"]

    def call(self, method, path, body=None):
        return self.ask("call", method, path, json.dumps(body))

    def upload(self, path, file):
        return self.ask("upload", path, file, limit_s=STEP_S)

    def landing(self):
        return self.ask("landing")


class Device:
    """A stock client, which remembers in its folder what it is paired with."""

    def __init__(self, home, artefacts, folder):
        self.home, self.artefacts, self.folder = home, artefacts, folder

    def begin(self, verb, **options):
        options = {"config": self.folder, "address": BOX} | options
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            inside(self.home.namespace, [sys.executable, "-B", STOCK_CLIENT / "client.py", verb, *words]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process, limit_s=240):
        output, errors = process.communicate(timeout=limit_s)
        assert process.returncode == 0, errors[-4000:]
        return json.loads(output.splitlines()[-1])

    def play(self, name):
        out = self.artefacts / name
        out.mkdir(exist_ok=True)
        seen = self.finish(self.begin("glance", out=out, seconds=60, width=320, height=180, fps=10))
        assert seen["pictures"] >= 20 and seen["moved"] > 0.001, seen
        assert is_card(out / "card.png"), f"{out / 'card.png'} is not the Test card"
        return seen


    @contextmanager
    def watching(self, name):
        """Plays the Test card, each picture of which has a number, while the body runs; the numbers are in the dict
        that it gives once the body has ended."""
        out, seen = self.artefacts / name, {}
        out.mkdir(exist_ok=True)
        player = self.begin("watch", out=out, seconds=STEP_S, width=320, height=200, fps=10)
        try:
            wait_for("the first picture", 240, (out / "first").exists, lambda: player.poll() is None)
            yield seen
            (out / "enough").touch()
            seen.update(self.finish(player))
        finally:
            player.kill()


def is_card(path):
    """The edge of the Test card: blocks of black and white by turns, 16 pixels wide in this mode."""
    picture = Image.open(path).convert("L")
    top = [picture.getpixel((x, 8)) for x in range(24, 300, 16)]
    left = [picture.getpixel((8, y)) for y in range(24, 160, 16)]
    return all(abs(a - b) > 120 for edge in (top, left) for a, b in zip(edge, edge[1:]))


def ready(machine, owner, limit_s=START_S):
    landing = wait_for(
        "the host", limit_s, lambda: (said := owner.landing()) and said["stage"]["stage"] == "ready" and said,
        machine.is_on)
    return landing


def code_of(text):
    found = re.search(r"\btype\s+([A-HJ-NP-Z2-9]{8})\b", text)
    return found and found[1]


def green(machine, owner, version):
    """Waits for the verdict on what runs; returns it."""
    def verdict():
        report = owner.call("GET", "/os")
        if (report.get("running") or {}).get("version") != version or "verdict" not in report:
            return None
        assert report["verdict"]["outcome"] != "failed", report
        return report["verdict"] if report["verdict"]["outcome"] == "passed" else None

    return wait_for("the green light", GREEN_S, verdict, machine.is_on)


def pair(owner, device, name="Kitchen tablet"):
    desk = owner.call("POST", "/pairing/arm")
    asking = device.begin("pair", pin="2468")
    owner.call("GET", f"/pairing?after={desk['revision']}&wait_s=60")
    owner.call("POST", "/pairing/answer", {"pin": "2468", "name": name})
    outcome = device.finish(asking)
    assert outcome["paired"], outcome


def step(machine, owner, verb, done, body=None):
    """Asks for a step of an update, and waits for its end; gives what is said of the system then."""
    owner.call("POST", f"/os/{verb}", body or {})

    def ended():
        report = owner.call("GET", "/os")
        assert not report.get("problem"), report["problem"]
        return report["phase"]["name"] == "idle" and done(report) and report

    return wait_for(f"the end of {verb}", STEP_S, ended, machine.is_on)


def stage(machine, owner, release):
    """Looks for updates, fetches the one that is offered, and prepares it."""
    version = release["version"]
    report = step(machine, owner, "check", lambda report: "checked" in report)
    offered = report.get("offered")
    assert offered and offered["version"] == version, report
    assert offered["digest"] == f"sha256:{release['commit']}" and offered["changes"] == release["changes"], offered
    step(machine, owner, "download", lambda report: report["downloaded_bytes"] == offered["size_bytes"])
    return step(machine, owner, "stage", lambda report: (report.get("staged") or {}).get("version") == version)


def install(machine, variants, os_program, version, tmp, *, tries=None, **options):
    """Puts a version on the disk of a box that is off, as `punktfunk-os` does it on the box."""
    variants.make(version, **options)
    with machine.storage.mounted(tmp) as (root, esp):
        words = [os_program, "deploy-local", "--sysroot", root, "--esp", esp, variants.repo, f"test/{version}"]
        subprocess.run([*words, *(["--tries", str(tries)] if tries else [])], check=True)


def start(box, version=None):
    """Switches the box on and logs in; waits until it is green if a version is named."""
    box.switch_on()
    ready(box, box.owner, 2 * START_S)
    box.owner.ask("login")
    if version:
        green(box, box.owner, version)


def switch_off(box):
    box.press_power()
    box.wait_off(OFF_S)


def told_of(owner, version):
    owner.ask("login")
    report = owner.call("GET", "/os")
    return report if (report.get("banner") or {}).get("version") == version else None
