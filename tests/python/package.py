"""Shared by the tests of the Python package: the installed package and the command of its wheel."""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys

import pytest

sfq = pytest.importorskip("sfq", reason="the wheel is not installed here: ./dev wheel")

COMMAND = pathlib.Path(sys.executable).with_name("sfq")
DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
PASSAGE = DATA / "passage.txt"


def command(*words, status=0):
    """The JSON that the wheel's command prints for these words."""
    done = subprocess.run([str(COMMAND), *map(str, words), "--json"], capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == status, done.stderr + done.stdout
    return json.loads(done.stdout)


def equal(got, wanted, where):
    """Equal to the JSON, numbers to the digits that it prints; seconds differ from run to run."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            if "seconds" not in key:
                equal(got[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(got) == len(wanted), where
        for i, value in enumerate(wanted):
            equal(got[i], value, f"{where}[{i}]")
    elif isinstance(wanted, float):
        assert math.isclose(got, wanted, rel_tol=1e-12), where
    else:
        assert got == wanted, where


def same(result, wanted, ignore=()):
    """A result's fields are those of the command's JSON."""
    wanted = {k: v for k, v in wanted.items() if k not in ("schema", *ignore)}
    equal(dataclasses.asdict(result), wanted, type(result).__name__)
