"""A PC that is not there: QEMU with UEFI, software emulation, a disk, a cable, a watchdog and a power button.

The machine is watched through what a real one shows: its network, its serial console, its disk. Nothing inside knows
that it is tested.
"""

from __future__ import annotations

import json
import queue
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from network import inside

# The oldest processor that has AES: what a box needs of its own.
CPU = "Westmere"
# Of two that are emulated at once, one can run a breakpoint which the other has just taken out of the kernel again; the
# kernel does not know it any more and panics: "int3 .. Fatal exception in interrupt". Seen under load, with QEMU 7.2.
PROCESSORS = 1
MEMORY_MIB = 2048
FIRMWARE = Path("/usr/share/OVMF")
SECURE = ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd")
PLAIN = ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")


class Machine:
    """`with Machine(..) as machine`; the disk stays when it goes."""

    def __init__(self, disk: Path, folder: Path, home, *, memory=MEMORY_MIB, secure=False, extra=()):
        self.disk, self.folder, self.home = disk, folder, home
        self.memory, self.secure, self.extra = memory, secure, extra
        # Where each write is written down, with the flushes between them.
        self.log = None
        self.serial = folder / "serial.log"
        self._process = self._qmp = None
        # What the firmware remembers, from one start to the next.
        self._variables = folder / "firmware.fd"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.unplug()

    def switch_on(self):
        assert self._process is None, "the machine runs already"
        code, variables = SECURE if self.secure else PLAIN
        if not self._variables.exists():
            shutil.copyfile(FIRMWARE / variables, self._variables)
        place = self.folder / "qmp"
        place.unlink(missing_ok=True)
        machine = "q35,smm=on" if self.secure else "q35"
        words = [
            *["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512", "-machine", machine, "-cpu", CPU],
            *["-smp", str(PROCESSORS), "-m", str(self.memory), "-nodefaults", "-no-user-config", "-display", "none"],
            *["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE / code}"],
            *["-drive", f"if=pflash,format=raw,file={self._variables}"],
            *self._drive(),
            *["-device", "virtio-blk-pci,drive=disk,bootindex=0"],
            *["-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset"],
            *["-chardev", f"socket,id=serial,path={self.folder / 'console'},server=on,wait=off,logfile={self.serial},logappend=on"],
            *["-serial", "chardev:serial"],
            *["-qmp", f"unix:{place},server=on,wait=off", *self.home.cable(), *self.extra],
        ]
        if self.secure:
            words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        log = (self.folder / "qemu.log").open("ab")
        # Whoever ends the test ends the machine; Ctrl-C is not for it.
        words = ["setpriv", "--pdeathsig=KILL", *words]
        words = inside(self.home.namespace, words) if self.home.namespace else words
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._qmp = Qmp(place, self._process)
        self.began = time.monotonic()

    def _drive(self):
        if self.log is None:
            return ["-drive", f"if=none,id=disk,format=raw,file={self.disk}"]
        self.log.touch()
        # Flushes go through to both files, as they do to a disk.
        return [word for node in (
            f"driver=file,filename={self.disk},node-name=file", "driver=raw,file=file,node-name=raw",
            f"driver=file,filename={self.log},node-name=log", "driver=blklogwrites,file=raw,log=log,node-name=disk",
        ) for word in ("-blockdev", node)]

    def press_power(self):
        """One short press."""
        self._qmp.ask("system_powerdown")

    def wait_off(self, limit_s: float):
        """Until the machine has switched itself off."""
        self._process.wait(limit_s)
        self._process = self._qmp = None

    def unplug(self):
        """Takes the power away, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = self._qmp = None

    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def cpu_seconds(self) -> float:
        """What the machine has cost so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def starts(self) -> int:
        """How often the machine's boot loader has been reached, as its firmware tells on the serial console."""
        return self.said().count("BdsDxe: starting")

    def said(self) -> str:
        """All that came over the serial console."""
        with suppress(FileNotFoundError):
            return self.serial.read_bytes().decode("utf-8", "replace")
        return ""

    def events(self) -> str:
        """What QEMU has told of the machine, a JSON object each."""
        with suppress(FileNotFoundError):
            return (self.folder / "events.log").read_text()
        return ""

    def ask(self, command: str, **arguments):
        return self._qmp.ask(command, **arguments)

    def shell(self, command: str, limit_s: float = 120) -> str:
        """What a command prints on the root shell that a DEBUG image has on its serial console."""
        mark = f"end-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self.folder / "console"))
            # The marks are put together by the shell, so that their echo is none. What comes before it listens is lost.
            console.settimeout(5)
            heard, end = b"", time.monotonic() + limit_s
            while b"shell-listens" not in heard:
                assert time.monotonic() < end, "there is no shell on the console"
                console.sendall(b"\necho shell-''listens\n")
                with suppress(TimeoutError):
                    heard += console.recv(65536)
            console.settimeout(limit_s)
            console.sendall(f"\nstty -echo; export TERM=dumb SYSTEMD_COLORS=0 PAGER=cat SYSTEMD_PAGER=cat; echo '{mark[:4]}''begin'; {command}; echo '{mark[:4]}''{mark[4:]}'\n".encode())
            heard = b""
            while mark.encode() not in heard:
                heard += console.recv(65536)
        text = heard.decode("utf-8", "replace").replace("\r", "")
        return text.split(f"{mark[:4]}begin\n", 1)[1].split(mark, 1)[0]


class Qmp:
    """QEMU's own remote control."""

    def __init__(self, place: Path, process: subprocess.Popen):
        end = time.monotonic() + 30
        while not place.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"qemu did not start: {process.returncode}; see qemu.log")
            time.sleep(0.05)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(place))
        self._answers: queue.SimpleQueue[dict] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=[place.with_name("events.log")], daemon=True).start()
        self.ask("qmp_capabilities")

    def _listen(self, log: Path):
        """Puts aside what QEMU answers, and writes down what it tells by itself: who has restarted the machine, and when."""
        with self._socket.makefile("r") as lines, log.open("a") as told, suppress(OSError):
            for line in lines:
                answer = json.loads(line)
                if "event" in answer:
                    told.write(line)
                    told.flush()
                elif "QMP" not in answer:
                    self._answers.put(answer)
        self._answers.put({"error": "qemu ended before it answered"})

    def ask(self, command: str, **arguments):
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        answer = self._answers.get(timeout=60)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer["return"]
