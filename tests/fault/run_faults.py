#!/usr/bin/env python3
"""Runs the command line with one fault after the other and checks what a user would see.

usage: run_faults.py alloc|io|kill|verbs|export|recipe SFQ-FAULT MODEL

SFQ-FAULT is sfq linked with seam.c, MODEL the directory of a BERT; the work is done on a smaller
copy. After every failure: the right exit status, one error line, no signal, the output as before
or complete, no temporary; of a run that prunes and recalibrates, a journal from which the next run
goes on to the same bytes. Standard library only. SFQ_JOBS bounds the processes that run at a time.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import hostile_kit  # noqa: E402

TIMEOUT = 120
LAYERS, TOKENS, NEURONS = 2, 512, 128  # of the model that is worked on
DENSE, SPREAD = 300, 200  # allocations: the first ones all, then so many over the rest
IO_DENSE, IO_SPREAD = 40, 20
FAILED, INPUT, MEMORY = 1, 2, 6
# What each call may end in. 0 stands where a failure of that call can be survived; the result is
# compared then. A look that fails once and then finds nothing is bad input.
IO_FAULTS = [
    ("open", "EMFILE", {FAILED, 0}), ("open", "EIO", {FAILED, 0}),
    ("stat", "EIO", {FAILED, INPUT, 0}),
    ("stat+", "EIO", {FAILED, 0}),
    ("read", "EIO", {FAILED, 0}), ("mmap", "ENOMEM", {MEMORY}), ("mmap", "EIO", {FAILED}),
    ("write", "EIO", {FAILED}), ("write", "ENOSPC", {MEMORY}), ("write+", "ENOSPC", {MEMORY}),
    ("fallocate", "ENOSPC", {MEMORY}), ("fallocate", "EIO", {FAILED}),
    ("fallocate+", "EOPNOTSUPP", {0}), ("fsync", "EIO", {FAILED}), ("fsync+", "EIO", {FAILED}),
    ("fsync", "ENOSPC", {MEMORY}), ("mkdir", "EACCES", {FAILED}), ("mkdir", "ENOSPC", {MEMORY}),
    ("rename", "EIO", {FAILED}), ("exchange", "EIO", {FAILED}), ("exchange+", "EINVAL", {0}),
    ("flock", "EWOULDBLOCK", {0}), ("close", "EIO", {FAILED, 0}), ("getdents", "EIO", {FAILED, 0}),
]
RECIPE_DENSE, RECIPE_SPREAD = 5, 6
RECIPE_IO = ["open", "stat", "getdents", "read", "mmap", "write", "fallocate", "fsync", "mkdir",
             "rename", "link", "unlink", "flock", "close"]
KILLS = ["write", "fsync", "fallocate", "mkdir", "rename", "exchange", "unlink", "open", "close"]


def points(count, dense, spread):
    """1..dense, and `spread` more up to count."""
    first = list(range(1, min(count, dense) + 1))
    step = max(1, (count - dense) // spread)
    return first + list(range(dense + 1, count + 1, step))


def content(folder):
    """What is in a directory: a digest for each file, the names only of those that hold times."""
    if not folder.exists():
        return None
    timed = {"sfq_report.json", "README.md"}
    return {path.name: "" if path.name in timed else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir()}


def cut(data, shape, to):
    """The first to[0] rows and to[-1] columns of a float16 tensor of one or two dimensions."""
    rows = to[0] if len(to) == 2 else 1
    width = 2 * shape[-1]
    return b"".join(data[i:i + 2 * to[-1]] for i in range(0, rows * width, width))


def shrink(model, to):
    """A copy of a BERT that has less of everything: the same paths, a fraction of the time."""
    shutil.copytree(model, to)
    config = json.loads((to / "config.json").read_text())
    sizes = {config["vocab_size"]: TOKENS, config["intermediate_size"]: NEURONS}
    config |= {"num_hidden_layers": LAYERS, "vocab_size": TOKENS, "intermediate_size": NEURONS}
    (to / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((to / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {token: at for token, at in vocab.items() if at < TOKENS}
    (to / "tokenizer.json").write_text(json.dumps(tokenizer))

    tensors = hostile_kit.Tensors(to / "model.safetensors")
    for name in [name for name in tensors.header if name != "__metadata__"]:
        layer, tensor = re.search(r"\.layer\.(\d+)\.", name), tensors.entry(name)
        shape = [sizes.get(n, n) for n in tensor["shape"]]
        if layer and int(layer[1]) >= LAYERS:
            tensors.remove(name)
        elif shape != tensor["shape"]:
            part = cut(bytes(tensors.view(name)), tensor["shape"], shape)
            tensors.remove(name)
            tensors.append(name, tensor["dtype"], shape, part)
    (to / "model.safetensors").write_bytes(tensors.bytes())
    return to


class Place:
    """A scratch directory of one worker."""

    def __init__(self, root, number):
        self.dir = root / f"w{number}"
        self.dir.mkdir()
        self.out = self.dir / "out"
        self.count = self.dir / "count"

    def others(self):
        return sorted(p.name for p in self.dir.iterdir() if p.name not in ("out", "count"))

    def clean(self):
        for path in self.dir.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Faults:
    def __init__(self, exe, model, root):
        self.exe, self.model, self.root = exe, model, root
        self.writer = ["compress", model, "--prune", "0", "--steps", "0"]
        self.local = threading.local()
        self.lock = threading.Lock()
        self.places = 0
        self.runs = self.survived = 0
        self.problems = []

    def place(self):
        if not hasattr(self.local, "place"):
            with self.lock:
                self.places += 1
                self.local.place = Place(self.root, self.places)
        return self.local.place

    def problem(self, what, result=None):
        if result is not None:
            what += f"\n    exit {result.returncode}, stderr {result.stderr[-600:]!r}"
        with self.lock:
            self.problems.append(what)

    def call(self, fault, words):
        """(result, counts); counts is None when the process could not report them."""
        place = self.place()
        place.count.unlink(missing_ok=True)
        env = dict(os.environ, SFQ_FAULT=fault, SFQ_FAULT_COUNT=str(place.count), LC_ALL="C")
        with self.lock:
            self.runs += 1
        try:
            result = subprocess.run([self.exe, *map(str, words)], env=env, capture_output=True,
                                    text=True, errors="replace", timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            self.problem(f"{fault}: no end after {TIMEOUT} s")
            return None, None
        if not place.count.exists():
            return result, None
        rows = (line.split() for line in place.count.read_text().splitlines())
        return result, {name: int(n) for name, n in rows}

    def words(self, force):
        """Of the verb that writes a directory."""
        words = [*self.writer, "-o", self.place().out, "--threads", "1", "--quiet"]
        return words + ["--force"] if force else words

    def prepare(self, old):
        """An empty place, or one with an older output in it."""
        place = self.place()
        place.clean()
        if old:
            place.out.mkdir()
            (place.out / "config.json").write_text("{}")
            (place.out / "model.safetensors").write_text("old")
        return content(place.out)

    def reference(self, old):
        """Counts of a run without a fault; its output is what every complete output must be."""
        self.prepare(old)
        result, counts = self.call("", self.words(old))
        if result is None or result.returncode != 0 or counts is None:
            sys.exit(f"run_faults: the run without a fault failed: {result}")
        self.complete = content(self.place().out)
        if not self.complete or self.place().others():
            sys.exit("run_faults: the run without a fault left no output, or more than that")
        return counts

    def check_failure(self, name, result, allowed):
        """Exit status and error line of an ordinary failure."""
        if result.returncode < 0:
            self.problem(f"{name}: ended by a signal", result)
        elif result.returncode not in allowed:
            self.problem(f"{name}: exit status not in {sorted(allowed)}", result)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        if result.returncode > 0 and (len(lines) != 1 or not lines[0].startswith("sfq: ")):
            self.problem(f"{name}: not one error line", result)

    def one_write(self, fault, allowed, old):
        """Writes the output under one fault."""
        name = f"{fault}{' over an old output' if old else ''}"
        before = self.prepare(old)
        result, counts = self.call(fault, self.words(old))
        if result is None:
            return
        self.check_failure(name, result, allowed)
        if counts is None:
            self.problem(f"{name}: the process did not end in order", result)
        elif counts["fired"] == 0 and not fault.startswith("short") and result.returncode != 0:
            self.problem(f"{name}: failed without a fault", result)
        now = content(self.place().out)
        if now != (self.complete if result.returncode == 0 else before):
            self.problem(f"{name}: the output is neither as before nor complete", result)
        if self.place().others() and old and result.returncode == 0:
            self.call("", self.words(True))  # what was replaced could not be removed
        if self.place().others():
            self.problem(f"{name}: left {self.place().others()}", result)
        with self.lock:
            self.survived += result.returncode == 0

    def one_kill(self, fault, old):
        """Killed in the middle: the old or the new one is there, the next run cleans up."""
        before = self.prepare(old)
        result, counts = self.call(fault, self.words(old))
        if result is None:
            return
        if result.returncode != -9 or counts is not None:
            self.problem(f"{fault}: was not killed", result)
        now = content(self.place().out)
        if now not in (before, self.complete):
            self.problem(f"{fault}: the output is half written", result)
        result, _ = self.call("", self.words(True))
        if result is not None and (result.returncode != 0 or
                                   content(self.place().out) != self.complete):
            self.problem(f"{fault}: the next run failed", result)
        if self.place().others():
            self.problem(f"{fault}: the next run left {self.place().others()}", result)

    def recipe_words(self, force):
        words = ["compress", self.model, "-o", self.place().out, "--task", "own", "--data",
                 self.data, "--rounds", "2", "--steps", "2", "--prune", "0.3", "--threads", "1",
                 "--quiet"]
        return words + ["--force"] if force else words

    def recipe_reference(self):
        self.data = self.root / "data"
        self.data.mkdir()
        for split, count in (("train", 16), ("dev", 4)):
            rows = ({"text": f"{i} fine and {i * i % 7} dull", "label": i % 2}
                    for i in range(count))
            (self.data / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        self.place().clean()
        result, counts = self.call("", self.recipe_words(False))
        if result is None or result.returncode != 0 or counts is None or self.place().others():
            sys.exit(f"run_faults: the recipe without a fault failed: {result}")
        self.complete = content(self.place().out)
        return counts

    def one_recipe(self, fault, allowed):
        """Under one fault, then without: the second run goes on to what an undisturbed one makes."""
        self.place().clean()
        result, counts = self.call(fault, self.recipe_words(False))
        if result is None:
            return
        if fault.startswith("kill"):
            if result.returncode != -9:
                self.problem(f"recipe, {fault}: was not killed", result)
        else:
            self.check_failure(f"recipe, {fault}", result, allowed)
            if counts is None:
                self.problem(f"recipe, {fault}: the process did not end in order", result)
        there = content(self.place().out)
        if there not in (None, self.complete) or (result.returncode == 0 and there is None):
            self.problem(f"recipe, {fault}: the output is neither absent nor complete", result)
        again, _ = self.call("", self.recipe_words(there is not None))
        if again is not None and (again.returncode != 0 or
                                  content(self.place().out) != self.complete):
            self.problem(f"recipe, {fault}: the next run did not go on to the same", again)
        if self.place().others():
            self.problem(f"recipe, {fault}: the next run left {self.place().others()}", again)
        with self.lock:
            self.survived += result.returncode == 0

    def one_verb(self, fault, words, expected):
        """A verb that only reads: the whole answer, or an error."""
        result, _ = self.call(fault, words)
        if result is None:
            return
        name = f"{words[0]}: {fault}"
        allowed = {MEMORY, 0} if fault.startswith("alloc") else {FAILED, MEMORY, 0}
        allowed |= {INPUT} if fault.startswith("stat") else set()
        self.check_failure(name, result, allowed)
        if result.returncode == 0 and result.stdout != expected:
            self.problem(f"{name}: exit 0 with another answer {result.stdout[:200]!r}")
        with self.lock:
            self.survived += result.returncode == 0


def alloc_part(faults, submit):
    counts = faults.reference(False)
    for n in points(counts["alloc"], DENSE, SPREAD):
        submit(faults.one_write, f"alloc:{n}", {MEMORY, 0}, False)
        submit(faults.one_write, f"alloc+:{n}", {MEMORY, 0}, False)


def io_part(faults, submit):
    for old in (False, True):
        counts = faults.reference(old)
        for op, errno, allowed in IO_FAULTS:
            for n in points(counts[op.rstrip("+")], IO_DENSE, IO_SPREAD):
                submit(faults.one_write, f"{op}:{n}:{errno}", allowed, old)
        for fault in ("short-read", "short-write", "short-read,short-write"):
            submit(faults.one_write, fault, {0}, old)


def kill_part(faults, submit):
    for old in (False, True):
        counts = faults.reference(old)
        for op in KILLS:
            for n in points(counts[op], IO_DENSE, IO_SPREAD):
                submit(faults.one_kill, f"kill:{op}:{n}", old)


def verbs_part(faults, submit):
    faults.reference(False)
    artifact = faults.root / "artifact"
    shutil.copytree(faults.place().out, artifact)
    text = ["-p", "a fine film", "--quiet"]
    verbs = [["inspect", artifact, "--verify", "--quiet"], ["tokenize", artifact, *text],
             ["run", artifact, *text, "--threads", "1"],
             ["run", faults.model, *text, "--threads", "1"]]
    for words in verbs:
        result, counts = faults.call("", words)
        if result is None or result.returncode != 0 or counts is None:
            sys.exit(f"run_faults: {words} failed without a fault: {result}")
        for op in ("alloc", "alloc+", "open", "stat", "read", "mmap"):
            for n in points(counts[op.rstrip("+")], IO_DENSE * 2, IO_SPREAD * 2):
                submit(faults.one_verb, f"{op}:{n}", words, result.stdout)


def export_part(faults, submit):
    """The other verb that writes a directory, under everything that compress goes through."""
    faults.reference(False)
    artifact = faults.root / "artifact"
    shutil.copytree(faults.place().out, artifact)
    faults.writer = ["export", artifact]
    alloc_part(faults, submit)
    io_part(faults, submit)
    kill_part(faults, submit)


def recipe_part(faults, submit):
    counts = faults.recipe_reference()
    for n in points(counts["alloc"], 5 * RECIPE_DENSE, 8 * RECIPE_SPREAD):
        submit(faults.one_recipe, f"alloc:{n}", {MEMORY, 0})
    for op in RECIPE_IO:
        for n in points(counts[op], RECIPE_DENSE, RECIPE_SPREAD):
            submit(faults.one_recipe, f"{op}:{n}", {FAILED, INPUT, MEMORY, 0})
    for fault in ("short-read,short-write", "link+:1"):
        submit(faults.one_recipe, fault, {0})
    for op in KILLS:
        for n in points(counts[op], RECIPE_DENSE // 2, RECIPE_SPREAD // 2):
            submit(faults.one_recipe, f"kill:{op}:{n}", set())


PARTS = {"alloc": alloc_part, "io": io_part, "kill": kill_part, "verbs": verbs_part,
         "export": export_part, "recipe": recipe_part}


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in PARTS:
        sys.exit(__doc__)
    jobs = int(os.environ.get("SFQ_JOBS", min(4, len(os.sched_getaffinity(0)))))
    with tempfile.TemporaryDirectory(prefix="sfq-fault-") as root:
        root = pathlib.Path(root)
        faults = Faults(sys.argv[2], shrink(sys.argv[3], root / "model"), root)
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            tasks = []
            PARTS[sys.argv[1]](faults, lambda *work: tasks.append(pool.submit(*work)))
            for task in tasks:
                task.result()
    print(f"{sys.argv[1]}: {faults.runs} runs, {faults.survived} survived their fault, "
          f"{len(faults.problems)} problems")
    for what in faults.problems[:20]:
        print("  " + what)
    sys.exit(1 if faults.problems else 0)


if __name__ == "__main__":
    main()
