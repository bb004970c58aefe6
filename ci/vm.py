"""`ci/vm run`: a box in a virtual machine, with its ports where a browser and Moonlight on this desk find them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(sys.argv[1])
sys.path[:0] = [str(ROOT / "image/tests"), str(ROOT / "host/tests/stock_client")]

from machine import Machine  # noqa: E402

TCP = (47984, 47989, 47990, 48010)
UDP = (47998, 47999, 48000, 48100)


class Desk:
    """The network of this machine. The box reaches out as a program of this machine would; what comes in is forwarded."""

    namespace = None

    def cable(self):
        forward = [f"hostfwd=tcp:127.0.0.1:{port}-:{port}" for port in TCP]
        forward += [f"hostfwd=udp:127.0.0.1:{port}-:{port}" for port in UDP]
        return ["-netdev", "user,id=cable," + ",".join(forward), "-device", "virtio-net-pci,netdev=cable,romfile="]


def main():
    image = Path(sys.argv[2]) if sys.argv[2] else newest()
    folder = ROOT / "target/vm"
    folder.mkdir(parents=True, exist_ok=True)
    disk = folder / f"{image.stem}.raw"
    if not disk.exists():
        subprocess.run(["cp", "--sparse=always", image, disk], check=True)
    print(f"{disk} boots; its serial console goes to {folder / 'serial.log'}.")
    print("Console: https://localhost:47990 (some minutes under emulation). Moonlight: 127.0.0.1. Ctrl-C switches it off.")
    with Machine(disk, folder, Desk()) as machine:
        pressed = []
        signal.signal(signal.SIGINT, lambda *_: pressed.append(time.monotonic()))
        machine.switch_on()
        told = 0
        while machine.is_on():
            # What the box says on its serial console, as it comes.
            said = machine.said()
            sys.stdout.write(said[told:])
            sys.stdout.flush()
            told = len(said)
            if pressed:
                if len(pressed) > 1:
                    print("\nThe power is taken away.")
                    return
                if pressed[0] is not None:
                    print("\nThe power button is pressed; the box takes a moment. Ctrl-C again takes the power away.")
                    machine.press_power()
                    pressed[0] = None
            time.sleep(0.5)


def newest() -> Path:
    images = sorted((ROOT / "target/image").glob("*.raw"), key=lambda path: path.stat().st_mtime)
    if not images:
        sys.exit("There is no image in target/image yet; `ci/image --raw` makes one.")
    return images[-1]


if __name__ == "__main__":
    main()
