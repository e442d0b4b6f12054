"""`sfq.keras` on the TensorFlow and the torch backend. Keras takes its backend at import, so the
checks (keras_checks.py) run in one process for each; here each is a test of its own."""

import ast
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from package import sfq  # noqa: F401  skips where the wheel is not installed

CHECKS = pathlib.Path(__file__).with_name("keras_checks.py")
BACKENDS = ("tensorflow", "torch")
NAMES = [node.name[6:] for node in ast.parse(CHECKS.read_text()).body
         if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
         and node.name != "check_saved"]

# The graph that was exported, where nothing of this package can be imported.
SERVE = """
import sys
sys.modules["sfq"] = None
import numpy as np, tensorflow as tf
data = np.load(sys.argv[2])
model = tf.saved_model.load(sys.argv[1])
y = model.serve(data["x"]).numpy()
print(float(np.abs(y - data["y"]).max()), float(np.abs(data["y"]).max()))
try:
    import sfq
except ImportError:
    print("no sfq")
"""

MISSING = """
import sys
sys.modules[sys.argv[1]] = None
try:
    import sfq.keras
except ImportError as error:
    print(error)
"""


def environment(backend):
    return {**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def python(*words, backend="tensorflow"):
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True,
                          timeout=3000, env=environment(backend))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    for name in ("keras", "tensorflow", "torch"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: tests/python/requirements.txt")
    return tmp_path_factory.mktemp("keras")


@pytest.fixture(scope="module")
def results(folder):
    """Check -> "" or traceback, by backend; TensorFlow first, which leaves files for torch."""
    found = {}
    for backend in BACKENDS:
        done = python(CHECKS, folder, backend=backend)
        assert done.returncode == 0, done.stderr[-3000:]
        found[backend] = json.loads(done.stdout.splitlines()[-1])["results"]
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_keras(results, backend, name):
    assert results[backend][name] == "", results[backend][name]


def test_saved_model_runs_without_the_package(results, folder):
    assert results["tensorflow"]["classifier"] == ""
    done = python("-c", SERVE, folder / "saved", folder / "saved.npz")
    assert done.returncode == 0, done.stderr[-3000:]
    apart, largest = map(float, done.stdout.split()[:2])
    assert apart <= 1e-5 * max(1.0, largest) and "no sfq" in done.stdout


@pytest.mark.parametrize("missing, backend", (("keras", "tensorflow"), ("tensorflow", "tensorflow"),
                                              ("torch", "torch")))
def test_import_says_what_to_install(folder, missing, backend):
    done = python("-c", MISSING, missing, backend=backend)
    assert "pip install 'sfq[keras]'" in done.stdout and missing in done.stdout, done.stderr
