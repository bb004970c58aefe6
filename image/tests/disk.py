"""The disk of a box on the desk: what lies on its ESP, and its root while the box is off."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """A copy of an image that a box runs from."""

    def __init__(self, image: Path, path: Path):
        subprocess.run(["cp", "--sparse=always", image, path], check=True)
        self.path = path

    def _parts(self) -> list[tuple[int, int]]:
        return partitions(self.path)

    def esp_file(self, name: str) -> str | None:
        """A file on the ESP, as it is on the disk now; also while the box runs."""
        done = subprocess.run(
            ["mtype", "-i", self._esp_image(), f"::{name}"], capture_output=True, text=True, env=_MTOOLS)
        return done.stdout if done.returncode == 0 else None

    def esp_entries(self) -> list[str]:
        """The boot loader's entries, by file name."""
        listed = _output("mdir", "-b", "-i", self._esp_image(), "::loader/entries")
        return sorted(line.rsplit("/", 1)[1] for line in listed.splitlines() if line.endswith(".conf"))

    def var_file(self, name: str) -> bytes:
        """A file below /var, while the box is off."""
        where = f"{self.path}?offset={self._parts()[1][0]}"
        done = subprocess.run(["debugfs", "-R", f"cat /ostree/deploy/punktfunk/var/{name}", where],
                              check=True, capture_output=True, env=_MTOOLS)
        assert done.stdout, done.stderr
        return done.stdout

    def flaw(self, name: str) -> None:
        """Ruins a file below /var as worn-out flash would, while the box is off: what e2fsck repairs only when told to."""
        where = f"{self.path}?offset={self._parts()[1][0]}"
        for change in (f"sif /ostree/deploy/punktfunk/var/{name} mode 0", "ssv state 2"):
            _run("debugfs", "-w", "-R", change, where)

    def _esp_image(self) -> str:
        return f"{self.path}@@{self._parts()[0][0]}"

    @contextmanager
    def mounted(self, folder: Path):
        """Root and ESP as folders; what was changed is on the disk afterwards. Only while the box is off."""
        root, esp = folder / "root", folder / "esp"
        root.mkdir(exist_ok=True)
        shutil.rmtree(esp, ignore_errors=True)
        esp.mkdir()
        start, size = self._parts()[1]
        _run("mount", "-o", f"loop,offset={start},sizelimit={size}", self.path, root)
        try:
            # Not every machine can mount FAT.
            _run("mcopy", "-s", "-n", "-i", self._esp_image(), "::*", esp)
            yield root, esp
            self._write_esp(esp, folder / "esp.img")
        finally:
            _run("umount", root)

    def _write_esp(self, esp: Path, image: Path) -> None:
        start, size = self._parts()[0]
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
        _run("mkfs.vfat", "-F32", "-n", "PUNKTFUNK", image)
        _run("mcopy", "-s", "-i", image, *sorted(esp.iterdir()), "::")
        _run("dd", f"if={image}", f"of={self.path}", "bs=1M", f"seek={start >> 20}", "conv=notrunc", "status=none")
        image.unlink()


def partitions(disk: Path) -> list[tuple[int, int]]:
    """Start and size in bytes of ESP and root, as they are now: the box grows its root."""
    table = json.loads(_output("sfdisk", "-J", disk))["partitiontable"]["partitions"]
    return [(part["start"] * 512, part["size"] * 512) for part in table[:2]]


# A copy that a box writes to meanwhile is no reason to refuse.
_MTOOLS = {"MTOOLS_SKIP_CHECK": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def _run(*words) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, env=_MTOOLS)


def _output(*words) -> str:
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True,
                          env=_MTOOLS).stdout
