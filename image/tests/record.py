"""What became of each case and what it cost: what a full run leaves as its proof."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path


class Record:
    """A plugin of pytest."""

    def __init__(self, path: Path):
        self.path, self.cases, self._spent = path, {}, 0.0

    def pytest_runtest_logstart(self, nodeid):
        self._spent = spent()
        self.cases[_name(nodeid)] = {"passed": True, "seconds": 0.0, "cpu_s": 0.0}

    def pytest_runtest_logreport(self, report):
        case = self.cases[_name(report.nodeid)]
        case["passed"] &= report.outcome == "passed"
        case["seconds"] = round(case["seconds"] + report.duration, 1)
        case["cpu_s"] = round(spent() - self._spent, 1)
        if report.failed:
            # Whoever waits for the other cases, an hour of them, need not wait to learn of this one.
            print(f"\n{report.longreprtext}", flush=True)
        self._write()

    def pytest_sessionfinish(self):
        self._write()

    def _write(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.cases, indent=2) + "\n")


def spent() -> float:
    """CPU seconds of all that was started here, machines that still run among it."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(map(_of_child, Path("/proc").glob("[0-9]*/stat")))


def _of_child(stat: Path) -> float:
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    ours = int(fields[1]) == os.getpid()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK") if ours else 0.0


def _name(nodeid: str) -> str:
    return nodeid.rsplit("::", 1)[1]
