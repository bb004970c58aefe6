"""Power is lost anywhere in an update: what the disk held after each flush is a box that starts, the old one or the new."""

import hashlib
import random
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

import writes
from disk import partitions
from home import wait_for
from machine import Machine
from registry import Registry
from releases import Releases
from story import OFF_S, START_S, VERSION, Browser, green, ready, stage, start, switch_off

pytestmark = pytest.mark.long

PREFIXES, BOOTED = 220, 10
MIB = 1 << 20
NEW = "0.2.0"


@pytest.fixture
def recorded(request, box, variants, tmp_path, measured):
    """The disk as it was before an update, and all writes from the check to the blessing."""
    before, log = tmp_path / "before.raw", tmp_path / "writes.log"
    program, keys = (Path(request.config.getoption(name)).resolve() for name in ("--publish-program", "--keys"))

    def ballast(tree):
        dice = random.Random(11)
        (tree / "usr/lib/punktfunk/ballast").write_bytes(b"".join(dice.randbytes(1 << 20) for _ in range(8)))

    with Registry(request.config.getoption("--registry"), box.home, tmp_path / "registry") as registry:
        maker = Releases(program, keys, variants.repo, "slim", tmp_path, registry)
        commit = variants.make(NEW, change=ballast)
        release = maker.publish(NEW, commit)
        subprocess.run(["cp", "--sparse=always", box.disk, before], check=True)
        box.log = log
        start(box, VERSION)
        began = len(writes.read(log))
        stage(box, box.owner, release)
        starts = box.starts()
        box.owner.call("POST", "/os/apply", {"when": "now"})
        wait_for("the restart", START_S, lambda: box.starts() == starts + 1, box.is_on)
        ready(box, box.owner)
        box.owner.ask("login")
        green(box, box.owner, NEW)
        wait_for("the blessing", 60, lambda: not any("+" in name for name in box.storage.esp_entries()), box.is_on)
        switch_off(box)
    box.log = None
    measured["log_mib"] = log.stat().st_size >> 20
    return before, log, began


