"""Versions that cannot stream, each broken in its own way: the box returns to the one before by itself, and says why.

Each begins with a settled box. A version is put on its disk that is broken; then nobody touches the box, but for one
case in which only the power button helps.
"""

import re
import subprocess

import pytest

from home import wait_for
from initramfs import PROGRAM, TEXT, archive, behind
from story import GREEN_S, START_S, VERSION, ready, told_of

pytestmark = pytest.mark.long
BROKEN = "0.9.0"
# What is said of a version that was never judged: before its start was noted, and after.
NEVER_CAME_UP = "it did not come up"
CUT_OFF = "it ended before it was judged"


@pytest.fixture
def figures(request, measured):
    """What this case measures, under its name."""
    return measured.setdefault(request.node.name.removeprefix("test_"), {})


def test_the_daemon_exits(box, figures):
    def change(tree):
        lay(tree, "usr/libexec/punktfunk/punktfunk-host", "#!/bin/sh\necho 'no port is free' >&2\nexit 1\n", 0o755)
        judged_within(tree, 60)

    box.install(BROKEN, tries=1, change=change)
    box.switch_on()
    banner = returns(box, figures)
    assert failed(banner) == {"daemon", "units"}, banner
    assert "punktfunk-host.service" in banner["reason"], banner
    assert any("no port is free" in line for line in banner["log"]), banner


def test_the_api_answers_500(box, figures):
    box.install(BROKEN, tries=1, change=answer_500)
    box.switch_on()
    banner = returns(box, figures)
    assert "console" in failed(banner) and "daemon" not in failed(banner), banner
    assert "/api/v1/landing" in banner["reason"] and "500" in banner["reason"], banner


