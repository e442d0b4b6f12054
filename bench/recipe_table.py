#!/usr/bin/env python3
"""The recipe `sfq` measured: what each step costs and gives back, the curve of drop against share,
and the ablations. Everything is run through build/bin/sfq; the figures are what it prints.

    bench/recipe_table.py tasks|curve|novels|saliency|rounds|data|pick ... [--shared ../shared]

A row is one run of `sfq compress`; a row that the CSV has already is not run again, so an
interrupted table goes on where it was, and one that another table has is taken from there. Tables:
bench/recipe_TABLE.csv; `--markdown` prints them as docs/METHOD.md has them and runs nothing.
"""

import argparse
import csv
import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

SFQ = "build/bin/sfq"
FOLDER = {"mrpc": "MRPC", "sst2": "SST-2", "stsb": "STS-B"}
KEYS = ("model", "prune", "seed", "saliency", "rounds", "fraction", "pick", "steps")
STAGES = ("pruned", "reconstructed", "distilled", "fused")  # OUTPUT.NAME of --keep-stages
LOSSES = ("prune", "reconstruct", "distill", "fuse", "tune")  # stages[] of the JSON
FIGURES = ("reduction", "scale_overhead", "sequences", "tokens", "metric", "dense", *STAGES,
           "final", "drop", *(f"loss_{name}" for name in LOSSES), "seconds", "stopped_by")


def sfq(*args):
    done = subprocess.run([SFQ, *map(str, args), "-q", "--json"], stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"sfq {' '.join(map(str, args))}: exit {done.returncode}")
    return json.loads(done.stdout)


def key(model, prune, seed=0, saliency="fisher", rounds="", fraction="", pick="curated",
        steps=""):
    return dict(zip(KEYS, map(str, (model, prune, seed, saliency, rounds, fraction, pick, steps))))


def tables():
    """Rows of every table."""
    tasks = [key(f"minilm-{t}", 0.33) for t in FOLDER]
    mrpc, novels = "minilm-mrpc", "novels-5m"
    kinds = ("fisher", "taylor", "magnitude", "error")
    return {
        "tasks": tasks + [key(mrpc, 0.33, seed=s) for s in (1, 2)],
        "curve": [key(f"minilm-{t}", p) for p in (0.40, 0.50, 0.60) for t in FOLDER],
        "novels": [key(novels, p) for p in (0.20, 0.40)],
        # what recalibration would hide is left out of these: steps 0
        "saliency": [key(m, 0.33, saliency=k, steps=0) for m in (mrpc, novels) for k in kinds],
        "rounds": [key(m, 0.33, rounds=r, steps=0) for m in (mrpc, novels) for r in (1, 3, 6)],
        # the largest train split: 67, 336 and 1346 sequences
        "data": [key("minilm-sst2", 0.33, fraction=f) for f in (0.001, 0.005, 0.02)],
        "pick": [key("minilm-sst2", 0.33, pick=k, seed=s) for k in ("curated", "random")
                 for s in (0, 1, 2)],
    }


