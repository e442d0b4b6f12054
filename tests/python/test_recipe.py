"""`sfq compress` with pruning and recalibration, as a user runs it: what comes out, the same bytes
under any thread count and after any kill, and every way in which a run ends early. The data set is
made here: a task of words, so that the tests need nothing but the small models."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

GOOD = "bright moving warm funny honest lovely".split()
BAD = "dull slow empty weak lifeless messy".split()
PLAIN = "a the film story cast ending is of and with very plot".split()
FAST = ("--rounds", "2", "--steps", "3", "--calib-fraction", "0.3")


def sentence(draw, label):
    words = [draw.choice(PLAIN) for _ in range(draw.randint(3, 9))]
    words.insert(draw.randint(0, len(words)), draw.choice(GOOD if label else BAD))
    return " ".join(words)


def write_split(path, seed, count):
    draw = random.Random(seed)
    rows = [{"text": sentence(draw, i % 2), "label": i % 2} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_split(folder / "train.jsonl", 1, 160)
    write_split(folder / "dev.jsonl", 2, 80)
    return folder


@pytest.fixture(scope="module")
def program(build):
    path = build / "bin" / "sfq"
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path


class Run:
    """One `sfq compress` and what it said."""

    def __init__(self, program, words, status=0):
        self.words = [str(w) for w in (program, "compress", *words)]
        done = subprocess.run([*self.words, "--json"], capture_output=True, text=True, timeout=120)
        self.stderr = done.stderr
        assert done.returncode == status, done.stderr
        self.value = json.loads(done.stdout) if done.stdout else None


@pytest.fixture
def encoder(program, models, data, tmp_path):
    """Runs on the encoder with the task; `words` come on top."""

    def run(name, *words, status=0, folder=data, fast=FAST):
        return Run(program, [models("sst2-tiny"), "-o", tmp_path / name, "--task", "own", "--data",
                             folder, "--embedding-bits", "4", *fast, *words], status)

    return run


def weights(folder):
    return (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_bytes()


def widths(config):
    return [(layer["heads"], layer["ffn"]) for layer in config["quantization_config"]["layers"]]


def test_what_comes_out(encoder, program, tmp_path, data):
    value = encoder("out", "--prune", "0.4").value
    out = tmp_path / "out"
    assert value["reduction"] > 0.65 and value["scale_overhead"] < 0.003
    assert 0.4 <= value["pruned"]["fraction"] < 0.5
    assert value["calibration"] == {"sequences": 48, "tokens": value["calibration"]["tokens"],
                                    "fraction": 0.3}
    names = [stage["name"] for stage in value["stages"]]
    assert names == ("check baseline calibrate prune reconstruct distill fuse tune evaluate "
                     "write").split()
    loss = {stage["name"]: stage["loss"] for stage in value["stages"]}
    assert loss["check"] is None and loss["evaluate"] is None
    assert 0 <= loss["distill"] <= loss["reconstruct"] <= loss["prune"]
    assert loss["tune"] <= loss["fuse"]
    assert value["stopped_by"] == "done"
    assert sorted(os.listdir(tmp_path)) == ["out"]
    report = json.loads((out / "sfq_report.json").read_text())
    config = json.loads((out / "config.json").read_text())
    assert [(r["heads"], r["ffn"]) for r in report["layers"]] == widths(config)
    assert sum(512 - ffn for _, ffn in widths(config)) == value["pruned"]["neurons"]
    assert sum(4 - heads for heads, _ in widths(config)) == value["pruned"]["heads"]
    assert report["calibration"]["origin"] == "task" and report["calibration"]["held_out"] >= 9
    assert str(tmp_path) not in (out / "sfq_report.json").read_text()
    card = (out / "README.md").read_text()
    assert str(tmp_path) not in card and "held-out" in card and "were removed" in card
    checked = subprocess.run([program, "inspect", out, "--verify", "--json"], capture_output=True,
                             check=True)
    inspected = json.loads(checked.stdout)
    assert inspected["bytes"] == value["bytes"] == (out / "model.safetensors").stat().st_size
    assert [(r["heads"], r["ffn"]) for r in inspected["layers"]] == widths(config)
    again = subprocess.run([program, "eval", out, "--task", "own", "--data", data, "--json"],
                           capture_output=True, check=True)
    assert json.loads(again.stdout)["value"] == value["compressed"]["value"]


def test_uniform_widths(encoder, tmp_path):
    encoder("out", "--uniform", "--steps", "0")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert len(set(widths(config))) == 1 and widths(config)[0] != (4, 512)


def test_same_bytes_at_any_thread_count(encoder, tmp_path):
    for threads in "123":
        encoder(threads, "--threads", threads)
    assert weights(tmp_path / "1") == weights(tmp_path / "2") == weights(tmp_path / "3")
    encoder("seed", "--seed", "7")
    assert weights(tmp_path / "seed")[0] != weights(tmp_path / "1")[0]


def test_dev_labels_decide_nothing(encoder, tmp_path, data):
    encoder("one")
    other = tmp_path / "data"
    shutil.copytree(data, other)
    rows = [json.loads(line) for line in (data / "dev.jsonl").read_text().splitlines()]
    for row in rows:
        row["label"] = 1 - row["label"]
    (other / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copystat(data / "train.jsonl", other / "train.jsonl")
    one, two = json.loads((tmp_path / "one/sfq_report.json").read_text()), encoder("two",
                                                                                   folder=other)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert one["baseline"]["value"] == pytest.approx(1 - two.value["baseline"]["value"])


def test_stages_are_kept(encoder, program, tmp_path, data):
    """Each stage's model opens and answers as its stage left it; the output is the same bytes."""
    stages = ("pruned", "reconstructed", "distilled", "fused")
    encoder("plain")
    value = encoder("out", "--keep-stages").value
    assert sorted(os.listdir(tmp_path)) == sorted(["plain", "out", *(f"out.{s}" for s in stages)])
    assert weights(tmp_path / "out") == weights(tmp_path / "plain")
    sizes = {}
    for stage in stages:
        folder = tmp_path / f"out.{stage}"
        done = subprocess.run([program, "eval", folder, "--task", "own", "--data", data, "--json"],
                              capture_output=True, check=True)
        assert 0 <= json.loads(done.stdout)["value"] <= 1
        sizes[stage] = (folder / "model.safetensors").stat().st_size
    assert sizes["pruned"] == sizes["reconstructed"] == sizes["distilled"]
    assert sizes["fused"] == value["bytes"]
    # what lies there and is no stage of this run is not written over
    before = weights(tmp_path / "out.fused")
    refused = encoder("out", "--keep-stages", status=2)
    assert "out" in refused.stderr
    shutil.rmtree(tmp_path / "out")
    refused = encoder("out", "--keep-stages", status=2)
    assert "out.pruned" in refused.stderr and weights(tmp_path / "out.fused") == before
    encoder("out", "--keep-stages", "--force")
    assert weights(tmp_path / "out.fused") == before
    nothing = encoder("other", "--keep-stages", fast=("--prune", "0", "--steps", "0"), status=2)
    assert "--keep-stages" in nothing.stderr


