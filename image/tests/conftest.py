"""What the tests of the box stand on: its image, a home with a router, and a machine that boots from a copy of it."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STOCK_CLIENT = ROOT / "host/tests/stock_client"
sys.path.insert(0, str(STOCK_CLIENT))

from disk import Disk  # noqa: E402
from home import Home, wait_for  # noqa: E402
from machine import Machine  # noqa: E402
from record import Record  # noqa: E402
from registry import Registry  # noqa: E402
from releases import Releases  # noqa: E402
from story import OFF_S, VERSION, Browser, Device, code_of, green, install, pair, ready  # noqa: E402
from variants import Variants  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--image", required=True, help="the raw image to test; image.json lies beside it")
    parser.addoption("--repo", required=True, help="the OSTree repository that it was made from")
    parser.addoption("--os-program", required=True, help="a punktfunk-os that runs here")
    parser.addoption("--publish-program", required=True, help="a punktfunk-publish that runs here")
    parser.addoption("--keys", required=True, help="the folder of the release keys that the image trusts")
    parser.addoption("--registry", required=True, help="from where the image updates itself: a URL in the home's network")
    parser.addoption("--artefacts", required=True, help="the folder for logs and pictures")
    parser.addoption("--settled", type=Path, help="where the settled box lies, or is kept for the next run")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: a case for ci/test vm-full")
    config.measured = {}
    config.pluginmanager.register(Record(Path(config.getoption("--artefacts")) / "cases.json"))


def pytest_sessionfinish(session):
    folder = Path(session.config.getoption("--artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measured.json").write_text(json.dumps(session.config.measured, indent=2) + "\n")


@pytest.fixture(scope="session")
def measured(request):
    """Figures that the run leaves behind, by name."""
    return request.config.measured


@pytest.fixture(scope="session")
def artefacts(request):
    folder = Path(request.config.getoption("--artefacts")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def image(request):
    return Path(request.config.getoption("--image")).resolve()


@pytest.fixture(scope="session")
def variants(request, image, tmp_path_factory):
    commit = json.loads((image.parent / "image.json").read_text())["commit"]
    return Variants(Path(request.config.getoption("--repo")), commit, tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="session")
def os_program(request):
    return Path(request.config.getoption("--os-program")).resolve()


@pytest.fixture(scope="session")
def home(artefacts):
    if os.getuid() != 0:
        pytest.fail("network namespaces need root: run ci/test vm")
    with Home(artefacts) as home:
        # What is started here later can reach the box.
        yield home


@pytest.fixture(scope="session")
def releases(request, home, image, variants, tmp_path_factory):
    """What the box of these tests updates itself from, in a registry in its home."""
    folder = tmp_path_factory.mktemp("releases")
    flavour = json.loads((image.parent / "image.json").read_text())["flavour"]
    program, keys = (Path(request.config.getoption(name)).resolve() for name in ("--publish-program", "--keys"))
    with Registry(request.config.getoption("--registry"), home, folder / "registry") as registry:
        yield Releases(program, keys, variants.repo, flavour, folder, registry)


@pytest.fixture(scope="module")
def machine(home, image, artefacts):
    """One machine, through all tests of a file in their order, as in a home."""
    disk = Disk(image, artefacts / "box.raw")
    with Machine(disk.path, artefacts, home) as machine:
        machine.storage = disk
        yield machine
    disk.path.unlink()


@pytest.fixture(scope="session")
def settled(request, home, image, artefacts):
    """The disk of a box that is claimed, green, paired with a device, and off; and that device's folder."""
    folder = request.config.getoption("--settled") or artefacts / "settled"
    disk, memory = folder / "box.raw", folder / "device"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        memory.mkdir(parents=True)
        settle(home, Disk(image, disk), folder, Device(home, folder, memory))
        (folder / "complete").touch()
    yield disk, memory
    if not request.config.getoption("--settled"):
        disk.unlink()


def settle(home, disk, folder, device):
    owner = Browser(home)
    with Machine(disk.path, folder, home) as machine:
        machine.storage = disk
        machine.switch_on()
        ready(machine, owner)
        note = wait_for("CLAIM.txt", 60, lambda: disk.esp_file("CLAIM.txt"), machine.is_on)
        owner.ask("claim", code_of(note), "Den")
        green(machine, owner, VERSION)
        pair(owner, device)
        machine.press_power()
        machine.wait_off(OFF_S)


@pytest.fixture
def box(request, home, settled, artefacts, variants, os_program, tmp_path):
    """A settled box of this test's own, still off. `box.install(version, ..)` puts a version on its disk."""
    folder = artefacts / request.node.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    disk = Disk(settled[0], folder / "box.raw")
    shutil.copytree(settled[1], folder / "device")
    with Machine(disk.path, folder, home) as machine:
        machine.storage, machine.owner = disk, Browser(home)
        machine.device = Device(home, folder, folder / "device")
        machine.install = lambda version, **options: install(
            machine, variants, os_program, version, tmp_path, **options)
        yield machine
    disk.path.unlink()
