"""The proof that a full run of the box's tests leaves: docs/proofs/vm-full.json.

It names the commit that was tested and, since it is committed after that, a digest of the files that matter: whoever
changes one of them makes it stale. A stale proof is said at the end of every `ci/test` and fails nothing, because to
renew it takes an hour.
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
# What the box is made of, and what tests it.
PATHS = ["Containerfile", "ci/image.py", "host/os", "image", "overlays"]


def write(results, passed):
    """Puts together what a full run found. One that passed on files as they are committed is the new proof."""
    measured = _read(results / "measured.json")
    cases = _read(results / "cases.json")
    for name, case in cases.items():
        case |= measured.pop(name.removeprefix("test_"), {})
    proof = {
        "passed": passed and bool(cases) and all(case["passed"] for case in cases.values()),
        "commit": _git("rev-parse", "HEAD").strip(),
        "tested": digest(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "kernel": platform.release()},
        "emulation": f"{_qemu()}, TCG without KVM, one Westmere processor, 2048 MiB",
        "cases": cases,
        "measured": measured,
    }
    text = json.dumps(proof, indent=2) + "\n"
    (results / "proof.json").write_text(text)
    if not proof["passed"]:
        print("This run proves nothing, because not all passed: target/ci/vm/proof.json", flush=True)
    elif changed():
        print(f"This run is no proof, because of what is not committed: {changed()}", flush=True)
    else:
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(text)
        print(f"Commit {KEPT.relative_to(ROOT)}: it is the new proof.", flush=True)


def state():
    """What is to be said of the kept proof."""
    proof = _read(KEPT)
    if not proof:
        return "MISSING: ci/test vm-full makes it"
    made = f"{proof['date']}, {len(proof['cases'])} cases, commit {proof['commit'][:12]}"
    try:
        is_current = proof["tested"] == digest() and not changed()
    except (OSError, subprocess.SubprocessError):
        return f"of an unknown state, because this is no clone ({made})"
    if not is_current:
        return f"STALE ({made}): {', '.join(PATHS)} changed since; ci/test vm-full renews it"
    return f"current ({made})"


def digest():
    """Of the committed files that matter. Nobody tests a text for readers."""
    lines = _git("ls-tree", "-r", "HEAD", "--", *PATHS).splitlines()
    return hashlib.sha256("\n".join(line for line in lines if not line.endswith(".md")).encode()).hexdigest()


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
