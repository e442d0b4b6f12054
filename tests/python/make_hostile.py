#!/usr/bin/env python3
"""Writes the hostile corpus: one directory per case and manifest.json with what each must give.

    make_hostile.py OUT [--only PREFIX] [--artifact DIR]

Artifact cases need a directory that `sfq compress models/sst2-tiny --prune 0 --steps 0` wrote.
Standard library only, the same bytes every time. test_hostile.py runs the program on each case."""

import argparse
import json
import pathlib

import hostile_artifact
import hostile_config
import hostile_tokenizer
import hostile_weights


def dense_cases():
    return hostile_weights.cases() + hostile_config.cases() + hostile_tokenizer.cases()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", default="", help="cases whose name begins with this")
    parser.add_argument("--artifact", type=pathlib.Path, help="a compressed sst2-tiny")
    options = parser.parse_args()
    cases = dense_cases()
    if options.artifact:
        cases += hostile_artifact.cases(options.artifact)
    manifest = []
    for case in cases:
        if not case.name.startswith(options.only):
            continue
        if case.make:
            folder = options.out / case.name
            folder.mkdir(parents=True)
            case.make(folder)
        manifest.append({"name": case.name, "model": case.model, "exit": case.code,
                         "message": case.text, "verbs": list(case.verbs)})
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{len(manifest)} cases in {options.out}")


if __name__ == "__main__":
    main()