# ---- runs that end early ----


def begin(words):
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_at_any_moment(encoder, tmp_path):
    started = time.monotonic()
    whole = encoder("whole")
    seconds = time.monotonic() - started
    words = [w.replace("whole", "killed") for w in whole.words]
    draw = random.Random(3)
    killed = 0
    for _ in range(10):
        child = begin(words)
        time.sleep(seconds * draw.uniform(0.05, 0.9))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        if (tmp_path / "killed").exists():
            break
    assert killed > 0
    if (tmp_path / "killed.work").exists():
        # --force: it may have been killed between showing the output and removing the journal
        encoder("killed", "--force")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert not (tmp_path / "killed.work").exists()


def wait_for_stage(work, stage, child):
    """Until the journal has the stage; False when the run was over first."""
    for _ in range(2000):
        if (work / stage).is_dir():
            return True
        if child.poll() is not None:
            return False
        time.sleep(0.005)
    raise AssertionError(f"{stage} never came")


@pytest.fixture
def interrupted(encoder, tmp_path):
    """A run that Control-C ended behind its calibration: its words and what it said."""
    whole = encoder("whole")
    words = [w.replace("whole", "out") for w in whole.words]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert wait_for_stage(tmp_path / "out.work", "calibrate", child)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert not (tmp_path / "out").exists()
    return said


def test_interrupted_and_continued(interrupted, encoder, tmp_path):
    assert "out.work" in interrupted and "the same command goes on" in interrupted
    run = encoder("out", "--threads", "1")
    assert "going on after stage" in run.stderr
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")
    assert not (tmp_path / "out.work").exists()


