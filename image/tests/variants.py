"""Other versions of an image, made in seconds: the committed tree with a few files laid over it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

OVERLAYS = Path(__file__).resolve().parents[2] / "overlays"


class Variants:
    """Commits of one OSTree repository."""

    def __init__(self, repo: Path, base: str, folder: Path):
        self.repo, self.base, self.folder = repo, base, folder

    def make(self, version: str, *, debug=False, change=None) -> str:
        """A commit that is called `version`. `change(tree)` lays more files into the folder; returns the commit."""
        tree = self.folder / f"tree-{version}"
        shutil.rmtree(tree, ignore_errors=True)
        self._write(tree / "usr/lib/os-release",
                    re.sub(r"(?m)^IMAGE_VERSION=.*$", f"IMAGE_VERSION={version}", self.read("usr/lib/os-release")))
        self._write(tree / "usr/lib/punktfunk/version", f"{version}\n")
        if debug:
            self._open(tree)
        if change is not None:
            change(tree)
        # What is laid over is root's, as this process is; all else keeps its owner.
        commit = self._ostree(
            "commit", "--orphan", f"--tree=ref={self.base}", f"--tree=dir={tree}", "--bootable",
            f"--subject=punktfunk {version}", f"--add-metadata-string=version={version}")
        self._ostree("refs", "--create", f"test/{version}", "--force", commit)
        return commit

    def read(self, path: str) -> str:
        return self._ostree("cat", self.base, f"/{path}") + "\n"

    def read_bytes(self, path: str) -> bytes:
        return subprocess.run(["ostree", f"--repo={self.repo}", "cat", self.base, f"/{path}"],
                              stdout=subprocess.PIPE, check=True).stdout

    def entries(self, folder: str) -> dict[str, str]:
        """All that lies below it, from there, and where the links among it lead."""
        listed = self._ostree("ls", "-R", self.base, f"/{folder}").splitlines()
        found = (re.fullmatch(rf"\S+ +\d+ +\d+ +\d+ /{re.escape(folder)}/(.+?)(?: -> (.+))?", line) for line in listed)
        return {one[1]: one[2] or "" for one in found if one}

    def listed(self, path: str) -> str:
        """What lies in a folder, a line each, which ends in the path."""
        return self._ostree("ls", self.base, f"/{path}")

    def _open(self, tree: Path):
        """A root shell on the serial console, as DEBUG=1 gives one."""
        shutil.copytree(OVERLAYS / "debug/etc", tree / "usr/etc")
        units = tree / "usr/etc/systemd/system"
        wants = units / "getty.target.wants"
        wants.mkdir(parents=True)
        (wants / "serial-getty@ttyS0.service").symlink_to("/usr/lib/systemd/system/serial-getty@.service")
        # The base masks the template; a unit of its own stands beside the mask.
        (units / "serial-getty@ttyS0.service").write_text(self.read("usr/lib/systemd/system/serial-getty@.service"))
        self._write(tree / "usr/etc/shadow", re.sub(r"(?m)^root:[^:]*:", "root::", self.read("usr/etc/shadow")), 0o600)
        self._write(tree / "usr/etc/passwd",
                    re.sub(r"(?m)^(root:.*:)[^:]*$", r"\1/bin/bash", self.read("usr/etc/passwd")))

    @staticmethod
    def _write(path: Path, text: str, mode=0o644):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def _ostree(self, *words) -> str:
        done = subprocess.run(["ostree", f"--repo={self.repo}", *map(str, words)], stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0, f"ostree {words[0]} failed"
        return done.stdout.strip()
