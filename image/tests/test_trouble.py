"""What a good box bears: firmware that checks signatures, an owner who lost the password, a full disk, an early end."""

import json
import subprocess
import time

import pytest

from home import wait_for
from owner import Refused
from story import OFF_S, START_S, Browser, code_of, green, ready

pytestmark = pytest.mark.long


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


class Sticks:
    """Sticks in the only USB port of a machine that was made with `Sticks.PORT`."""

    PORT = ("-device", "qemu-xhci,id=usb")

    def __init__(self, box, folder):
        self.box, self.folder, self.count = box, folder, 0

    def make(self, name, text, *, partition=True, system="vfat"):
        """A stick with one reset file: with a table of partitions as from the shop, or without one."""
        path, begin = self.folder / name, 2048 if partition else 0
        with path.open("wb") as file:
            file.truncate(64 << 20)
        if partition:
            run(["sfdisk", "--quiet", path], input="label: dos\nstart=2048, type=c\n")
        (self.folder / RESET).write_text(text)
        if system == "vfat":
            run(["mkfs.vfat", "-F32", f"--offset={begin}", path, (64 << 10) - begin // 2])
            run(["mcopy", "-i", f"{path}@@{begin * 512}", self.folder / RESET, "::"])
        else:
            tree = self.folder / "tree"
            tree.mkdir()
            (self.folder / RESET).rename(tree / RESET)
            run([f"mkfs.{system}", "-q", "-d", tree, path])
        return path

    def plug_in(self, path):
        self.count += 1
        name = f"stick{self.count}"
        self.box.ask("blockdev-add", **{"driver": "raw", "node-name": name, "read-only": True, "file": {
            "driver": "file", "filename": str(path)}})
        self.box.ask("device_add", driver="usb-storage", bus="usb.0", drive=name, id=f"{name}-usb", removable=True)

    def pull_out(self):
        self.box.ask("device_del", id=f"stick{self.count}-usb")


RESET = "punktfunk-reset.txt"


def run(words, **options):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, text=True, **options)


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
    first, second = sticks.make("first.img", "one"), sticks.make("second.img", "two", partition=False)
    foreign = sticks.make("foreign.img", "three", partition=False, system="ext4")
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
