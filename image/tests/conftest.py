"""What the tests of the box stand on: its image, a home with a router, and a machine that boots from a copy of it."""

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STOCK_CLIENT = ROOT / "host/tests/stock_client"
sys.path.insert(0, str(STOCK_CLIENT))

from disk import Disk  # noqa: E402
from home import Home  # noqa: E402
from machine import Machine  # noqa: E402
from owner import Owner  # noqa: E402
from variants import Variants  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--image", required=True, help="the raw image to test; image.json lies beside it")
    parser.addoption("--repo", required=True, help="the OSTree repository that it was made from")
    parser.addoption("--os-program", required=True, help="a punktfunk-os that runs here")
    parser.addoption("--artefacts", required=True, help="the folder for logs and pictures")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: a case for ci/test vm-full")
    config.measured = {}


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
def machine(home, image, artefacts):
    """One machine, through all tests in the order of the file, as in a home."""
    disk = Disk(image, artefacts / "box.raw")
    with Machine(disk.path, artefacts, home) as machine:
        machine.storage = disk
        yield machine
    disk.path.unlink()
