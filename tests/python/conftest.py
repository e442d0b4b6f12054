"""Shared by all Python tests: where the repository and the build are, and deterministic torch."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pytest_configure(config):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def build():
    """The build directory: SFQ_BUILD, else build/ of the repository."""
    path = pathlib.Path(os.environ.get("SFQ_BUILD", ROOT / "build"))
    if not path.is_dir():
        pytest.skip(f"{path} is not built")
    return path


@pytest.fixture(scope="session")
def forward_tool(build):
    path = build / "bin" / "sfq-test-forward"
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path


@pytest.fixture(scope="session")
def models(root):
    """Directory by name: of models/, or of the shared models beside the repository."""

    def find(name):
        for folder in (root / "models", root.parent / "shared" / "models"):
            if (folder / name / "config.json").exists():
                return folder / name
        pytest.skip(f"model {name} is not on this machine")

    return find
