#!/usr/bin/env python3
"""House style that a program can see: clang-format, 100 columns, files of at most 1,000 lines,
functions that fit a screen, an opening comment in every file, no left-over markers, no path of one
machine. Prints FILE:LINE: what, exit 1 on any finding. Functions over 60 lines are listed only,
over 80 they are findings."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS, FILE_LINES, SCREEN, FUNCTION_LINES = 100, 1000, 60, 80
SOURCE = {".c", ".h", ".py", ".sh", ".cmake", ".inc"}
NAMED = {"dev", "CMakeLists.txt", "run", "packages", "packages-lint"}
# A line that is one string of data cannot be broken without hiding what it says.
DATA = re.compile(r'\s*("[^"]*": )?r?".*",?$')
MARKERS = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
MACHINE = re.compile(r"(?<![\w.])/(work|home|root)/\w")


def tracked():
    out = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in sorted(filter(None, out.split("\0"))):
        path = ROOT / name
        if path.is_file() and (path.suffix in SOURCE or path.name in NAMED):
            yield path


def opening_comment(path, lines):
    first = [line for line in lines[:3] if not line.startswith("#!")]
    head = first[0] if first else ""
    if path.suffix in {".c", ".h", ".inc"}:
        return head.startswith("/*") or head.startswith("//")
    return head.startswith("#") or head.startswith('"""') or path.name == "__init__.py"


def functions(lines):
    """(first line, length) of every function: a body is what stands between { and } in column 1."""
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            yield start, number - start - 1
            start = None


def check(path, report, screens):
    text = path.read_text()
    lines = text.splitlines()
    if not opening_comment(path, lines):
        report(path, 1, "a file opens with a comment: what it owns and why it is so")
    if text and not text.endswith("\n"):
        report(path, len(lines), "no line break at the end")
    if len(lines) > FILE_LINES:
        report(path, FILE_LINES, f"{len(lines)} lines; {FILE_LINES} at most")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS and not (path.suffix == ".py" and DATA.match(line)):
            report(path, number, f"{len(line)} columns; {COLUMNS} at most")
        if line != line.rstrip():
            report(path, number, "blanks at the end of the line")
        if MARKERS.search(line):
            report(path, number, f"marker {MARKERS.search(line).group()}")
        if MACHINE.search(line):
            report(path, number, "a path of one machine")
    if path.suffix == ".c":
        for number, length in functions(lines):
            if length > FUNCTION_LINES:
                report(path, number, f"function of {length} lines; {FUNCTION_LINES} at most")
            elif length > SCREEN:
                screens.append(f"{path.relative_to(ROOT)}:{number}: {length}")


def check_format(paths, report):
    sources = [str(p) for p in paths if p.suffix in {".c", ".h"}]
    try:
        done = subprocess.run(["clang-format", "--dry-run", "-Werror", *sources], cwd=ROOT,
                              capture_output=True, text=True)
    except FileNotFoundError:
        report(ROOT / ".clang-format", 1, "clang-format is missing: see scripts/packages-lint")
        return
    places = {}
    for name, line in re.findall(r"^(\S+?):(\d+):\d+: error", done.stderr, re.M):
        places.setdefault(name, []).append(int(line))
    for name, lines in places.items():
        report(pathlib.Path(name), lines[0], f"clang-format would change {len(lines)} places")


def main():
    findings, screens = [], []

    def report(path, line, what):
        findings.append(f"{path.relative_to(ROOT)}:{line}: {what}")

    paths = list(tracked())
    for path in paths:
        check(path, report, screens)
    check_format(paths, report)
    if screens:
        print(f"functions over {SCREEN} lines (allowed, worth a look): " + ", ".join(screens))
    print("\n".join(findings + [f"check_style: {len(paths)} files, {len(findings)} findings"]))
    return 1 if findings or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