def test_a_unit_dies_again_and_again(box, figures):
    # Two seconds after each time it is started again; so systemd never gives it up, and hardly ever calls it failed.
    name = "punktfunk-attend.service"
    box.install(BROKEN, tries=1, change=lambda tree: drop_in(
        tree, name, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 1'\n"))
    box.switch_on()
    banner = returns(box, figures)
    assert failed(banner) == {"units"}, banner
    assert name in banner["reason"], banner


def test_the_kernel_panics(box, figures):
    box.install(BROKEN, tries=1, change=lambda tree: early(tree, "echo c >/proc/sysrq-trigger"))
    box.switch_on()
    banner = returns(box, figures)
    assert "sysrq triggered crash" in box.said()
    assert_unjudged(banner, NEVER_CAME_UP)
    box.device.play("after")


def test_the_initramfs_is_broken(box, variants, figures):
    box.install(BROKEN, tries=1, change=lambda tree: set_initramfs(variants, tree, b"not an archive\n" * 1000))
    box.switch_on()
    assert_unjudged(returns(box, figures), NEVER_CAME_UP)


def test_a_start_hangs_before_the_network(box, figures):
    def change(tree):
        # Nearly all waits for this: mounts, what systemd makes below /tmp, the network.
        early(tree, "sleep infinity", before="local-fs-pre.target network-pre.target sysinit.target")
        ended_after(tree, 90)

    box.install(BROKEN, tries=1, change=change)
    box.switch_on()
    assert_unjudged(returns(box, figures), NEVER_CAME_UP)


def test_a_start_hangs_before_its_verdict(box, figures):
    def change(tree):
        drop_in(tree, "punktfunk-verdict.service", "[Service]\nExecStartPre=/usr/bin/sleep infinity\n")
        # Its start is to be noted before.
        ended_after(tree, 240)

    box.install(BROKEN, tries=1, change=change)
    box.switch_on()
    assert_unjudged(returns(box, figures), CUT_OFF)


def test_systemd_itself_hangs(box, figures):
    # Nothing starts or ends any more, no timer either: what is left is the watchdog, which is hardware.
    box.install(BROKEN, tries=1, change=lambda tree: unit(
        tree, "punktfunk-freezes.service", "multi-user.target", "echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze",
        "After=punktfunk-os-boot.service"))
    box.switch_on()
    assert_unjudged(returns(box, figures), CUT_OFF)


def test_the_initramfs_hangs(box, variants, figures):
    # Something that systemd starts there never ends, so that the root is never looked for.
    units = "etc/systemd/system"
    more = archive({
        f"{units}/punktfunk-initramfs-deadline.timer.d/90-test.conf": (TEXT, deadline(60).encode()),
        f"{units}/initrd-root-device.target.d/90-test.conf": (TEXT, b"[Unit]\nRequires=hangs.service\n"),
        f"{units}/hangs.service": (TEXT, b"""[Unit]
DefaultDependencies=no
Before=initrd-root-device.target
[Service]
Type=oneshot
ExecStart=/bin/sleep 100000
"""),
    })
    box.install(BROKEN, tries=1, change=lambda tree: add_to_initramfs(variants, tree, more))
    box.switch_on()
    assert_unjudged(returns(box, figures), NEVER_CAME_UP)


def test_the_power_button_ends_a_hang_before_systemd(box, variants, figures):
    # Nothing watches yet when the kernel has just started the first program. The loader has counted the start already.
    hung = "punktfunk hangs in its initramfs"
    script = f"#!/bin/sh\nmount -t devtmpfs dev /dev\necho '<0>{hung}' >/dev/kmsg\nwhile :; do sleep 60; done\n"
    more = archive({"init": (PROGRAM, script.encode())})
    box.install(BROKEN, tries=1, change=lambda tree: add_to_initramfs(variants, tree, more))
    box.switch_on()
    wait_for("the hang", START_S, lambda: hung in box.said(), box.is_on)
    spent = box.cpu_seconds()
    box.unplug()
    box.switch_on()
    assert_unjudged(returns(box, figures, spent=spent), NEVER_CAME_UP)


def test_it_is_tried_three_times(box, figures, variants, os_program, tmp_path):
    def change(tree):
        lay(tree, "usr/libexec/punktfunk/punktfunk-host", "#!/bin/sh\nexit 1\n", 0o755)
        judged_within(tree, 20)

    box.install(BROKEN, change=change)
    assert [name for name in box.storage.esp_entries() if "+3" in name], box.storage.esp_entries()
    box.switch_on()
    banner = returns(box, figures, starts=4)
    assert failed(banner) == {"daemon", "units"}, banner
    tried = [attempt for attempt in box.owner.call("GET", "/os")["attempts"] if attempt["version"] == BROKEN]
    assert [attempt["outcome"] for attempt in tried] == ["failed"] * 3, tried
    numbers = [attempt["number"] for attempt in tried]
    assert numbers == list(range(numbers[0], numbers[0] + 3)), tried
    box.unplug()
    with box.storage.mounted(tmp_path) as (root, esp):
        words = [os_program, "deploy-local", "--sysroot", root, "--esp", esp, variants.repo, f"test/{BROKEN}"]
        refused = subprocess.run(words, capture_output=True, text=True)
    assert refused.returncode != 0 and f"{BROKEN} did not prove itself here" in refused.stderr, refused
    assert len(box.storage.esp_entries()) == 1, box.storage.esp_entries()


def returns(box, figures, *, starts=2, spent=0.0):
    """Waits until the version from before runs and tells of the broken one; what it says of it."""
    limit_s = (starts - 1) * (START_S + GREEN_S)
    wait_for("the version from before", limit_s, lambda: box.starts() >= starts, box.is_on)
    ready(box, box.owner)
    report = wait_for("what it says", 120, lambda: told_of(box.owner, BROKEN), box.is_on)
    figures |= {"back_cpu_s": round(spent + box.cpu_seconds(), 1), "starts": box.starts()}
    assert box.starts() == starts, box.events()
    assert report["running"]["version"] == VERSION, report
    last = report["attempts"][-1]
    assert (last["version"], last["outcome"]) == (BROKEN, "failed"), report
    assert last["from"] == VERSION, last
    assert BROKEN not in [one["version"] for one in report["deployments"]], report
    assert not [name for name in box.storage.esp_entries() if "+" in name], box.storage.esp_entries()
    banner = report["banner"]
    assert (banner["kind"], banner["running"]) == ("rolled-back", VERSION), banner
    assert BROKEN in banner["sentence"] and banner["reason"], banner
    figures["reason"] = banner["reason"]
    assert len(box.owner.call("GET", "/clients")) == 1
    return banner


def failed(banner):
    return {check["name"] for check in banner["checks"] if not check["passed"]}


def assert_unjudged(banner, reason):
    assert banner["reason"].startswith(reason), banner
    assert banner["checks"] == [], banner


def lay(tree, path, content, mode=0o644):
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(mode)


def drop_in(tree, name, text):
    lay(tree, f"usr/lib/systemd/system/{name}.d/90-test.conf", text)


def unit(tree, name, wanted_by, command, more=""):
    units = "usr/lib/systemd/system"
    lay(tree, f"{units}/{name}", f'[Unit]\n{more}\n[Service]\nType=oneshot\nExecStart=/bin/sh -c "{command}"\n')
    wants = tree / units / f"{wanted_by}.wants"
    wants.mkdir()
    (wants / name).symlink_to(f"../{name}")


def early(tree, command, before="sysinit.target"):
    """Something that is done before any unit that waits for the basic system."""
    unit(tree, "punktfunk-breaks.service", "sysinit.target", command, f"DefaultDependencies=no\nBefore={before}")


def judged_within(tree, seconds):
    """As an owner may set it. Otherwise a daemon that comes again and again is waited for four minutes."""
    lay(tree, "usr/etc/punktfunk/verdict-limit", f"{seconds}\n")


def ended_after(tree, seconds):
    drop_in(tree, "punktfunk-deadline.timer", deadline(seconds))


def deadline(seconds):
    """What is twenty minutes otherwise."""
    return f"[Timer]\nOnBootSec=\nOnBootSec={seconds}s\n"


def answer_500(tree):
    """In the daemon's place stands something that is up, takes the console's port, and answers 500."""
    place = "usr/lib/punktfunk/broken"
    lay(tree, f"{place}/api/v1/landing",
        "HTTP/1.0 500 Internal Server Error\r\nContent-Length: 9\r\nConnection: close\r\n\r\nno memory")
    key, certificate = tree / place / "key.pem", tree / place / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                    "-days", "30", "-subj", "/CN=broken"], check=True, stderr=subprocess.DEVNULL)
    key.chmod(0o644)
    drop_in(tree, "punktfunk-host.service", "\n".join([
        "[Service]", "Type=exec", "WatchdogSec=0", f"WorkingDirectory=/{place}", "ExecStart=",
        "ExecStart=/usr/bin/openssl s_server -accept 47990 -key key.pem -cert certificate.pem -HTTP", ""]))
    judged_within(tree, 120)


def set_initramfs(variants, tree, content):
    lay(tree, initramfs_of(variants), content)


def add_to_initramfs(variants, tree, more):
    set_initramfs(variants, tree, behind(variants.read_bytes(initramfs_of(variants)), more))


def initramfs_of(variants):
    kernel, = re.findall(r"/usr/lib/modules/(\S+)$", variants.listed("usr/lib/modules"), re.M)
    return f"usr/lib/modules/{kernel}/initramfs.img"
