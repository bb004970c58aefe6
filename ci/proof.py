"""The proof that a full run of the box's tests leaves: docs/proofs/vm-full.json.

Each file of tests is a part and has a record of its own, which a run of that part renews. A record names the commit that was
tested and, since it is committed after that, a digest of the files that matter: what the box is made of, the part, and what the
parts share. Whoever changes one of them makes it stale. That is said at the end of every `ci/test` and fails nothing,
because to renew all of them takes an hour.
"""

import datetime
import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "proofs" / "vm-full.json"
TESTS = "image/tests"
# What the box is made of, and what tests it.
PATHS = ["Containerfile", "ci/image.py", "host/os", "host/update", "image", "overlays"]


def write(results, passed):
    """Puts together what a run found of each part. One that passed on files as they are committed is the new proof of it."""
    found = {name: _record(results / f"test_{name}", name, done) for name, done in passed.items()}
    (results / "proof.json").write_text(json.dumps(found, indent=2) + "\n")
    good = {name: record for name, record in found.items() if record["passed"]}
    if bad := sorted(found.keys() - good.keys()):
        print(f"No proof, because not all passed: {', '.join(bad)}; see target/ci/vm/proof.json", flush=True)
    if good and changed():
        print(f"This run is no proof, because of what is not committed: {changed()}", flush=True)
    elif good:
        kept = _read(KEPT)
        kept = {name: kept[name] for name in kept if name in parts()} | good
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n")
        print(f"Commit {KEPT.relative_to(ROOT)}: it has the new proof of {', '.join(good)}.", flush=True)


def _record(results, name, passed):
    measured = _read(results / "measured.json")
    cases = _read(results / "cases.json")
    for case, about in cases.items():
        about |= measured.pop(case.removeprefix("test_"), {})
    return {
        "passed": passed and bool(cases) and all(case["passed"] for case in cases.values()),
        "commit": _git("rev-parse", "HEAD").strip(),
        "tested": digest(name),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "kernel": platform.release().split("-")[0]},
        "emulation": f"{_qemu()}, TCG without KVM, one Westmere processor, 2048 MiB",
        "cases": cases,
        "measured": measured,
    }


def state():
    """What is to be said of the kept proof."""
    kept = _read(KEPT)
    missing = [name for name in parts() if name not in kept]
    try:
        stale = [name for name in parts() if name in kept and (kept[name]["tested"] != digest(name) or changed())]
    except (OSError, subprocess.SubprocessError):
        return "of an unknown state, because this is no clone"
    said = [f"{word} {', '.join(names)}" for word, names in (("MISSING", missing), ("STALE", stale)) if names]
    if said:
        return f"{'; '.join(said)}: ci/test vm-full:PART renews one, ci/test vm-full all of them"
    cases = sum(len(record["cases"]) for record in kept.values())
    return f"current ({len(kept)} parts, {cases} cases, {min(record['date'] for record in kept.values())} or later)"


def parts():
    """The files of tests, by what comes after `test_`."""
    return sorted(file.stem.removeprefix("test_") for file in (ROOT / TESTS).glob("test_*.py"))


def digest(part):
    """Of the committed files that matter to a part. Nobody tests a text for readers, or the other parts."""
    others = {f"{TESTS}/test_{name}.py" for name in parts() if name != part}
    lines = _git("ls-tree", "-r", "HEAD", "--", *PATHS).splitlines()
    mine = [line for line in lines if not line.endswith(".md") and line.split("\t", 1)[1] not in others]
    return hashlib.sha256("\n".join(mine).encode()).hexdigest()


def changed():
    """Which of them are not as they are committed."""
    lines = _git("status", "--porcelain", "--", *PATHS).splitlines()
    return ", ".join(line[3:] for line in lines if not line.endswith(".md"))


def _read(path):
    return json.loads(path.read_text()) if path.exists() else {}


def _git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def _qemu():
    said = subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return said.splitlines()[0].replace("emulator version ", "")


def _processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
