"""`ci/vm figures`: how a box starts and idles, beside a plain Debian of the same kernel in the same virtual machine.

Both are started twice, in turns, so that what else runs on this machine falls on both alike. Processor time is what the
virtual machine cost this one; it is the truer figure wherever something else runs. Time of day is what the guests
themselves say.

Of the box three moments are told: its console answers, which is when a browser in its network has had an answer; a client
could play, which the host says in its journal; it is green. The shell that both have for what is asked of them is no part
of either, and begins when all of that is over.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(sys.argv[1])
sys.path[:0] = [str(ROOT / "image/tests"), str(ROOT / "host/tests/stock_client")]

from disk import Disk  # noqa: E402
from home import Home, wait_for  # noqa: E402
from image import os_program, repository  # noqa: E402
from machine import Machine  # noqa: E402
from network import inside  # noqa: E402
from plain import plain_disk  # noqa: E402
from variants import Variants  # noqa: E402

# Software emulation beside other work.
LIMIT_S = 1800
# How long nobody does anything, and how long before that.
IDLE_S, SETTLE_S = 60, 60
VERSION = "0.0.1"
MARK = "figures: "
DAEMON = "punktfunk-host.service"


def mark(name: str, after: str = "", word: str = "") -> str:
    """A unit that tells on the serial console that the start has come as far as this: to what it is ordered after, and to a
    word of the daemon's if there is one."""
    early = "DefaultDependencies=no\n" if not after else f"After={after}\n"
    say = f": >/run/figures-{name}; echo {MARK}{name} >/dev/ttyS0"
    kind = "oneshot"
    if word:
        # Nobody waits for the end of the journal.
        kind, say = "exec", f"journalctl -b -f -n all -o cat -u {DAEMON} | {{ grep -q -m 1 {word}; {say}; }}"
    return f"[Unit]\nDescription=Says {name}\n{early}[Service]\nType={kind}\nExecStart=/bin/sh -c '{say}'\n"


def shell_after(name: str) -> str:
    """Keeps the shell on the serial console until the start has come as far as this."""
    return ("[Service]\nExecStart=\nExecStart=-/bin/sh -c 'until [ -e /run/figures-%s ]; do sleep 2; done; "
            "exec /sbin/agetty --autologin root --noclear --keep-baud 115200 - vt102'\n" % name)


# Where the kernel has handed over, and where the machine does what it is there for.
PLAIN_UNITS = {
    "figures-begun.service": (mark("begun"), "sysinit.target"),
    "figures-up.service": (mark("up", "multi-user.target"), "graphical.target"),
    "serial-getty@ttyS0.service.d/20-figures.conf": (shell_after("up"), ""),
}
BOX_UNITS = {
    "figures-begun.service": (mark("begun"), "sysinit.target"),
    "figures-ready.service": (mark("ready", DAEMON, "host.is.ready"), "multi-user.target"),
    "figures-green.service": (mark("green", "punktfunk-verdict.service"), "multi-user.target"),
    "serial-getty@ttyS0.service.d/20-figures.conf": (shell_after("green"), ""),
}


def main():
    image = Path(sys.argv[2]) if sys.argv[2] else newest()
    built = json.loads((image.parent / "image.json").read_text())
    folder = ROOT / "target/vm/figures"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("plain", "box"):
        (folder / name).mkdir(parents=True)
    began, load = time.strftime("%Y-%m-%d %H:%M"), os.getloadavg()
    with Home(folder) as home:
        (folder / "variant").mkdir()
        variants = Variants(repository(), built["commit"], folder / "variant")
        plain = Disk(plain_disk(PLAIN_UNITS, variants.read_bytes), folder / "plain.raw")
        plain = Subject(plain, folder / "plain", home, ["begun", "up"])
        # It is up when somebody in its network can see it.
        box = Subject(box_disk(image, variants, folder), folder / "box", home, ["begun", "up", "ready", "green"],
                      {"up": lambda: answers(home)})
        starts = {"plain": [], "box": []}
        for last in (False, True):
            for name, subject in (("plain", plain), ("box", box)):
                starts[name].append(subject.start(idle=last))
                print(f"{name}: {json.dumps(starts[name][-1])}", file=sys.stderr, flush=True)
    for subject in (plain, box):
        subject.machine.disk.unlink()
    kernels = {start.pop("kernel") for found in starts.values() for start in found}
    assert len(kernels) == 1, f"the kernels differ, and so nothing can be compared: {kernels}"
    result = {
        "began": began, "load": [round(one, 1) for one in (*load, *os.getloadavg())],
        "cores": os.cpu_count(), "host_kernel": platform.release(), "kernel": kernels.pop(),
        "image": built, "starts": starts, "ratios": [ratios(*both) for both in zip(starts["plain"], starts["box"])],
    }
    text = json.dumps(result, indent=2)
    (ROOT / "target/ci").mkdir(parents=True, exist_ok=True)
    (ROOT / "target/ci/figures.json").write_text(text + "\n")
    print(text)


