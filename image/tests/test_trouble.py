"""What a good box bears: firmware that checks signatures, an owner who lost the password, a full disk, an early end."""

import json
import random
import re
import socket
import sqlite3
import subprocess
import time
from contextlib import closing, suppress

import pytest

from home import BOX, wait_for
from network import inside
from owner import PASSWORD, Refused
from sticks import Sticks
from story import OFF_S, START_S, VERSION, Browser, Device, code_of, green, pair, ready, start, switch_off, told_of

pytestmark = pytest.mark.long


def press_until_off(box):
    """Somebody presses the button of a box that has just come up, maybe before anything watches it."""
    box.press_power()
    try:
        box.wait_off(OFF_S / 3)
    except subprocess.TimeoutExpired:
        # It may go off in this moment.
        with suppress(RuntimeError, OSError):
            box.press_power()
        box.wait_off(OFF_S)


def break_signature(variants):
    """A change that flips one bit in the middle of the kernel, far behind all that a loader reads of it."""
    def ostree(*words):
        words = ["ostree", f"--repo={variants.repo}", *words]
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout

    listed = ostree("ls", "-R", variants.base, "/usr/lib/modules").decode()
    path = re.search(r"/(\S+/vmlinuz)$", listed, re.M)[1]
    kernel = bytearray(ostree("cat", variants.base, f"/{path}"))
    kernel[len(kernel) // 2] ^= 1

    def change(tree):
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_bytes(kernel)

    return change


def test_secure_boot_starts_what_is_signed(box, measured):
    # Microsoft's keys are in this firmware, as in a PC from the shop.
    box.secure = True
    box.install("0.2.0", debug=True)
    start(box, "0.2.0")
    measured["secure_green_cpu_s"] = round(box.cpu_seconds(), 1)
    assert box.shell("od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-*").split() == ["1"]
    assert "secureboot: Secure boot enabled" in box.shell("dmesg")
    assert "[integrity]" in box.shell("cat /sys/kernel/security/lockdown")
    box.device.play("secure")


def test_secure_boot_does_not_start_what_is_not_signed(box, variants, measured):
    box.secure = True
    box.install("0.2.0", change=break_signature(variants))
    box.switch_on()
    # The firmware refuses it as often as the loader tries. Where that ends is the firmware's: this one stops dead.
    spent = lambda: any("+0-3" in name for name in box.storage.esp_entries())  # noqa: E731
    wait_for("the end of the tries", START_S, spent, box.is_on)
    measured["secure_refused_cpu_s"] = round(box.cpu_seconds(), 1)
    assert "Security violation" in box.said() and box.owner.landing() is None
    box.unplug()
    start(box)
    report = wait_for("the report", 60, lambda: told_of(box.owner, "0.2.0"), box.is_on)
    assert report["running"]["version"] == VERSION and report["banner"]["kind"] == "rolled-back", report


def test_a_flawed_disk_is_repaired(box, tmp_path):
    # All versions share it, and nobody is there to be asked.
    with box.storage.mounted(tmp_path) as (root, _):
        junk, = root.glob("ostree/deploy/punktfunk/var/lib")
        (junk / "junk").write_bytes(b"x" * 5000)
    box.storage.flaw("lib/junk")
    start(box, VERSION)
    assert len(box.owner.call("GET", "/clients")) == 1
    box.device.play("after")
    switch_off(box)
    with box.storage.mounted(tmp_path) as (root, _):
        assert not (root / "ostree/deploy/punktfunk/var/lib/junk").exists()


def another_device(box, folder):
    folder.mkdir()
    device = Device(box.home, box.folder, folder)
    pair(box.owner, device)
    return device


def press_thrice(box):
    """As a hand does it: a second from one press to the next, so that no press of a slow machine's is lost."""
    for _ in range(3):
        box.press_power()
        time.sleep(1)


def rearmed(box, old_code):
    """The box has lost its owner: waits for the new code, and sees that nobody is logged in any more."""
    note = wait_for("the new claim", 60, lambda: (text := box.storage.esp_file("CLAIM.txt")) and text.strip() and text,
                    box.is_on)
    code = code_of(note)
    assert code and code != old_code, note
    assert box.owner.landing()["claimed"] is False
    wait_for("the code on the serial console", 60, lambda: code in box.said(), box.is_on)
    with pytest.raises(Refused) as refused:
        box.owner.call("GET", "/os")
    assert refused.value.problem["code"] == "unclaimed"
    return code


def claim(box, code):
    """The box has an owner again, and who was logged in before is not."""
    before = Browser(box.home)
    before.memory = dict(box.owner.memory)
    box.owner.ask("claim", code, "Den")
    with pytest.raises(Refused) as refused:
        before.call("GET", "/os")
    assert refused.value.status == 401
    wait_for("the end of the claim", 60, lambda: box.storage.esp_file("CLAIM.txt") is None, box.is_on)


def key_of_the_owner(box):
    return json.loads(box.storage.var_file("lib/punktfunk/os/owner.json"))["key"]


def reset_file(folder, text):
    path = folder / "punktfunk-reset.txt"
    path.write_text(text)
    return path


def test_whoever_is_at_the_machine_gets_in(box, tmp_path, measured):
    box.extra = Sticks.PORT
    before = key_of_the_owner(box)
    start(box)
    began = time.monotonic()
    press_thrice(box)
    code = rearmed(box, None)
    measured["presses_rearm_s"] = round(time.monotonic() - began, 1)
    claim(box, code)
    # Devices are still paired.
    box.device.play("pressed")

    sticks = Sticks(box, tmp_path)
    first = sticks.make("first.img", reset_file(tmp_path, "one"))
    second = sticks.make("second.img", reset_file(tmp_path, "two"), partition=False)
    foreign = sticks.make("foreign.img", reset_file(tmp_path, "three"), partition=False, system="ext4")
    began = time.monotonic()
    sticks.plug_in(first)
    code = rearmed(box, code)
    measured["stick_rearms_s"] = round(time.monotonic() - began, 1)
    claim(box, code)
    # What comes is looked at in turn, so that by the last of them the others have been looked at.
    sticks.pull_out()
    for stick in (first, foreign, second):
        sticks.plug_in(stick)
    claim(box, rearmed(box, code))
    rearms = [line["detail"] for line in box.owner.call("GET", "/audit") if line["action"] == "rearm"]
    assert rearms == ["reset-file", "reset-file", "power-button"], rearms
    # A single press still switches it off. Root believes the key of the last who claimed it.
    switch_off(box)
    assert key_of_the_owner(box) != before


def asked_to_forget(box):
    """The box restarts to forget its owner; None while it waits for somebody at the machine."""
    try:
        return box.owner.call("POST", "/os/factory-reset", {"password": PASSWORD})
    except Refused as refused:
        assert (refused.status, refused.problem["code"]) == (409, "needs-presence"), refused
        return None


STATE = "/var/lib/punktfunk"


def test_a_factory_reset_forgets_the_owner(box, measured):
    box.install("0.2.0", debug=True)
    start(box, "0.2.0")
    key, tried = box.owner.call("GET", "/landing")["fingerprint"], box.owner.call("GET", "/os")["attempts"]
    assert [one["outcome"] for one in tried if one["version"] == "0.2.0"] == ["passed"], tried
    # A game has saved something, and somebody in the daemon's place has left a link to what is root's.
    box.shell(
        f"install -d -o 61000 -g 61000 -m 700 {STATE}/profiles/9 && mkdir -p {STATE}/profiles/9/$(seq -s/ 1 200) && "
        f"dd if=/dev/zero of={STATE}/profiles/9/save bs=1M count=64 && ln -s {STATE}/os {STATE}/host/out; sync")

    # Nobody is there, so nothing happens but that somebody is waited for; the presses do not take the owner away.
    assert asked_to_forget(box) is None
    starts = box.starts()
    press_thrice(box)
    began = time.monotonic()
    begun = wait_for("the reset", 60, lambda: asked_to_forget(box), box.is_on)
    assert begun["simulated"] is False and box.owner.call("GET", "/clients"), begun
    wait_for("the restart", OFF_S, lambda: box.starts() > starts, box.is_on)

    # It is as new: nobody owns it, it has another certificate, and who held its key is a stranger.
    owner = Browser(box.home)
    assert ready(box, owner, 2 * START_S)["claimed"] is False
    measured["reset_s"] = round(time.monotonic() - began, 1)
    note = wait_for("the new claim", 60, lambda: (text := box.storage.esp_file("CLAIM.txt")) and text.strip() and text,
                    box.is_on)
    owner.ask("claim", code_of(note), "Attic")
    assert owner.call("GET", "/landing")["fingerprint"] != key
    assert owner.call("GET", "/clients") == []
    with pytest.raises(AssertionError):
        box.device.play("forgotten")
    # What root knows of versions is kept, and what it has put aside goes by itself.
    green(box, owner, "0.2.0")
    report = owner.call("GET", "/os")
    assert report["attempts"][:len(tried)] == tried, report
    wait_for("the end of what was forgotten", 240, lambda: "forgotten" not in box.shell(f"ls {STATE}/os"), box.is_on)
    assert box.shell(f"stat -c '%a %U %n' {STATE}/host {STATE}/profiles").split("\n")[:2] == [
        f"700 punktfunk {STATE}/host", f"755 root {STATE}/profiles"]
    assert "ledger.json" in box.shell(f"ls {STATE}/os") and "9" not in box.shell(f"ls {STATE}/profiles").split()
    assert box.shell("systemctl --failed --plain --no-legend").strip() == ""
    # The new owner is root's owner, too: an update, or another reset, would be believed.
    assert json.loads(box.shell(f"cat {STATE}/os/owner.json"))["key"]


# What a later version would do to the database by the rules of host/src/store/schema.rs: it only adds.
LATER = """
ALTER TABLE client ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';
CREATE TABLE wish (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
INSERT INTO wish (text) VALUES ('a pony');
"""


def test_an_older_version_reads_what_a_newer_one_left(box, tmp_path):
    with box.storage.mounted(tmp_path) as (root, _):
        state = root / "ostree/deploy/punktfunk/var/lib/punktfunk/host/state.db"
        with closing(sqlite3.connect(state)) as database:
            [known] = database.execute("PRAGMA user_version").fetchone()
            database.executescript(f"BEGIN; {LATER} PRAGMA user_version = {known + 1}; COMMIT;")
    start(box, VERSION)
    # It knows its owner and the device, takes another device and keeps a setting.
    box.owner.call("PATCH", "/settings", {"name": "Older box"})
    box.device.play("older")
    another_device(box, tmp_path / "another")
    switch_off(box)
    kept = tmp_path / "state.db"
    kept.write_bytes(box.storage.var_file("lib/punktfunk/host/state.db"))
    with closing(sqlite3.connect(kept)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (known + 1,)
        assert database.execute("SELECT text FROM wish").fetchall() == [("a pony",)]
        assert database.execute("SELECT colour FROM client").fetchall() == [("blue",), ("blue",)]


def test_a_start_that_is_ended_in_good_order_costs_no_try(box, measured):
    box.install("0.2.0")
    before = box.storage.esp_entries()
    assert len([name for name in before if "+3" in name]) == 1, before
    box.switch_on()
    wait_for("the console", 2 * START_S, box.owner.landing, box.is_on)
    assert any("+2-1" in name for name in box.storage.esp_entries()), box.storage.esp_entries()
    press_until_off(box)
    assert box.storage.esp_entries() == before
    start(box, "0.2.0")
    tried = [one["outcome"] for one in box.owner.call("GET", "/os")["attempts"] if one["version"] == "0.2.0"]
    assert tried == ["passed"], tried


def test_a_full_disk_stops_no_update(box, variants, tmp_path, measured):
    share = ["local", f"path={variants.repo}", "mount_tag=repo", "security_model=none", "readonly=on"]
    box.extra = ("-virtfs", ",".join(share))

    def grow(tree):
        # What an update brings with it. The same each time, so that the repository on the desk does not grow.
        dice = random.Random(1)
        (tree / "usr/lib/punktfunk/ballast").write_bytes(b"".join(dice.randbytes(1 << 20) for _ in range(200)))

    variants.make("0.3.0", debug=True, change=grow)
    box.install("0.2.0", debug=True)
    start(box, "0.2.0")
    player = "setpriv --reuid=61000 --regid=61000 --clear-groups --inh-caps=-all --bounding-set=-all"
    box.shell(
        f"{player} fallocate -l $(( $(stat -f -c '%a * %S' /var) - (32 << 20) )) /var/tmp/game; "
        f"{player} dd if=/dev/zero of=/var/tmp/rest bs=4096")
    refused = box.shell(f"{player} cp /usr/lib/os-release /var/tmp/save 2>&1; stat -f -c 'left %a of %f' /var")
    assert "No space left" in refused and "left 0 of" in refused, refused
    measured["reserve_mib"] = int(refused.split()[-1]) >> 8
    rooms = {folder["purpose"]: folder["room"] for folder in box.owner.call("GET", "/storage")["folders"]}
    # Games took what they may; what is kept for the host is not theirs.
    assert rooms == {"state": "enough", "homes": "full"}, rooms
    assert any("is full" in problem for problem in box.owner.call("GET", "/status")["problems"])
    # The room that is set aside is the daemon's, too.
    another = another_device(box, tmp_path / "another")
    said = box.shell(
        "mkdir /run/repo && mount -t 9p -o trans=virtio,ro,msize=262144 repo /run/repo && "
        "/usr/libexec/punktfunk/punktfunk-os deploy-local /run/repo test/0.3.0 2>&1", START_S)
    assert "is started next" in said, said
    switch_off(box)
    start(box, "0.3.0")
    rooms = {folder["purpose"]: folder["room"] for folder in box.owner.call("GET", "/storage")["folders"]}
    assert rooms["homes"] == "full" and rooms["state"] != "full", rooms
    another.play("full")


DAEMON = "usr/libexec/punktfunk/punktfunk-host"
UNITS = "usr/lib/systemd/system"


def lay(tree, path, text, mode=0o644):
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text(text)
    (tree / path).chmod(mode)


def kill_daemon(tree):
    """A version whose daemon does not start, judged quickly."""
    lay(tree, DAEMON, "#!/bin/sh\nexit 1\n", 0o755)
    lay(tree, "usr/etc/punktfunk/verdict-limit", "30\n")


def hang(tree):
    """A version whose verdict never comes, and whose time is up soon."""
    lay(tree, f"{UNITS}/hang.service",
        "[Unit]\nAfter=punktfunk-os-boot.service\nBefore=punktfunk-verdict.service\n"
        "[Service]\nType=oneshot\nExecStart=/usr/bin/sleep infinity\nTimeoutStartSec=infinity\n")
    lay(tree, f"{UNITS}/punktfunk-deadline.timer.d/10-soon.conf", "[Timer]\nOnBootSec=\nOnBootSec=150s\n")
    wants = tree / UNITS / "multi-user.target.wants"
    wants.mkdir()
    (wants / "hang.service").symlink_to("../hang.service")


def page_of(box):
    """What answers a browser that asks for the box's address; None while nothing does."""
    done = subprocess.run(inside(box.home.namespace, ["curl", "-s", "-i", "--max-time", "5", f"http://{BOX}/"]),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    # A daemon that starts sends everybody to its own door.
    return done.stdout if done.returncode == 0 and "<h1>" in done.stdout else None


def choose_the_next(box):
    """Holds the space bar until the loader shows what there is, and takes the version after the first."""
    seen = len(box.said())
    with socket.socket(socket.AF_UNIX) as keyboard:
        keyboard.connect(str(box.folder / "console"))

        def hold():
            keyboard.sendall(b" ")
            # Only the beginning of it is whole: this firmware loses what it would write while it reads.
            return "punktfunk " in box.said()[seen:]

        wait_for("the loader's menu", 60, hold, box.is_on)
        for key in (b"\x1b[B", b"\r"):
            # Keys are read one by one.
            time.sleep(2)
            keyboard.sendall(key)


def test_a_page_says_when_no_version_is_good(box, tmp_path, measured):
    box.install("0.2.0", change=kill_daemon)
    with box.storage.mounted(tmp_path) as (_, esp):
        # As if it had been good once: nobody counts it any more.
        [counted] = (esp / "loader/entries").glob("*+3.conf")
        counted.rename(counted.with_name(counted.name.replace("+3", "")))
    box.install("0.3.0", tries=1, change=hang)
    assert len(box.storage.esp_entries()) == 3, box.storage.esp_entries()
    box.switch_on()
    wait_for("the end of what is never judged", 2 * START_S, lambda: box.starts() == 2, box.is_on)
    measured["deadline_cpu_s"] = round(box.cpu_seconds(), 1)
    page = wait_for("the page", 2 * START_S, lambda: page_of(box), box.is_on)
    measured["rescue_page_cpu_s"] = round(box.cpu_seconds(), 1)
    assert page.startswith("HTTP/1.1 503 ") and "It runs version 0.2.0" in page, page
    assert "daemon: failed" in page and box.starts() == 2, page
    switch_off(box)

    box.switch_on()
    choose_the_next(box)
    ready(box, box.owner, 2 * START_S)
    box.owner.ask("login")
    report = box.owner.call("GET", "/os")
    assert report["running"]["version"] == VERSION, report
    tried = {one["version"]: one["outcome"] for one in report["attempts"]}
    assert tried["0.3.0"] == "failed", report
    box.device.play("first")