def test_another_request_is_refused(interrupted, encoder, tmp_path):
    assert interrupted
    run = encoder("out", "--seed", "5", status=2)
    assert "seed" in run.stderr and "--force" in run.stderr
    assert (tmp_path / "out.work/journal.json").exists()
    encoder("out", "--seed", "5", "--force")
    assert weights(tmp_path / "out")[0] != weights(tmp_path / "whole")[0]
    assert not (tmp_path / "out.work").exists()


def test_second_run_is_refused(encoder, program, models, data, tmp_path):
    words = [str(w) for w in (program, "compress", models("sst2-tiny"), "-o", tmp_path / "out",
                              "--task", "own", "--data", data, "--embedding-bits", "4", *FAST)]
    child = begin(words)
    try:
        assert wait_for_stage(tmp_path / "out.work", "calibrate", child)
        os.kill(child.pid, signal.SIGSTOP)
        assert "another run works there" in encoder("out", status=2).stderr
    finally:
        os.kill(child.pid, signal.SIGCONT)
        child.wait()
    assert child.returncode == 0


def test_guard(encoder, tmp_path):
    # so few bits that the answers fall apart
    run = encoder("out", "--max-drop", "0", "--prune", "0.7", "--bits", "2", "--embedding-bits",
                  "2", "--steps", "0", status=3)
    assert run.value["drop"] > 0 and run.value["error"]["code"] == "E_GUARD"
    assert run.value["output"] == str(tmp_path / "out.rejected")
    assert sorted(os.listdir(tmp_path)) == ["out.rejected"]


def test_time_is_over(encoder):
    value = encoder("out", "--minutes", "0.0001", "--rounds", "4", "--steps", "5000", "--prune",
                    "0.4").value
    assert value["stopped_by"] == "time"
    assert value["pruned"]["fraction"] >= 0.4
    assert all(stage["steps"] < 5000 for stage in value["stages"])


def test_floors(encoder):
    assert "prune" in encoder("out", "--prune", "0.98", status=4).stderr


def test_bad_data(encoder, data, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    (other / "train.jsonl").write_text("")
    encoder("out", folder=other, status=2)
    (other / "train.jsonl").write_text('{"text": "one", "label": 0}\n')
    encoder("out", folder=other, status=2)
    (other / "train.jsonl").write_text('{"text": "one", "label": 9}\n' * 20)
    assert "9" in encoder("out", folder=other, status=2).stderr
    assert sorted(os.listdir(tmp_path)) == ["data"]


# ---- language models ----


def test_language_model_without_data(program, models, tmp_path):
    fast = ("--prune", "0.3", "--rounds", "1", "--steps", "2", "--calib-tokens", "2000",
            "--calib-length", "64")
    for name, words in (("one", ("--threads", "1")), ("two", ("--threads", "2")),
                        ("other", ("--seed", "1"))):
        run = Run(program, [models("stories260K"), "-o", tmp_path / name, *fast, *words])
        assert run.value["baseline"] is None and run.value["drop"] is None
        assert run.value["calibration"]["fraction"] == 0
        assert run.value["pruned"]["fraction"] >= 0.3
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert weights(tmp_path / "one")[0] != weights(tmp_path / "other")[0]
    report = json.loads((tmp_path / "one/sfq_report.json").read_text())
    assert report["calibration"]["origin"] == "self"
    said = subprocess.run([program, "run", tmp_path / "one", "-p", "Once", "-n", "8", "--json"],
                          capture_output=True, check=True)
    assert json.loads(said.stdout)["tokens"] > 0


def test_language_model_on_text(program, models, tmp_path):
    draw = random.Random(4)
    lines = [" ".join(sentence(draw, i % 2) for _ in range(4)) + ".\n" for i in range(400)]
    (tmp_path / "text").write_text("".join(lines))
    run = Run(program, [models("stories260K"), "-o", tmp_path / "out", "--text", tmp_path / "text",
                        "--prune", "0.2", "--rounds", "1", "--steps", "2", "--calib-tokens", "3000",
                        "--calib-length", "64"])
    assert run.value["baseline"]["metric"] == "perplexity"
    # the set-aside part is what is measured: a twentieth from the end, not the whole text
    tail = json.loads(subprocess.run(
        [program, "eval", tmp_path / "out", "--text", tmp_path / "text", "--json"],
        capture_output=True, check=True).stdout)
    assert tail["value" if "value" in tail else "perplexity"] != run.value["compressed"]["value"]
    report = json.loads((tmp_path / "out/sfq_report.json").read_text())
    assert report["calibration"]["origin"] == "text"
    assert report["options"]["text"] == ["text"]