def newest() -> Path:
    images = sorted((ROOT / "target/image").glob("*.raw"), key=lambda path: path.stat().st_mtime)
    if not images:
        sys.exit("There is no image in target/image yet; `ci/image --raw` makes one.")
    return images[-1]


def box_disk(image: Path, variants: Variants, folder: Path) -> Disk:
    """A copy of the disk on which a DEBUG variant of the image starts, judged like any new version."""
    disk = Disk(image, folder / "box.raw")
    variants.make(VERSION, debug=True, change=lay_marks)
    with disk.mounted(variants.folder) as (root, esp):
        subprocess.run([os_program(), "deploy-local", "--sysroot", root, "--esp", esp, variants.repo, f"test/{VERSION}"],
                       check=True)
    return disk


def lay_marks(tree: Path):
    units = tree / "usr/lib/systemd/system"
    for name, (text, target) in BOX_UNITS.items():
        (units / name).parent.mkdir(parents=True, exist_ok=True)
        (units / name).write_text(text)
        if target:
            (units / f"{target}.wants").mkdir(exist_ok=True)
            (units / f"{target}.wants" / name).symlink_to(f"../{name}")


def answers(home: Home) -> bool:
    """Whether the console does, to a browser in its network that has never seen it."""
    done = subprocess.run(
        inside(home.namespace, [sys.executable, "-B", ROOT / "image/tests/browser.py", "landing"]),
        input="{}", capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT / "host/tests/stock_client")})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["value"] is not None


