"""Builds the fuzz targets with the instrumentation that the toolchain has, and lets them search.

libFuzzer is told what a failure is by the target's own assertions, by Rust's checks (bounds, overflow), by limits on
memory and on the time of one input, and by AddressSanitizer where there is one. ci/fuzz has installed what is needed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUZZ, CORPUS = ROOT / "core" / "fuzz", ROOT / "core" / "tests" / "corpus"
RESULTS = ROOT / "target" / "ci" / "fuzz"
KEEP_FILES, KEEP_BYTES = 12, 4096
# Of one input. The slowest parser takes microseconds; a machine may be loaded.
INPUT_DEADLINE_S = 10
MEMORY_MIB = 1024
COVERAGE = ["-Cpasses=sancov-module", *(f"-Cllvm-args=-sanitizer-coverage-{part}" for part in (
    "level=4", "inline-8bit-counters", "pc-table", "trace-compares"))]


def targets():
    return sorted(path.stem for path in (FUZZ / "targets").glob("*.rs"))


def longest(target):
    """The longest input worth trying, as the list of bodies says."""
    listed = re.findall(r'\("([\w-]+)", [\w:]+, (\d+)\)', (ROOT / "core/tests/bodies/mod.rs").read_text())
    return dict(listed)[target]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Build:
    """The targets, compiled once for this compiler."""

    def __init__(self):
        version = output("rustc", "--version", "--verbose")
        self.triple = re.search(r"^host: (.*)$", version, re.M)[1]
        self.compiler = version.splitlines()[0]
        libraries = Path(output("rustc", "--print", "sysroot")) / "lib" / "rustlib" / self.triple / "lib"
        self.has_address_sanitizer = any(libraries.glob("librustc*_rt.asan.a"))
        self.folder = Path(os.environ["PUNKTFUNK_CACHE"]) / "fuzz"
        self.corpus = self.folder / "corpus"
        self.environment = os.environ | {
            # Of its own, so that the instrumented crates and the others never meet.
            "CARGO_TARGET_DIR": str(self.folder / "target"), "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(self.flags())}
        if self.has_address_sanitizer:
            # The flag is called unstable because its name may change, and the build says at once if it has.
            self.environment["RUSTC_BOOTSTRAP"] = "1"

    def flags(self):
        return COVERAGE + (["-Zsanitizer=address"] if self.has_address_sanitizer else [])

    def compile(self):
        # Cargo tells our crates of two clones apart by the age of their files alone (ci/steps/build.sh).
        marker, inode = self.folder / "clone", ROOT.stat()
        clone = f"{ROOT} {inode.st_dev}:{inode.st_ino}"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not marker.exists() or marker.read_text() != clone:
            subprocess.run(["cargo", "clean", "--quiet", "--locked", "-p", "punktfunk-core", "-p", "punktfunk-fuzz"],
                           cwd=FUZZ, check=True, env=self.environment)
            marker.write_text(clone)
        # With the target named, build scripts and macros are built without instrumentation.
        subprocess.run(["cargo", "build", "--locked", "--quiet", "--bins", "--target", self.triple], cwd=FUZZ,
                       check=True, env=self.environment, stdin=subprocess.DEVNULL)

    def binary(self, target):
        return self.folder / "target" / self.triple / "debug" / target

    def describe(self):
        return {"compiler": self.compiler, "coverage": "edges (inline 8-bit counters) and comparisons",
                "sanitizers": ["address"] if self.has_address_sanitizer else []}


def search(build, target, seconds):
    """Lets one target search; returns what came of it."""
    found, failures = build.corpus / target, RESULTS / target
    found.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(failures, ignore_errors=True)
    failures.mkdir(parents=True)
    command = [build.binary(target), f"-max_total_time={seconds}", f"-max_len={longest(target)}",
               f"-timeout={INPUT_DEADLINE_S}", f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={failures}/",
               "-print_final_stats=1", found, CORPUS / target]
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, errors="replace", env=os.environ | {"RUST_BACKTRACE": "1"})
    (failures / "log").write_text(done.stderr)
    last = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/", done.stderr)
    runs = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    edges = re.search(r"\((\d+) inline 8-bit counters\)", done.stderr)
    inputs = sorted(path.name for path in failures.iterdir() if path.name != "log")
    coverage, features, corpus = map(int, last[-1]) if last else (0, 0, 0)
    return {"target": target, "passed": done.returncode == 0 and not inputs and bool(last),
            "seconds": round(time.monotonic() - began, 1), "executions": int(runs[1]) if runs else 0,
            "edges": coverage, "edges_in_binary": int(edges[1]) if edges else 0, "features": features,
            "corpus": corpus, "failures": inputs, "status": done.returncode}


def run(wanted, seconds):
    """Searches with every target named and writes the result; true if nothing failed."""
    build = Build()
    RESULTS.mkdir(parents=True, exist_ok=True)
    print("Building the fuzz targets:", build.compiler, "with", ", ".join(build.describe()["sanitizers"]) or
          "no sanitizer (this toolchain has none)", flush=True)
    build.compile()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = []
        for outcome in pool.map(lambda target: search(build, target, seconds), wanted):
            word = "passed" if outcome["passed"] else f"FAILED: {RESULTS / outcome['target']}"
            print(f"{outcome['target']:18}{outcome['executions']:12} runs  {outcome['edges']:6} edges  "
                  f"{outcome['corpus']:6} inputs  {word}", flush=True)
            outcomes.append(outcome)
    result = build.describe() | {"passed": all(outcome["passed"] for outcome in outcomes), "targets": outcomes}
    (RESULTS / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return result["passed"]


def keep(target):
    """Adds inputs that reach what the kept ones do not reach: some of each size, for small ones are refused early."""
    build = Build()
    build.compile()
    chosen = RESULTS / f"{target}-chosen"
    shutil.rmtree(chosen, ignore_errors=True)
    shutil.copytree(CORPUS / target, chosen)
    had = {path.name for path in chosen.iterdir()}
    # Edges only: what they were taken how often is for the cache.
    subprocess.run([build.binary(target), "-merge=1", "-use_counters=0", "-use_value_profile=0",
                    f"-max_len={longest(target)}", chosen, build.corpus / target],
                   check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    new = sorted((path for path in chosen.iterdir() if path.name not in had), key=lambda path: path.stat().st_size)
    left = KEEP_BYTES
    for path in new[:: -(-len(new) // KEEP_FILES) or 1]:
        left -= path.stat().st_size
        if left < 0:
            break
        shutil.copy(path, CORPUS / target / f"found-{path.name[:12]}")
    shutil.rmtree(chosen)


def main(words):
    first, seconds = words[0], int(words[1]) if words[1:] and words[1].isdigit() else 60
    if first == "list":
        print("\n".join(targets()))
    elif first == "keep" and words[1:] and words[1] in targets():
        keep(words[1])
    elif first == "all" or first in targets():
        return 0 if run(targets() if first == "all" else [first], seconds) else 1
    else:
        print(f"ci/fuzz: there is no target \"{first}\"; ci/fuzz list names them", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
