"""Hostile input: each case of the corpus through the verbs that read its damaged part. What is
wrong is refused with the expected exit status and one line that names the place, within a second of
processor time, in little memory, without a signal, and nothing is written; what is odd but right is
accepted.

Time is the process's own (user + system), so that a busy machine does not decide; a process that
hangs is killed after HANG seconds. Memory is its peak RSS as the kernel counts it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import hostile_artifact
import make_hostile
from hostile_kit import BERT, LLAMA, ROOT, load

SFQ = pathlib.Path(os.environ.get("SFQ_BINARY", ROOT / "build/bin/sfq"))
SANITIZED = "asan" in str(SFQ)
SECONDS, HANG, BASE_MEMORY = 1.0, 60, 64 << 20
PROGRESS = ("verify", "compress", "eval")  # verbs that report it on stderr before they may fail
DENSE = make_hostile.dense_cases()

# Spawns programs from a small process: Linux counts the parent's memory at the fork as the child's.
SPAWNER = """
import json, os, signal, sys, time
for line in sys.stdin:
    job = json.loads(line)
    out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    err = os.open(job["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    pid = os.posix_spawn(job["argv"][0], job["argv"], job["env"], file_actions=[
        (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2)])
    for fd in (out, err, null):
        os.close(fd)
    def kill(number, frame):
        os.kill(pid, signal.SIGKILL)
    signal.signal(signal.SIGALRM, kill)
    signal.alarm(job["hang"])
    _, status, usage = os.wait4(pid, 0)
    signal.alarm(0)
    print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime,
                      usage.ru_maxrss * 1024]), flush=True)
"""


class Result:
    def __init__(self, status, seconds, memory, out, err):
        self.status, self.seconds, self.memory = status, seconds, memory
        self.out, self.err = out, err


@pytest.fixture(scope="module")
def sfq(tmp_path_factory):
    """Runs the program: sfq(argument, ...) -> Result."""
    if not SFQ.exists():
        pytest.skip(f"{SFQ} is not built (./dev build)")
    folder = tmp_path_factory.mktemp("spawn")
    spawner = subprocess.Popen([sys.executable, "-S", "-E", "-c", SPAWNER], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    env = {"HF_HUB_CACHE": str(folder / "no-cache"), "PATH": os.environ.get("PATH", ""),
           "ASAN_OPTIONS": "detect_leaks=1"}

    def run(*arguments):
        job = {"argv": [str(SFQ), *map(str, arguments)], "env": env, "hang": HANG,
               "out": str(folder / "out"), "err": str(folder / "err")}
        spawner.stdin.write(json.dumps(job) + "\n")
        spawner.stdin.flush()
        status, seconds, memory = json.loads(spawner.stdout.readline())
        read = lambda name: (folder / name).read_text(errors="replace")
        return Result(status, seconds, memory, read("out"), read("err"))

    yield run
    spawner.stdin.close()
    spawner.wait()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Something to evaluate on: a task of four sentences, and a text."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["good fun\t1", "a dull film\t0", "fine and warm\t1", "bad\t0"]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    (folder / "text").write_text("It was a dark night. " * 20)
    return folder


def command(verb, model, folder, data, out):
    """The words behind `sfq` for a verb of a case; a classifier is told by its task."""
    config = folder / "config.json"
    bert = True
    if config.is_file():  # a FIFO would hang us
        bert = b"LlamaForCausalLM" not in config.read_bytes()
    evaluate = ["--task", "sst2", "--data", data] if bert else ["--text", data / "text"]
    words = {
        "inspect": ["inspect", model],
        "verify": ["inspect", model, "--verify"],
        "run": ["run", model, "-p", "x", "-n", "1"],
        "eval": ["eval", model, *evaluate],
        "compress": ["compress", model, "-o", out, "--prune", "0", "--steps", "0"],
        "tokenize": ["tokenize", model, "-p", "one two"],
    }
    return words[verb]


def check_refused(case, verb, result, size):
    said = f"{case.name} {verb}: exit {result.status}\n{result.err}"
    assert result.status == case.code, said
    lines = [x for x in result.err.splitlines() if not x.startswith("sfq: note: ")]
    errors = lines[-1:] if verb in PROGRESS else lines
    assert len(errors) == 1 and errors[0].startswith("sfq: "), said
    assert case.text in errors[0], said + f"\nexpected: {case.text}"
    assert all(c.isprintable() for c in errors[0]), said
    if not SANITIZED:
        assert result.seconds < SECONDS, f"{said}\n{result.seconds:.2f} s"
        assert result.memory <= BASE_MEMORY + size, f"{said}\n{result.memory >> 20} MiB"


def largest_file(folder):
    return max((p.stat().st_size for p in folder.rglob("*") if p.is_file()), default=0)


def check(case, tmp_path, sfq, data):
    folder, out = tmp_path / "model", tmp_path / "out"
    folder.mkdir()
    if case.make:
        case.make(folder)
    model = case.model if case.model else folder
    before = sorted(tmp_path.iterdir())
    for verb in case.verbs:
        result = sfq(*command(verb, model, folder, data, out))
        if case.code == 0:
            assert result.status == 0, f"{case.name} {verb}: exit {result.status}\n{result.err}"
            continue
        check_refused(case, verb, result, largest_file(folder))
        assert sorted(tmp_path.iterdir()) == before, f"{case.name} {verb} left something behind"


@pytest.mark.parametrize("case", DENSE, ids=lambda case: case.name)
def test_dense(case, tmp_path, sfq, data):
    check(case, tmp_path, sfq, data)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, sfq):
    folder = tmp_path_factory.mktemp("artifact") / "sst2"
    result = sfq("compress", BERT, "-o", folder, "--prune", "0", "--steps", "0")
    assert result.status == 0, result.err
    return folder


# Names of the artifact cases, known before there is an artifact: pytest collects first.
class Template:
    """Stands for the artifact's folder while names are collected."""

    def __truediv__(self, name):
        return self


def artifact_names():
    parts = (hostile_artifact.descriptions, hostile_artifact.tensors, hostile_artifact.files)
    return [case.name for part in parts for case in part(Template())]


@pytest.mark.parametrize("name", artifact_names())
def test_artifact(name, artifact, tmp_path, sfq, data):
    case = next(c for c in hostile_artifact.cases(artifact) if c.name == name)
    check(case, tmp_path, sfq, data)


def test_size_of_the_corpus():
    cases = DENSE + artifact_names()
    assert len(cases) >= 120
    names = [getattr(case, "name", case) for case in cases]
    assert len(set(names)) == len(names)


def test_models_are_the_ones_expected():
    assert load(BERT / "config.json")["num_hidden_layers"] == 4
    assert load(LLAMA / "config.json")["num_key_value_heads"] == 4