class Subject:
    """One of the two machines."""

    def __init__(self, disk: Disk, folder: Path, home: Home, marks: list[str], seen: dict | None = None):
        """`seen` has the marks that it does not tell itself, and how each is seen."""
        self.machine, self.marks, self.seen = Machine(disk.path, folder, home), marks, seen or {}

    def start(self, *, idle: bool) -> dict:
        """Switches it on, watches it come up, and switches it off."""
        with self.machine as machine:
            told = len(machine.said())
            machine.switch_on()
            found = {"cpu_s": {}, "wall_s": {}}
            for name in self.marks:
                look = self.seen.get(name, lambda name=name: f"{MARK}{name}" in machine.said()[told:])
                wait_for(f'"{name}"', LIMIT_S, look, machine.is_on)
                found["cpu_s"][name] = round(machine.cpu_seconds(), 1)
                found["wall_s"][name] = round(time.monotonic() - machine.began, 1)
            # What is typed before somebody listens is lost.
            wait_for("a shell", LIMIT_S, lambda: re.search(r"root@[\w-]+:\S*#", machine.said()[told:]), machine.is_on)
            found |= self.inside()
            if idle:
                found["idle"] = self.idle()
            machine.shell("systemctl poweroff --no-block")
            machine.wait_off(LIMIT_S)
        return found

    def inside(self) -> dict:
        """What the guest itself says of its start, in seconds since the kernel handed over."""
        # Until the last job of the start is done there is no such time.
        said = self.machine.shell(
            "until systemd-analyze time >/dev/null 2>&1; do sleep 2; done; uname -r; systemd-analyze time; "
            "systemctl show -p UserspaceTimestampMonotonic -p FinishTimestampMonotonic; for u in multi-user.target "
            "punktfunk-host.service punktfunk-verdict.service; do echo unit=$u; systemctl show $u "
            "-p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic; done; "
            f"journalctl -b -q -u {DAEMON} -o short-monotonic | grep 'the host is ready'", LIMIT_S)
        manager, *units = said.split("unit=")
        handed = stamp(manager, "UserspaceTimestampMonotonic")
        since = {"finish": stamp(manager, "FinishTimestampMonotonic") - handed}
        for text in units:
            name = re.split(r"[.\n]", text.removeprefix("punktfunk-"))[0]
            exit_, enter = stamp(text, "InactiveExitTimestampMonotonic"), stamp(text, "ActiveEnterTimestampMonotonic")
            if enter:
                since |= {f"{name}_begins": exit_ - handed, name: enter - handed}
        if could_play := re.search(r"\[ *([\d.]+)\] .*the host is ready", said):
            since["ready"] = float(could_play[1]) * 1e6 - handed
        return {
            "kernel": said.strip().splitlines()[0],
            "said": re.search(r"Startup finished in (.*)", said)[1],
            "userspace_s": {name: round(micros / 1e6, 1) for name, micros in since.items()},
        }

    def idle(self) -> dict:
        """What it does when nobody wants anything of it."""
        look = ("echo uptime $(cut -d' ' -f1 /proc/uptime) $(awk '/^ctxt/{print $2}' /proc/stat); for p in /proc/[0-9]*; do "
                "e=$(readlink $p/exe) && echo program ${p#/proc/} $e $(cat $p/task/*/status 2>/dev/null | "
                "awk '/_ctxt/{n+=$2} /^VmRSS/&&!r{r=$2} END{print n,r}'); done")
        self.machine.shell(f"sleep {SETTLE_S}", LIMIT_S)
        cpu, began = self.machine.cpu_seconds(), time.monotonic()
        self.machine.shell(f"sleep {IDLE_S}", LIMIT_S)
        cost = (self.machine.cpu_seconds() - cpu) / (time.monotonic() - began)
        first = self.machine.shell(look, LIMIT_S)
        self.machine.shell(f"sleep {IDLE_S}", LIMIT_S)
        second = self.machine.shell(look, LIMIT_S)
        (before, switches, processes), (after, later, remained) = looked(first), looked(second)
        seconds = after - before
        ours = {}
        for pid, (program, count, resident) in remained.items():
            name = Path(program).name
            if name.startswith("punktfunk-") and pid in processes:
                one = ours.setdefault(name, {"wakeups_per_s": 0, "resident_kib": 0})
                one["wakeups_per_s"] = round(one["wakeups_per_s"] + (count - processes[pid][1]) / seconds, 2)
                one["resident_kib"] += resident
        return {
            "cpu_of_a_core": round(cost, 4),
            # Looking costs some hundred, alike in both.
            "switches_per_s": round((later - switches) / seconds, 1),
            "ours": ours,
            "ours_wakeups_per_s": round(sum(one["wakeups_per_s"] for one in ours.values()), 2),
            "ours_resident_kib": sum(one["resident_kib"] for one in ours.values()),
            "resident_kib": sum(resident for _, _, resident in remained.values()),
        }


def stamp(text: str, name: str) -> int:
    return int(re.search(rf"(?m)^{name}=(\d+)", text)[1])


def looked(text: str) -> tuple[float, int, dict[str, tuple[str, int, int]]]:
    uptime, switches = re.search(r"uptime ([\d.]+) (\d+)", text).groups()
    found = re.findall(r"program (\d+) (\S+) (\d+) (\d+)", text)
    return float(uptime), int(switches), {pid: (program, int(n), int(rss)) for pid, program, n, rss in found}


def ratios(plain: dict, box: dict) -> dict:
    """The box to the plain one; its self-test is what it does that the other has no like of. By its own clock the console is
    there when its unit is, and by the clock of this machine when it answers in the network."""
    said, inside = plain["userspace_s"], box["userspace_s"]
    self_test = inside["verdict"] - max(inside["verdict_begins"], inside["ready"])
    both = (("plain", plain), ("box", box))
    spent, passed = ({name: one[of]["up"] - one[of]["begun"] for name, one in both} for of in ("cpu_s", "wall_s"))
    return {
        "userspace_to_console": round(inside["host"] / said["multi-user"], 2),
        "userspace_without_self_test": round((inside["finish"] - self_test) / said["finish"], 2),
        "self_test_s": round(self_test, 1),
        "cpu_to_console": round(box["cpu_s"]["up"] / plain["cpu_s"]["up"], 2),
        "cpu_userspace_to_console": round(spent["box"] / spent["plain"], 2),
        "wall_userspace_to_console": round(passed["box"] / passed["plain"], 2),
    }


if __name__ == "__main__":
    main()
