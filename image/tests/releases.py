"""Whoever makes the box: puts versions into releases, signs what is stated of them, and publishes it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from network import inside
from registry import Registry

DAY_S = 86400
# Nobody waits for these bytes but the tests.
LEVEL = 3


class Releases:
    """Releases of one channel. `keys` is the folder of the keys that the image under test trusts."""

    def __init__(self, program: Path, keys: Path, repo: Path, flavour: str, folder: Path, registry: Registry):
        self.program, self.keys, self.repo, self.flavour = program, keys, repo, flavour
        self.folder, self.registry = folder, registry
        self.known: list[dict] = []
        self._made_at = 0

    def publish(self, version: str, commit: str, minimum: str = "0.1.0") -> dict:
        """Makes a release of a commit and states it, with all that were stated before. Gives what is stated of it."""
        words = ["--repo", self.repo, "--commit", commit, "--out", self.layout(version), "--level", LEVEL]
        made = json.loads(self._run("encapsulate", *words))
        self.known.append({
            "version": version, "commit": commit, "image": made["image"], "size_bytes": made["size_bytes"],
            "unpacked_bytes": made["unpacked_bytes"], "minimum": minimum, "changes": [f"What is new in {version}."],
        })
        self.push(version, self.state())
        return self.known[-1] | {"made_at": self._made_at}

    def archive(self, version: str, envelope: Path, name: str) -> Path:
        """One file with the layers of a version and what is stated, for boxes that reach no registry."""
        path = self.folder / name
        self._run("archive", "--envelope", envelope, "--layout", self.layout(version), path)
        return path

    def layout(self, version: str) -> Path:
        """Where the layers of a version lie."""
        return self.folder / f"layout-{version}"

    def push(self, version: str, envelope: Path) -> None:
        """Puts the layers of a version into the registry, and what is stated where boxes look for it."""
        words = [self.program, "push", self.layout(version), self.registry.address, "--envelope", envelope]
        words += ["--tag", f"stable-{self.flavour}", "--allow-http"]
        subprocess.run(inside(self.registry.home.namespace, words), check=True, stdin=subprocess.DEVNULL)

    def state(self, key="current", **changes) -> Path:
        """A signed statement of all releases so far. `changes` are laid over it."""
        now = int(time.time())
        # The box's clock may be a little behind, and each statement is newer than the one before.
        self._made_at = max(self._made_at + 1, now - 60)
        statement = {
            "schema": 1, "channel": "stable", "flavour": self.flavour, "made_at": self._made_at,
            "expires_at": now + 30 * DAY_S, "releases": self.known,
        } | changes
        text, envelope = self.folder / "statement.json", self.folder / "envelope.json"
        text.write_text(json.dumps(statement))
        # Whoever signs is asked only whether it holds when it is made.
        self._run("sign", "--key", self.keys / f"{key}.key", "--at", statement["made_at"], text, envelope)
        return envelope

    def _run(self, *words) -> str:
        done = subprocess.run([str(word) for word in (self.program, *words)], check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout
