"""Exceptions. Every failure of the library is an `Error` that carries the status's name, the file
and the tensor; each kind of status has a class, which is also the built-in exception that fits.

    try:
        sfq.Model("small")
    except FileNotFoundError as error:      # sfq.NotFoundError is one
        print(error.code, error.file)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import Compression


class Error(Exception):
    """A call of the library failed.

    Attributes:
        message: one line that says what, where and what to do next.
        code: the status's name, e.g. "E_FORMAT" (as in the command line's JSON).
        file: the file or directory it is about, "" where none is.
        tensor: the tensor, "" where none is.
    """

    def __init__(self, message: str, code: str = "E_INTERNAL", file: str = "",
                 tensor: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.file = file
        self.tensor = tensor

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[Error], tuple[str, str, str, str]]:
        return type(self), (self.message, self.code, self.file, self.tensor)


class ArgumentError(Error, ValueError):
    """E_ARGUMENT: an argument is wrong, or does not go with another."""


class FileError(Error, OSError):
    """E_IO: input or output failed."""


class NotFoundError(Error, FileNotFoundError):
    """E_NOT_FOUND: a file, directory or cached model is missing."""


class ExistsError(Error, FileExistsError):
    """E_EXISTS: the output is there already; `force=True` replaces it."""


class NoSpaceError(Error, OSError):
    """E_NO_SPACE: the disk is too full; found before anything was written."""


class FormatError(Error, ValueError):
    """E_FORMAT: a file is damaged or malformed."""


class ChecksumError(Error, ValueError):
    """E_CHECKSUM: a tensor is not what was written."""


class DataError(Error, ValueError):
    """E_DATA: bad data: text that is no UTF-8, labels out of range, token ids beyond the
    vocabulary."""


class LimitError(Error, ValueError):
    """E_LIMIT: beyond a limit, e.g. more tokens than the model has positions."""


class OutOfMemoryError(Error, MemoryError):
    """E_MEMORY: not enough memory; found before it was taken wherever that is possible."""


class UnsupportedError(Error, NotImplementedError):
    """E_UNSUPPORTED: the model, or what is asked of it, is not supported."""


class NumericError(Error, ArithmeticError):
    """E_NUMERIC: a weight or a result is not a finite number."""


class GuardError(Error):
    """E_GUARD: the drop is larger than `max_drop`; the output was kept as NAME.rejected.

    Attributes:
        result: what `sfq.compress` would have returned.
    """

    result: Compression


class InfeasibleError(Error, ValueError):
    """E_INFEASIBLE: no model meets the budget."""


class InterruptedError(Error):
    """E_INTERRUPTED: stopped on request. Ctrl-C raises KeyboardInterrupt, not this."""


CLASSES: dict[str, type[Error]] = {
    "E_ARGUMENT": ArgumentError,
    "E_IO": FileError,
    "E_NOT_FOUND": NotFoundError,
    "E_EXISTS": ExistsError,
    "E_NO_SPACE": NoSpaceError,
    "E_FORMAT": FormatError,
    "E_CHECKSUM": ChecksumError,
    "E_DATA": DataError,
    "E_LIMIT": LimitError,
    "E_MEMORY": OutOfMemoryError,
    "E_UNSUPPORTED": UnsupportedError,
    "E_NUMERIC": NumericError,
    "E_GUARD": GuardError,
    "E_INFEASIBLE": InfeasibleError,
    "E_INTERRUPTED": InterruptedError,
}
"""The class of each status; any other status is an `Error` itself."""
