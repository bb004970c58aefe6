"""A home: a network of its own with a router that gives addresses, where the box and the devices of its owner live."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from network import PREFIX, inside, ip, remove_leftovers, remove_namespace

ROUTER, BOX = "10.78.0.1", "10.78.0.2"
CARD = "52:54:00:70:66:01"


class Home:
    """`with Home(folder) as home`. The namespace goes with all that is in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.namespace = f"{PREFIX}{os.getpid()}-home"
        self._router = None

    def __enter__(self):
        remove_leftovers()
        ip("netns", "add", self.namespace)
        try:
            self._lay()
        except BaseException:
            remove_namespace(self.namespace)
            raise
        return self

    def _lay(self):
        inner = ["-n", self.namespace]
        ip(*inner, "link", "set", "lo", "up")
        ip(*inner, "tuntap", "add", "dev", "box", "mode", "tap")
        ip(*inner, "addr", "add", f"{ROUTER}/24", "brd", "+", "dev", "box")
        ip(*inner, "link", "set", "box", "up")
        ip(*inner, "route", "add", "224.0.0.0/4", "dev", "box")
        log = (self.folder / "router.log").open("ab")
        words = [
            *["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-dhcp", "--log-facility=-"],
            *["--interface=box", "--bind-interfaces", "--user=root", "--leasefile-ro", "--pid-file="],
            *[f"--dhcp-range={ROUTER},static,255.255.255.0,1h", f"--dhcp-host={CARD},{BOX}"],
            f"--dhcp-option=option:ntp-server,{ROUTER}",
        ]
        self._router = subprocess.Popen(inside(self.namespace, words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def cable(self) -> list[str]:
        """How a machine is plugged in."""
        return [
            *["-netdev", "tap,id=cable,ifname=box,script=no,downscript=no"],
            *["-device", f"virtio-net-pci,netdev=cable,mac={CARD},romfile="],
        ]

    @contextmanager
    def timekeeper(self):
        """Somebody here knows what time it is, as long as this lasts; otherwise nobody does."""
        words = [sys.executable, "-B", Path(__file__).with_name("timekeeper.py"), ROUTER]
        process = subprocess.Popen(inside(self.namespace, words), stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def __exit__(self, *_):
        self._router.terminate()
        self._router.wait()
        remove_namespace(self.namespace)


def wait_for(what: str, limit_s: float, look, alive=lambda: True):
    """Looks until there is something to see."""
    end = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        assert alive(), f"the machine went off while {what} was awaited"
        assert time.monotonic() < end, f"{what} did not come within {limit_s:.0f} s"
        time.sleep(0.25)
