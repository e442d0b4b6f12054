"""The one module that touches libsfq: loads it, turns statuses into exceptions, hooks into
callbacks, and Python's strings into C's. cffi releases the GIL around every call.

Ctrl-C: Python's own handler runs once the main thread is back in Python. During a long call that is
in the `cancelled` hook, which the library asks at least once a second: the KeyboardInterrupt is
kept there, the call ends with E_INTERRUPTED and nothing half written, and the exception goes on."""

from __future__ import annotations

import logging
import os
import pathlib
import reprlib
from types import TracebackType
from typing import Any, Callable, Iterable, Optional, Union

import numpy as np

from . import errors
from ._cdef import ffi as ffi
from .progress import Bar, Progress

lib: Any = ffi.dlopen(str(pathlib.Path(__file__).with_name("libsfq.so")))

PathLike = Union[str, "os.PathLike[str]"]
ProgressOption = Union[bool, Callable[[Progress], None], None]

_log = logging.getLogger("sfq")


def text(pointer: Any) -> str:
    """A C string; bytes that are no UTF-8 (file names) as Python's file functions read them."""
    return "" if pointer == ffi.NULL else os.fsdecode(bytes(ffi.string(pointer)))


# ---- arguments: `what` is the parameter's name, for the message ---------------------------------


def wrong(what: str, value: object, wanted: str) -> errors.ArgumentError:
    """The exception of an argument that is none of its kind."""
    return errors.ArgumentError(f"{what} is {reprlib.repr(value)}; expected {wanted}", "E_ARGUMENT")


def path(value: PathLike, what: str) -> bytes:
    """A path for C."""
    try:
        raw = os.fsencode(value)
    except (TypeError, UnicodeEncodeError):
        raise wrong(what, value, "a path") from None
    if b"\0" in raw:
        raise errors.ArgumentError(f"{what} holds a NUL byte", "E_ARGUMENT")
    return raw


def utf8(value: str, what: str) -> bytes:
    """A text for C."""
    if not isinstance(value, str):
        raise wrong(what, value, "a str")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as reason:
        raise errors.DataError(f"{what} is no Unicode text: a lone surrogate at {reason.start}",
                               "E_DATA") from None


def flag(value: bool, what: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise wrong(what, value, "True or False")
    return bool(value)


def items(value: Iterable[Any], what: str, wanted: str) -> list[Any]:
    """A list of anything that can be iterated over."""
    try:
        return list(value)
    except TypeError:
        raise wrong(what, value, wanted) from None


# ---- calls ---------------------------------------------------------------------------------------


def new_error() -> Any:
    return ffi.new("sfq_error *")


def exception(status: int, error: Any) -> errors.Error:
    """The exception of a call that failed with this status and filled *error."""
    code = text(lib.sfq_status_name(status))
    message = text(error.message) or text(lib.sfq_status_text(status))
    kind = errors.CLASSES.get(code, errors.Error)
    return kind(message, code, text(error.file), text(error.tensor))


def call(function: Any, *arguments: Any) -> None:
    """function(*arguments, &error); an exception unless it returns 0."""
    error = new_error()
    status = function(*arguments, error)
    if status != 0:
        raise exception(status, error)


def assign(struct: Any, **values: Any) -> None:
    """Members of an options struct; None leaves the library's default."""
    for name, value in values.items():
        if value is not None:
            try:
                setattr(struct, name, value)
            except (TypeError, OverflowError) as reason:
                raise errors.ArgumentError(f"{name} is {value!r}: {reason}",
                                           "E_ARGUMENT") from None


class Keep:
    """C memory that must live as long as a struct which points into it."""

    def __init__(self) -> None:
        self._held: list[Any] = []

    def hold(self, value: Any) -> Any:
        self._held.append(value)
        return value

    def string(self, value: Union[str, bytes, None], what: str) -> Any:
        """char *, or NULL for None. bytes are what path() made."""
        if value is None:
            return ffi.NULL
        raw = value if isinstance(value, bytes) else utf8(value, what)
        if b"\0" in raw:
            raise errors.ArgumentError(f"{what}: {value!r} holds a NUL character", "E_ARGUMENT")
        return self.hold(ffi.new("char[]", raw))

    def strings(self, values: Iterable[Union[str, bytes]], what: str) -> tuple[Any, int]:
        """char **, and how many; a str alone is a list of one."""
        listed = [values] if isinstance(values, str) else items(values, what, "a list of str")
        pointers = [self.string(value, what) for value in listed]
        return self.hold(ffi.new("char *[]", pointers)), len(pointers)


# ---- hooks ---------------------------------------------------------------------------------------


class Hooks:
    """sfq_hooks for one call: `with Hooks(progress) as hooks: hooks.call(lib.sfq_x, ..., )`.

    An exception in a callback (KeyboardInterrupt included) ends the call and comes out of it."""

    def __init__(self, progress: ProgressOption = False) -> None:
        self.raised: Optional[BaseException] = None
        self._bar: Optional[Bar] = None
        self._report: Optional[Callable[[Progress], None]] = None
        if callable(progress):
            self._report = progress
        elif progress is not None and not isinstance(progress, bool):
            raise wrong("progress", progress, "True, False, None or a function")
        elif progress is not False:
            self._bar = Bar(always=progress is True)
            self._report = self._bar.report
        self._handle = ffi.new_handle(self)
        self.c = ffi.new("sfq_hooks *")
        self.c.ud = self._handle
        self.c.progress = _on_progress
        self.c.log = _on_log
        self.c.cancelled = _on_cancelled

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        if self._bar is not None:
            self._bar.close()

    def report(self, progress: Progress) -> None:
        if self._report is not None and self.raised is None:
            self._report(progress)

    def check(self) -> None:
        """Raises what a callback raised."""
        if self.raised is not None:
            raised, self.raised = self.raised, None
            raise raised

    def call(self, function: Any, *arguments: Any) -> None:
        """As call(), for a function that was given these hooks."""
        error = new_error()
        status = function(*arguments, error)
        self.check()
        if status != 0:
            raise exception(status, error)


def _on_error(kind: type[BaseException], value: BaseException,
              traceback: TracebackType) -> None:
    """A callback raised: its frame still knows whose it was."""
    hooks: Hooks = ffi.from_handle(traceback.tb_frame.f_locals["ud"])
    if hooks.raised is None:
        hooks.raised = value


def _progress(ud: Any, news: Any) -> None:
    hooks: Hooks = ffi.from_handle(ud)
    hooks.report(Progress(text(news.stage), news.stage_index, news.stage_count, news.done,
                          news.total, text(news.unit)))


def _note(ud: Any, level: int, message: Any) -> None:
    _log.log(logging.WARNING if level == lib.SFQ_LOG_WARNING else logging.INFO, "%s", text(message))


def _cancelled(ud: Any) -> bool:
    hooks: Hooks = ffi.from_handle(ud)
    return hooks.raised is not None


_on_progress: Any = ffi.callback("void(void *, const sfq_progress *)", _progress, onerror=_on_error)
_on_log: Any = ffi.callback("void(void *, sfq_log_level, const char *)", _note, onerror=_on_error)
_on_cancelled: Any = ffi.callback("bool(void *)", _cancelled, error=True, onerror=_on_error)
