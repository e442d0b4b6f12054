"""Turns the public headers into the module sfq/_cdef.py, from which cffi calls libsfq: the build
runs it, so what Python believes of the C API is what the headers say.

usage: make_binding.py COMPILER REPOSITORY OUTPUT.py
"""

import pathlib
import subprocess
import sys
import tempfile

from cffi import FFI


HEADERS = "#include <sfq/sfq.h>\n#include <torch_op.h>\n"


def declarations(compiler: str, root: str) -> str:
    """The headers behind the preprocessor, without what the C library's own headers say: cffi knows
    those types. Without __GNUC__, SFQ_API is empty."""
    with tempfile.TemporaryDirectory() as empty:
        for name in ("stdbool.h", "stddef.h", "stdint.h"):
            (pathlib.Path(empty) / name).touch()
        command = [compiler, "-E", "-P", "-nostdinc", "-U__GNUC__"]
        for folder in (empty, f"{root}/include", f"{root}/python"):
            command += ["-I", folder]
        done = subprocess.run([*command, "-"], input=HEADERS, text=True, check=True,
                              stdout=subprocess.PIPE)
    return done.stdout


def main() -> None:
    compiler, root, output = sys.argv[1:]
    ffi = FFI()
    ffi.set_source("sfq._cdef", None)
    ffi.cdef(declarations(compiler, root))
    pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_python_code(output)


if __name__ == "__main__":
    main()
