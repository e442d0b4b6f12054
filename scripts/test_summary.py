#!/usr/bin/env python3
"""Adds up JUnit files (ctest, pytest) and prints one closing line: "N passed, N failed".

A file that is missing counts as nothing. --parts FAILED TOTAL adds whole parts of the CI that are
not test cases themselves (lint, build). Exit 1 when anything failed or nothing ran."""

import argparse
import os
import sys
import xml.etree.ElementTree as ElementTree


def count(path):
    """passed, failed, skipped of one JUnit file, whatever tool wrote it."""
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs=2, type=int, metavar=("FAILED", "TOTAL"), default=(0, 0))
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    failed_parts, parts = options.parts
    passed, failed, skipped = parts - failed_parts, failed_parts, 0
    for path in options.files:
        if os.path.exists(path):
            p, f, s = count(path)
            passed, failed, skipped = passed + p, failed + f, skipped + s
    skips = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{skips}")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
