"""Sticks that somebody plugs into a box."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Sticks:
    """Sticks in the only USB port of a machine that was made with `Sticks.PORT`."""

    PORT = ("-device", "qemu-xhci,id=usb")

    def __init__(self, box, folder: Path):
        self.box, self.folder, self.count = box, folder, 0

    def make(self, name: str, file: Path, *, partition=True, system="vfat", size_mib=64) -> Path:
        """A stick with one file: with a table of partitions as from the shop, or without one."""
        path, begin = self.folder / name, 2048 if partition else 0
        with path.open("wb") as stick:
            stick.truncate(size_mib << 20)
        if partition:
            run(["sfdisk", "--quiet", path], input="label: dos\nstart=2048, type=c\n")
        if system == "vfat":
            run(["mkfs.vfat", "-F32", f"--offset={begin}", path, (size_mib << 10) - begin // 2])
            run(["mcopy", "-i", f"{path}@@{begin * 512}", file, "::"])
        else:
            tree = self.folder / "tree"
            tree.mkdir()
            file.rename(tree / file.name)
            run([f"mkfs.{system}", "-q", "-d", tree, path])
        return path

    def plug_in(self, path: Path):
        self.count += 1
        name = f"stick{self.count}"
        self.box.ask("blockdev-add", **{"driver": "raw", "node-name": name, "read-only": True, "file": {
            "driver": "file", "filename": str(path)}})
        self.box.ask("device_add", driver="usb-storage", bus="usb.0", drive=name, id=f"{name}-usb", removable=True)

    def pull_out(self):
        self.box.ask("device_del", id=f"stick{self.count}-usb")


def run(words, **options):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, text=True, **options)
