#!/usr/bin/env python3
"""The architecture as a check (DESIGN.md section 3): who may include whom, who may define public
symbols, and which calls belong to the seam alone. Prints FILE:LINE: what, exit 1 on any finding."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

LEVEL = {"base": 0, "tensor": 1, "format": 2, "kernels": 2, "text": 2,
         "model": 3, "data": 3, "compress": 4, "runtime": 4, "api": 5}

# What only src/base/sys.c may call: a fault test replaces that one file at link time.
SEAM = ("malloc calloc realloc aligned_alloc posix_memalign memalign free strdup strndup asprintf "
        "open openat creat close fopen fdopen freopen read pread write pwrite fsync fdatasync "
        "posix_fallocate rename renameat renameat2 mkdir rmdir link linkat unlink unlinkat mmap "
        "munmap").split()
# What the library never does: print or end the process.
NEVER = ("printf vprintf fprintf vfprintf puts fputs putchar fputc putc fwrite perror exit _exit "
         "_Exit quick_exit abort raise signal sigaction setlocale").split()
CALL = re.compile(r"(?<![\w.>])(" + "|".join(SEAM + NEVER) + r")\s*\(")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
DEFINITION = re.compile(r"^[A-Za-z_][\w\s*]*?\b(sfq_\w+)\(")


def strip(text):
    """Comments and literals out, line breaks kept."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def includes(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def public_names():
    """Every function that a public header exports."""
    names = set()
    for header in sorted((ROOT / "include/sfq").glob("*.h")):
        text = strip(header.read_text())
        names |= set(re.findall(r"\bSFQ_API\b[^;{]*?\b(sfq_\w+)\s*\(", text))
    return names


def check_library(path, report, public):
    folder = path.relative_to(ROOT / "src").parts[0]
    if folder not in LEVEL:
        report(path, 1, f"folder src/{folder} has no level; give it one in scripts/check_layers.py")
        return
    text = path.read_text()
    for number, kind, name in includes(text):
        if kind == "<":
            continue
        target = name.split("/")[0]
        if target not in LEVEL:
            report(path, number, f'"{name}" names no folder of src/')
        elif target != folder and LEVEL[target] >= LEVEL[folder]:
            report(path, number, f"{folder} (L{LEVEL[folder]}) must not know {target} "
                                 f"(L{LEVEL[target]})")
    seam = path == ROOT / "src/base/sys.c"
    for number, line in enumerate(strip(text).splitlines(), 1):
        for call in CALL.findall(line):
            if call in NEVER or not seam:
                where = "the library never prints or exits" if call in NEVER else "see base/sys.h"
                report(path, number, f"call of {call}(): {where}")
        match = DEFINITION.match(line)
        if match and match.group(1) in public and folder != "api" and not line.endswith(";"):
            if path.suffix == ".c":
                report(path, number, f"{match.group(1)} is public: define it in src/api")


def check_program(path, report):
    folder = path.parent
    for number, kind, name in includes(path.read_text()):
        if kind == "<":
            continue
        if not name.startswith("base/") and not (folder / name).exists():
            report(path, number, f'"{name}": programs know <sfq/...>, base/ and their own folder')


def check_public(path, report):
    for number, kind, name in includes(path.read_text()):
        if kind == '"' or ("/" in name and not name.startswith("sfq/")):
            report(path, number, f"a public header includes only <sfq/...> and C headers: {name}")


def main():
    findings = []

    def report(path, line, what):
        findings.append(f"{path.relative_to(ROOT)}:{line}: {what}")

    public = public_names()
    files = 0
    for folder, check in (("src", lambda p: check_library(p, report, public)),
                          ("programs", lambda p: check_program(p, report)),
                          ("include", lambda p: check_public(p, report))):
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            check(path)
            files += 1
    print("\n".join(findings + [f"check_layers: {files} files, {len(findings)} findings"]))
    return 1 if findings or not files else 0


if __name__ == "__main__":
    sys.exit(main())
