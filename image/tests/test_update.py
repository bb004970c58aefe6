"""What an update bears: statements that are not to be believed, a registry that fails, a wrong clock, callers without right."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from home import wait_for
from network import inside
from owner import Refused
from registry import Registry
from releases import DAY_S, Releases
from sticks import Sticks
from story import STEP_S, VERSION, green, ready, stage, start, step, switch_off

pytestmark = pytest.mark.long

BALLAST = "usr/lib/punktfunk/ballast"
BUS = "busctl --system --timeout={} call org.punktfunk.Os1 /org/punktfunk/Os1 org.punktfunk.Os1 {}"


@pytest.fixture
def maker(request, box, variants, tmp_path):
    """Whoever makes the box, with a registry of this test's own. The box asks a liar in front of it, who begins honest."""
    address = request.config.getoption("--registry")
    where = urlsplit(address)
    behind = address.replace(f":{where.port}", f":{where.port + 1}")
    program, keys = (Path(request.config.getoption(name)).resolve() for name in ("--publish-program", "--keys"))
    with Registry(behind, box.home, tmp_path / "registry") as registry:
        maker = Releases(program, keys, variants.repo, "slim", tmp_path, registry)
        with liar(box, where, urlsplit(behind), tmp_path) as maker.liar:
            yield maker


