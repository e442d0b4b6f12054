#!/usr/bin/env python3
"""Quality against bits, nothing pruned and no data: the table of docs/METHOD.md.

    bench/bits_table.py [--shared ../shared] [--bits 8 7 6 5 4 3 2] [--csv bench/bits_table.csv]

For each width: the language model novels-5m on data/novels/valid.txt (perplexity, KL, same-top-1
against the original) and the three MiniLM encoders on their dev splits. Matrices and embeddings
take the same bits. Everything is run through build/bin/sfq; the figures are what it prints.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import tempfile

SFQ = "build/bin/sfq"
TASKS = (("mrpc", "MRPC"), ("sst2", "SST-2"), ("stsb", "STS-B"))
FIELDS = ("model", "bits", "reduction", "bits_per_parameter", "scale_overhead", "activation_bits",
          "metric", "original", "compressed", "drop", "kl_mean", "kl_p999", "same_top1", "flips")


def sfq(*args):
    done = subprocess.run([SFQ, *map(str, args), "--json"], check=True, capture_output=True)
    return json.loads(done.stdout)


def rows(model, eval_args, bits, scratch):
    """One row per width for one model."""
    base = sfq("eval", model, *eval_args)
    for b in bits:
        out = scratch / f"{model.name}-{b}"
        made = sfq("compress", model, "-o", out, "--prune", 0, "--steps", 0, "--bits", b,
                   "--embedding-bits", b, "--force")
        seen = sfq("inspect", out)
        got = sfq("eval", out, *eval_args, "--against", model)
        metric = got.get("metric", "perplexity")
        was = base["perplexity"] if "perplexity" in base else base["value"]
        now = got["perplexity"] if "perplexity" in got else got["value"]
        drop = 100 * (now / was - 1) if metric == "perplexity" else 100 * (was - now)
        yield {"model": model.name, "bits": b, "reduction": round(made["reduction"], 4),
               "bits_per_parameter": round(seen["bits_per_parameter"], 3),
               "scale_overhead": round(seen["scale_overhead"], 5),
               "activation_bits": got["activation_bits"], "metric": metric,
               "original": round(was, 5), "compressed": round(now, 5), "drop": round(drop, 3),
               **{k: got.get(k) for k in ("kl_mean", "kl_p999", "same_top1", "flips")}}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    p.add_argument("--bits", type=int, nargs="+", default=[8, 7, 6, 5, 4, 3, 2])
    p.add_argument("--csv", type=pathlib.Path, default=pathlib.Path("bench/bits_table.csv"))
    a = p.parse_args()
    jobs = [(pathlib.Path("models/novels-5m"), ("--text", a.shared / "data/novels/valid.txt"))]
    for task, folder in TASKS:
        jobs.append((a.shared / f"models/minilm-{task}",
                     ("--task", task, "--data", a.shared / "data/glue" / folder)))
    with tempfile.TemporaryDirectory() as tmp, open(a.csv, "w", newline="") as f:
        out = csv.DictWriter(f, FIELDS, lineterminator="\n")
        out.writeheader()
        for model, eval_args in jobs:
            for row in rows(model, eval_args, a.bits, pathlib.Path(tmp)):
                out.writerow(row)
                f.flush()
                print(*(f"{k}={row[k]}" for k in FIELDS), flush=True)


if __name__ == "__main__":
    main()
