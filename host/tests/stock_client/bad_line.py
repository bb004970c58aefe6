"""The relay as a test holds it: a bad line between one client and the host."""

import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path

from network import HOST_V4, inside

HERE = Path(__file__).resolve().parent


class Relay:
    """relay.py at an address that no other uses, in the client's namespace; the client is to take it for the host."""

    numbers = itertools.count(11)

    def __init__(self, network, log, video=(), audio=(), seed=0, vanish=None):
        self.address, self.log = f"10.77.0.{next(self.numbers)}", Path(log)
        network.give_client(self.address)
        words = ["--listen", self.address, "--host", HOST_V4, "--video", json.dumps(video), "--audio",
                 json.dumps(audio), "--seed", seed, "--log", self.log]
        words += ["--vanish", vanish] if vanish else []
        self.vanished = threading.Event()
        self.process = subprocess.Popen(
            inside(network.client, [sys.executable, "-B", HERE / "relay.py", *words]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n", "the relay did not start"
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self):
        return self

    def _listen(self):
        for line in self.process.stdout:
            if line == "vanished\n":
                self.vanished.set()

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.terminate()
        self.process.wait(30)

    def rows(self):
        """What passed and what was lost: {"video": [..], "audio": [..]}."""
        return json.loads(self.log.read_text())