class Liar:
    def __init__(self, folder):
        self._mood, self.log = folder / "mood.json", folder / "liar.log"
        self.log.touch()
        self.be("well")

    def be(self, how, after=0):
        new = self._mood.with_suffix(".new")
        new.write_text(json.dumps({"how": how, "after": after}))
        new.rename(self._mood)

    def sent(self):
        """What was sent of blobs: an entry for each answer, of its path, where it began and how many bytes it had."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(path, int(begin), int(count)) for path, begin, count in lines if "/blobs/" in path]

    def has_sent(self, end, since=0):
        """Whether an answer went so far into its blob, and no further; so many before it do not count."""
        return any(begin + count == end for _, begin, count in self.sent()[since:])


@contextmanager
def liar(box, where, behind, folder):
    liar = Liar(folder)
    words = [sys.executable, "-B", Path(__file__).with_name("liar.py"), where.hostname, where.port, behind.netloc,
             liar._mood, liar.log]
    process = subprocess.Popen(
        inside(box.home.namespace, ["setpriv", "--pdeathsig=KILL", *words]), stdin=subprocess.DEVNULL)
    try:
        yield liar
    finally:
        process.kill()
        process.wait()


def ballast(tree):
    # What an update brings with it: 24 MiB that cannot be compressed, the same each time.
    dice = random.Random(7)
    (tree / BALLAST).write_bytes(b"".join(dice.randbytes(1 << 20) for _ in range(24)))


def inside_box(box):
    """Starts a version with a shell on its serial console."""
    box.install("0.2.0", debug=True)
    start(box, "0.2.0")
    wait_for("the blessing", 60, lambda: not any("+" in name for name in box.storage.esp_entries()), box.is_on)


def asked(box, verb, body=None):
    """Asks for a step that fails; gives what the owner is told of it."""
    box.owner.call("POST", "/os/dismiss")
    box.owner.call("POST", f"/os/{verb}", body or {})

    def ended():
        report = box.owner.call("GET", "/os")
        return report["phase"]["name"] == "idle" and report.get("problem")

    return wait_for(f"what is wrong with {verb}", STEP_S, ended, box.is_on)


def kept(box):
    """All that root keeps, and all of OSTree, by name, length and time."""
    words = "-printf '%p %s %T@\\n' 2>/dev/null | sort"
    return box.shell(f"find /var/lib/punktfunk/os /efi {words}; find /sysroot/ostree/repo {words} | sha256sum", 300)


def stranger(maker):
    """The keys of somebody whom the box does not know."""
    keys = maker.folder / "stranger"
    subprocess.run([maker.program, "keygen", keys, "current", "--test"], check=True)
    return keys


def test_what_is_not_to_be_believed_is_refused_and_leaves_nothing(box, maker, variants):
    inside_box(box)
    maker.publish("0.2.1", variants.make("0.2.1"))
    step(box, box.owner, "check", lambda report: (report.get("offered") or {}).get("version") == "0.2.1")
    other = stranger(maker)
    now = int(time.time())
    forged = json.loads(maker.state().read_text())
    good = json.dumps(forged)
    cases = [
        ("signature", json.dumps(forged | {"signatures": []})),
        ("signature", json.dumps(forged | {"statement": forged["statement"].replace("0.2.1", "0.2.2")})),
        ("content", good[: len(good) // 2]),
        ("content", ""),
    ]
    keys, maker.keys = maker.keys, other
    cases.append(("signature", maker.state().read_text()))
    maker.keys = keys
    cases += [
        ("expired", maker.state(expires_at=now - 30).read_text()),
        ("clock-behind", maker.state(made_at=now + 3 * DAY_S, expires_at=now + 30 * DAY_S).read_text()),
        ("downgrade", maker.state(made_at=now - DAY_S).read_text()),
        ("downgrade", maker.state(releases=[maker.known[0] | {"version": "0.2.0"}]).read_text()),
        ("content", maker.state(flavour="full").read_text()),
    ]
    before = kept(box)
    for at, (code, text) in enumerate(cases):
        envelope = maker.folder / f"bad-{at}.json"
        envelope.write_text(text)
        maker.push("0.2.1", envelope)
        problem = asked(box, "check")
        assert problem["code"] == code, (at, code, problem)
        assert kept(box) == before, (at, code)
    # What is signed but not so on the way: other layers, another system, more than there is room for.
    for change in (
        {"image": f"sha256:{'ab' * 32}"},
        {"commit": "cd" * 32},
        {"size_bytes": 1000},
    ):
        maker.push("0.2.1", maker.state(releases=[maker.known[0] | change]))
        box.owner.call("POST", "/os/dismiss")
        step(box, box.owner, "check", lambda report: report.get("offered"))
        if asked(box, "download").get("code") is None:
            assert asked(box, "stage")["code"] == "content", change
        assert box.owner.call("GET", "/os").get("staged") is None, change
    maker.push("0.2.1", maker.state(releases=[maker.known[0] | {"unpacked_bytes": 12 << 30, "size_bytes": 12 << 30}]))
    box.owner.call("POST", "/os/dismiss")
    step(box, box.owner, "check", lambda report: report.get("offered"))
    with pytest.raises(Exception, match="no-space"):
        box.owner.call("POST", "/os/download", {})
    # And it is none the worse for it.
    maker.push("0.2.1", maker.state())
    box.owner.call("POST", "/os/dismiss")
    stage(box, box.owner, maker.known[0])


def test_a_registry_may_stall_lie_and_die(box, maker, variants, measured):
    inside_box(box)
    release = maker.publish("0.2.1", variants.make("0.2.1", change=ballast))
    step(box, box.owner, "check", lambda report: report.get("offered"))
    half = 12 << 20
    for how, code in (("dies", "unreachable"), ("lies", "content")):
        maker.liar.be(how, half)
        problem = asked(box, "download")
        assert problem["code"] == code, (how, problem)
    maker.liar.be("stalls", half)
    before = len(maker.liar.sent())
    box.owner.call("POST", "/os/dismiss")
    box.owner.call("POST", "/os/download", {})
    wait_for("the half", STEP_S, lambda: maker.liar.has_sent(half, before), box.is_on)
    began = len(maker.liar.sent())
    box.owner.call("POST", "/os/download/cancel")
    wait_for("the end", STEP_S, lambda: box.owner.call("GET", "/os")["phase"]["name"] == "idle", box.is_on)
    # What came is kept, over a loss of power, and only the rest is fetched.
    box.unplug()
    start(box, "0.2.0")
    maker.liar.be("well")
    box.owner.call("POST", "/os/dismiss")
    stage(box, box.owner, release)
    again = maker.liar.sent()[began:]
    measured["sent_again_bytes"] = sum(count for _, _, count in again)
    assert any(begin == half for _, begin, _ in again), again
    assert measured["sent_again_bytes"] < release["size_bytes"] - half // 2, again


def test_a_box_without_a_registry_takes_an_update_from_a_file(box, maker, variants, tmp_path, measured):
    """What is uploaded is judged as what a registry says; what lies on a stick is found by itself."""
    box.extra = Sticks.PORT
    start(box, VERSION)
    maker.publish("0.2.1", variants.make("0.2.1", change=ballast))
    good = maker.archive("0.2.1", maker.state(), "good.tar")
    maker.liar.be("dies")
    now = int(time.time())
    forged, (other, keys) = json.loads(maker.state().read_text()), (stranger(maker), maker.keys)
    cases = [("signature", json.dumps(forged | {"signatures": []}))]
    maker.keys = other
    cases.append(("signature", maker.state().read_text()))
    maker.keys = keys
    cases += [
        ("expired", maker.state(expires_at=now - 30).read_text()),
        ("clock-behind", maker.state(made_at=now + 3 * DAY_S, expires_at=now + 30 * DAY_S).read_text()),
        ("content", maker.state(flavour="full").read_text()),
    ]
    refused = []
    for at, (code, text) in enumerate(cases):
        envelope = maker.folder / f"bad-{at}.json"
        envelope.write_text(text)
        refused.append((code, maker.archive("0.2.1", envelope, f"bad-{at}.tar")))
    refused.append(("content", cut(good, tmp_path / "cut.tar", good.stat().st_size - 512)))
    refused.append(("content", cut(good, tmp_path / "nothing.tar", 0)))
    for code, file in refused:
        with pytest.raises(Refused) as told:
            box.owner.upload("/os/archive", file)
        assert told.value.problem["code"] == code, (code, told.value.problem)
        assert box.owner.call("GET", "/os").get("offered") is None, code
    cpu = box.cpu_seconds()
    report = box.owner.upload("/os/archive", good)
    measured["uploaded_cpu_s"] = round(box.cpu_seconds() - cpu, 1)
    assert report["offered"]["version"] == "0.2.1", report
    newer = maker.publish("0.2.2", variants.make("0.2.2"))
    sticks, name = Sticks(box, tmp_path), "punktfunk-update.tar"
    older = ("downgrade", maker.archive("0.2.1", maker.state(made_at=now - DAY_S), "older.tar"))
    with pytest.raises(Refused) as told:
        box.owner.upload("/os/archive", older[1])
    assert told.value.problem["code"] == "downgrade", told.value.problem
    # A stick has no answer but what the owner is told of it. So no two come together that are wrong in the same way.
    said = ""
    for at, (code, file) in enumerate([*refused[::2], older, *refused[1::2]]):
        (tmp_path / f"stick-{at}").mkdir()
        bad = file.rename(tmp_path / f"stick-{at}" / name)
        sticks.plug_in(sticks.make(f"{at}.img", bad, size_mib=512))
        said = wait_for(f"what is said of stick {at}", STEP_S, lambda said=said: new_of_stick(box, said), box.is_on)
        assert OF_STICK[code] in said, (at, said)
        sticks.pull_out()
        (tmp_path / f"{at}.img").unlink()
        assert box.owner.call("GET", "/os")["offered"]["version"] == "0.2.1", at
    (tmp_path / "stick").mkdir()
    good = maker.archive("0.2.2", maker.state(), "newer.tar").rename(tmp_path / "stick" / name)
    cpu = box.cpu_seconds()
    sticks.plug_in(sticks.make("good.img", good, size_mib=512))
    wait_for("what is on the stick", STEP_S,
             lambda: (box.owner.call("GET", "/os").get("offered") or {}).get("version") == "0.2.2", box.is_on)
    measured["from_a_stick_cpu_s"] = round(box.cpu_seconds() - cpu, 1)
    sticks.pull_out()
    step(box, box.owner, "download", lambda report: report["downloaded_bytes"])
    step(box, box.owner, "stage", lambda report: (report.get("staged") or {}).get("version") == "0.2.2")
    starts = box.starts()
    box.owner.call("POST", "/os/apply", {"when": "now"})
    wait_for("the restart", STEP_S, lambda: box.starts() == starts + 1, box.is_on)
    ready(box, box.owner)
    box.owner.ask("login")
    green(box, box.owner, newer["version"])


OF_STICK = {"signature": "not signed by a trusted key", "expired": "has expired", "clock-behind": "the clock stands before",
            "downgrade": "is older than", "content": "not what was promised"}


def new_of_stick(box, before):
    """What the owner is told of a stick, once that is something else than before."""
    [said] = [problem for problem in box.owner.call("GET", "/status")["problems"] if "a stick brought" in problem] or [before]
    return said != before and said


def cut(file, to, length):
    shutil.copyfile(file, to)
    os.truncate(to, length)
    return to


def test_a_clock_that_is_wrong_by_years_is_told(box, maker, variants):
    maker.publish("0.2.1", variants.make("0.2.1"))
    for base, code in (("2001-01-01T00:00:00", "clock-behind"), ("2031-05-05T05:05:05", "expired")):
        box.extra = ("-rtc", f"base={base}")
        start(box, VERSION)
        told = checked(box)
        assert told["code"] == code and "clock" in told["sentence"], told
        assert box.owner.call("GET", "/os").get("offered") is None, code
        switch_off(box)
    # It believes so for as long as nobody tells it the time. Then it is none the worse for it.
    box.extra = ()
    start(box)
    assert checked(box)["code"] == "expired"
    with box.home.timekeeper():
        wait_for("the right time", STEP_S, lambda: checked(box)["code"] == "update", box.is_on)
    box.owner.call("POST", "/os/dismiss")
    stage(box, box.owner, maker.known[0])


def checked(box):
    """Looks for updates; gives what is said of that."""
    box.owner.ask("login")
    before = box.owner.call("GET", "/os").get("checked")
    box.owner.call("POST", "/os/check", {})

    def ended():
        report = box.owner.call("GET", "/os")
        return report["phase"]["name"] == "idle" and report.get("checked") != before and report["checked"]

    return wait_for("what is said of updates", STEP_S, ended, box.is_on)


def test_whoever_may_not_is_refused_and_one_comes_after_the_other(box, maker, variants):
    inside_box(box)
    release = maker.publish("0.2.1", variants.make("0.2.1", change=ballast))
    nobodies = "setpriv --reuid={} --regid={} --clear-groups --inh-caps=-all --bounding-set=-all "
    for uid in (61000, 65534):
        for call in ("Check", f"Apply sb {release['commit']} true", f"Pin sb {release['commit']} true"):
            said = box.shell(nobodies.format(uid, uid) + BUS.format(60, call) + " 2>&1", 200)
            assert re.search(r"[Aa]ccess denied|not allowed|AccessDenied", said), (uid, call, said)
    step(box, box.owner, "check", lambda report: report.get("offered"))
    maker.liar.be("stalls", 12 << 20)
    box.owner.call("POST", "/os/download", {})
    wait_for("the half", STEP_S, lambda: maker.liar.has_sent(12 << 20), box.is_on)
    said = box.shell(BUS.format(60, f"Stage sb {release['commit']} false") + " 2>&1", 200)
    assert "busy" in said, said
    box.owner.call("POST", "/os/download/cancel")
    wait_for("the end", STEP_S, lambda: box.owner.call("GET", "/os")["phase"]["name"] == "idle", box.is_on)
    # A digest that nobody has signed is nothing, whoever asks for it.
    for verb in ("Download", "Stage", "Apply"):
        said = box.shell(BUS.format(60, f"{verb} sb {'ef' * 32} true") + " 2>&1", 200)
        assert "unknown-deployment" in said or "nothing-downloaded" in said, said


def test_what_three_kinds_of_change_cost(box, maker, variants, measured):
    """Bytes and time of each, what staging takes from a stream, and how long nobody can play when it is applied."""
    host = "usr/libexec/punktfunk/punktfunk-host"
    library = max((path for path in variants.entries("usr/lib/x86_64-linux-gnu") if path.startswith("libLLVM")), key=len)
    kinds = {
        "a_text": ("0.2.1", {}),
        "the_daemon": ("0.2.2", {host: rebuilt(variants.read_bytes(host))}),
        "the_largest_library": ("0.2.3", {f"usr/lib/x86_64-linux-gnu/{library}": rebuilt(
            variants.read_bytes(f"usr/lib/x86_64-linux-gnu/{library}"))}),
    }
    start(box, VERSION)
    whole = None
    for kind, (version, files) in kinds.items():
        def change(tree, files=files):
            for path, content in files.items():
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(content)
                (tree / path).chmod(0o755)

        release = maker.publish(version, variants.make(version, change=change))
        whole = release["size_bytes"]
        sent, cpu = len(maker.liar.sent()), box.cpu_seconds()
        if kind == "the_daemon":
            with box.device.watching("alone") as alone:
                time.sleep(30)
            sent, cpu = len(maker.liar.sent()), box.cpu_seconds()
            with box.device.watching("staging") as beside:
                stage(box, box.owner, release)
            figures = {name: seen["pictures"] / seen["ran_s"] for name, seen in (("alone", alone), ("staging", beside))}
            measured["pictures_per_s"] = {name: round(count, 2) for name, count in figures.items()}
        else:
            stage(box, box.owner, release)
        fetched = sum(count for _, _, count in maker.liar.sent()[sent:])
        measured[kind] = {"bytes": fetched, "share_of_whole": round(fetched / whole, 4),
                          "staged_cpu_s": round(box.cpu_seconds() - cpu, 1)}
    measured["whole_bytes"] = whole
    starts, cpu = box.starts(), box.cpu_seconds()
    box.owner.call("POST", "/os/apply", {"when": "now"})
    wait_for("the end of the console", STEP_S, lambda: box.owner.landing() is None, box.is_on)
    gone = box.cpu_seconds()
    wait_for("the restart", STEP_S, lambda: box.starts() == starts + 1, box.is_on)
    ready(box, box.owner)
    measured["applied_cpu_s"] = round(gone - cpu, 1)
    measured["nobody_can_play_cpu_s"] = round(box.cpu_seconds() - gone, 1)
    assert measured["a_text"]["share_of_whole"] <= measured["the_daemon"]["share_of_whole"] <= 0.03, measured


def rebuilt(program):
    """As a compiler's next run would: the same length, other addresses all over."""
    dice, changed = random.Random(3), bytearray(program)
    for at in range(0, len(changed) - 4, 64):
        changed[at : at + 4] = dice.randbytes(4)
    return bytes(changed)
