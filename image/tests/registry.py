"""A registry in the home's network, as anybody runs one: what is published there is what the box updates itself from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from home import wait_for
from network import inside


class Registry:
    """`with Registry(address, home, folder) as registry`. Its log says who asked for what."""

    def __init__(self, address: str, home, folder: Path):
        self.address, self.home, self.folder = address, home, folder
        self.log = folder / "registry.log"
        self._process = None

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "registry.json"
        settings.write_text(json.dumps({
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "blobs")}},
            "http": {"addr": urlsplit(self.address).netloc},
        }))
        words = ["setpriv", "--pdeathsig=KILL", "docker-registry", "serve", settings]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                inside(self.home.namespace, words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("the registry", 60, self._answers, lambda: self._process.poll() is None)
        return self

    def _answers(self) -> bool:
        where = urlsplit(self.address)
        asked = subprocess.run(
            inside(self.home.namespace, ["bash", "-c", f"</dev/tcp/{where.hostname}/{where.port}"]), stdin=subprocess.DEVNULL, capture_output=True)
        return asked.returncode == 0

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