class Bench:
    def __init__(self, shared, scratch):
        self.shared, self.scratch = shared, scratch
        self.dense = {}

    def data(self, model):
        """(options that compress calibrates on, options that eval measures on)"""
        if model.startswith("minilm-"):
            task = model.removeprefix("minilm-")
            args = ["--task", task, "--data", self.shared / "data/glue" / FOLDER[task]]
            return args, args
        train = self.scratch / "train.txt"
        if not train.exists():
            with gzip.open(self.shared / "data/novels/train.txt.gz") as f, open(train, "wb") as to:
                shutil.copyfileobj(f, to)
        return (["--text", train], ["--text", self.shared / "data/novels/valid.txt"])

    def measure(self, model, path):
        got = sfq("eval", path, *self.data(model)[1])
        return ("perplexity", got["perplexity"]) if "perplexity" in got \
            else (got["metric"], got["value"])

    def run(self, row, stages):
        model = row["model"]
        source = self.shared / "models" / model
        out = self.scratch / "out"
        args = ["--prune", row["prune"], "--bits", 8, "--embedding-bits", 4, "--seed", row["seed"],
                "--saliency", row["saliency"], "--pick", row["pick"]]
        for option, name in (("--rounds", "rounds"), ("--calib-fraction", "fraction"),
                             ("--steps", "steps")):
            args += [option, row[name]] if row[name] else []
        args += ["--keep-stages"] if stages else []
        made = sfq("compress", source, "-o", out, *args, *self.data(model)[0], "--force")
        if model not in self.dense:
            self.dense[model] = self.measure(model, source)
        metric, dense = self.dense[model]
        final = self.measure(model, out)[1]
        drop = 100 * (final / dense - 1) if metric == "perplexity" else 100 * (dense - final)
        losses = {s["name"]: s["loss"] for s in made["stages"]}
        figures = {"reduction": round(made["reduction"], 4),
                   "scale_overhead": round(made["scale_overhead"], 5),
                   "sequences": made["calibration"]["sequences"],
                   "tokens": made["calibration"]["tokens"], "metric": metric,
                   "dense": round(dense, 5), "final": round(final, 5), "drop": round(drop, 3),
                   "seconds": round(made["seconds"], 1), "stopped_by": made["stopped_by"]}
        for name in LOSSES:
            loss = losses.get(name)
            figures[f"loss_{name}"] = "" if loss is None else f"{loss:.5g}"
        for name in STAGES if stages else ():
            stage = pathlib.Path(f"{out}.{name}")
            figures[name] = round(self.measure(model, stage)[1], 5)
            shutil.rmtree(stage)
        shutil.rmtree(out)
        return {**row, **figures}


def read(path):
    if not path.exists():
        return []
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def find(row, rows):
    return next((r for r in rows if all(r[k] == row[k] for k in KEYS)), None)


def fill(bench, name, rows, folder):
    path = folder / f"recipe_{name}.csv"
    done = read(path)
    fresh = not path.exists() or path.stat().st_size == 0
    others = [r for other in tables() for r in read(folder / f"recipe_{other}.csv")]
    with open(path, "a", newline="") as f:
        out = csv.DictWriter(f, KEYS + FIGURES, lineterminator="\n")
        if fresh:
            out.writeheader()
        for row in rows:
            if find(row, done):
                continue
            got = find(row, others) or bench.run(row, stages=name in ("tasks", "novels"))
            out.writerow(got)
            f.flush()
            print(*(f"{k}={v}" for k, v in got.items() if v != ""), flush=True)


# ---- Markdown ----

COLUMNS = {
    "tasks": ("model", "seed", "reduction", "dense", *STAGES, "final", "drop", "seconds"),
    "curve": ("model", "prune", "reduction", "dense", "final", "drop", "seconds"),
    "novels": ("prune", "reduction", "dense", *STAGES, "final", "drop", "seconds"),
    "saliency": ("model", "saliency", "dense", "final", "drop", "loss_prune", "loss_reconstruct"),
    "rounds": ("model", "rounds", "dense", "final", "drop", "loss_prune", "loss_reconstruct"),
    "data": ("model", "fraction", "sequences", "tokens", "dense", "final", "drop", "loss_tune"),
    "pick": ("model", "pick", "seed", "dense", "final", "drop", "loss_tune"),
}


def shown(column, row):
    value = row[column]
    if column in ("dense", "final", *STAGES) and row["metric"] != "perplexity" and value:
        return f"{100 * float(value):.2f}"
    if column == "drop":
        return f"{float(value):+.2f}" + (" %" if row["metric"] == "perplexity" else "")
    return f"{100 * float(value):.1f} %" if column == "reduction" else value


def markdown(name, folder):
    columns = COLUMNS[name]
    print(f"\n{name}:\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in read(folder / f"recipe_{name}.csv"):
        print(f"| {' | '.join(shown(c, row) for c in columns)} |")


def main():
    known = tables()
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("table", nargs="+", choices=known)
    p.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench"))
    p.add_argument("--markdown", action="store_true")
    a = p.parse_args()
    if a.markdown:
        for name in a.table:
            markdown(name, a.out)
        return
    with tempfile.TemporaryDirectory(prefix="sfq-recipe-") as scratch:
        bench = Bench(a.shared, pathlib.Path(scratch))
        for name in a.table:
            fill(bench, name, known[name], a.out)


if __name__ == "__main__":
    main()