def test_power_may_be_lost_at_any_flush(box, recorded, tmp_path, home, artefacts, measured):
    before, log, began = recorded
    found = writes.read(log)
    flushes = [at for at, write in enumerate(found) if write.is_flush and at >= began]
    assert len(flushes) >= PREFIXES, len(flushes)
    chosen = {flushes[at * len(flushes) // PREFIXES] for at in range(PREFIXES)} | {flushes[-1]}
    ordered = sorted(chosen)
    to_boot = {ordered[at * len(ordered) // BOOTED] for at in range(BOOTED - 1)} | {ordered[-1]}
    parts = dict(zip((tmp_path / "esp.img", tmp_path / "root.img"), partitions(before)))
    for path, (begin, length) in parts.items():
        subprocess.run(["dd", f"if={before}", f"of={path}", "bs=1M", f"skip={begin}", f"count={length}",
                        "iflag=skip_bytes,count_bytes", "conv=sparse", "status=none"], check=True)
    seen, booted = {VERSION: 0, NEW: 0}, {VERSION: 0, NEW: 0}
    for number in writes.replay(log, found, parts):
        if number in chosen:
            state = tmp_path / "state"
            state.mkdir()
            for path in parts:
                subprocess.run(["cp", "--sparse=always", path, state / path.name], check=True)
            version = whole(state)
            seen[version] += 1
            if number in to_boot:
                booted[boots(state, before, parts, home, artefacts / f"boot-{number}")] += 1
            shutil.rmtree(state)
    measured |= {"flushes": len(flushes), "prefixes": len(ordered), "choice": seen, "booted": booted}
    assert seen[VERSION] and seen[NEW] and sum(booted.values()) == BOOTED, measured


def whole(state):
    """Checks that a disk which lost its power then is whole, and that the loader's choice can be started; gives its version."""
    root, esp = state / "root.img", state / "esp.img"
    # As the kernel does it when it mounts: nothing but the journal. Then there is no fault at all.
    run("e2fsck", "-E", "journal_only", "-y", root, good=(0, 1))
    run("e2fsck", "-f", "-n", root)
    files = state / "esp"
    files.mkdir()
    run("mcopy", "-s", "-n", "-i", esp, "::*", files)
    with mounted(root, state / "root") as place:
        run("ostree", "fsck", "--quiet", f"--repo={place}/ostree/repo")
        entries = [Entry(path) for path in (files / "loader/entries").glob("pf-*.conf")]
        good = [entry for entry in entries if entry.left != 0]
        for entry in good:
            entry.check(files, place)
        # What the boot loader takes: those without tries left are last.
        choice = min(good, key=lambda entry: (entry.sort_key, -entry.version))
        return choice.called(place)


class Entry:
    def __init__(self, path):
        self.name, self.text = path.name, path.read_text()
        named = re.fullmatch(r"pf-([0-9a-f]{64}\.\d+)(?:\+(\d+)(?:-(\d+))?)?\.conf", path.name)
        assert named, path.name
        self.id, self.left = named[1], None if named[2] is None else int(named[2])
        fields = dict(line.split(None, 1) for line in self.text.splitlines())
        self.sort_key, self.version = fields["sort-key"], int(fields["version"])
        self.files = {"vmlinuz": fields["linux"], "initramfs.img": fields["initrd"]}
        assert f"ostree=/ostree/pf/{self.id}" in fields["options"].split(), self.text

    def root(self, place):
        return place / "ostree/pf" / self.id

    def check(self, files, place):
        """Its kernel is the one of its system, byte for byte, and its system is there."""
        root = self.root(place).resolve(strict=True)
        [modules] = (root / "usr/lib/modules").iterdir()
        for name, path in self.files.items():
            there, meant = (hashlib.sha256(file.read_bytes()).hexdigest()
                            for file in (files / path.lstrip("/"), modules / name))
            assert there == meant, (self.name, name)

    def called(self, place):
        return re.search(r"(?m)^IMAGE_VERSION=(.*)$", (self.root(place) / "usr/lib/os-release").read_text())[1]


def boots(state, before, parts, home, folder):
    """Starts a machine from it, until it is green; gives the version that it runs then."""
    folder.mkdir()
    disk, size = folder / "box.raw", before.stat().st_size
    with disk.open("wb") as file:
        file.truncate(size)
    # Both tables of partitions, and nothing else that was there before: what is zero now is a hole.
    for begin in (0, size - MIB):
        lay(before, disk, begin, skip=begin, count=MIB)
    for path, (begin, length) in parts.items():
        lay(state / path.name, disk, begin, count=length)
    owner = Browser(home)
    with Machine(disk, folder, home) as machine:
        machine.switch_on()
        ready(machine, owner, 2 * START_S)
        owner.ask("login")
        report = wait_for("what runs", 60, lambda: owner.call("GET", "/os").get("running") and owner.call("GET", "/os"),
                          machine.is_on)
        version = report["running"]["version"]
        if report["phase"]["name"] != "idle":
            # What was asked for still holds: it restarts by itself.
            wait_for("the restart", START_S, lambda: machine.starts() == 2, machine.is_on)
            ready(machine, owner, 2 * START_S)
            owner.ask("login")
            version = NEW
        green(machine, owner, version)
        machine.press_power()
        machine.wait_off(OFF_S)
    disk.unlink()
    return version


def lay(source, disk, begin, *, skip=0, count):
    run("dd", f"if={source}", f"of={disk}", "bs=1M", f"seek={begin}", f"skip={skip}", f"count={count}",
        "oflag=seek_bytes", "iflag=skip_bytes,count_bytes", "conv=notrunc,sparse", "status=none")


@contextmanager
def mounted(image, place):
    place.mkdir()
    run("mount", "-o", "loop,ro,noload", image, place)
    try:
        yield place
    finally:
        run("umount", place)


def run(*words, good=(0,)):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          env={"MTOOLS_SKIP_CHECK": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode in good, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
