"""An open model: text, tokens and numbers in and out."""

from __future__ import annotations

import numbers
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Optional, Union, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import errors
from ._native import (Hooks, Keep, PathLike, ProgressOption, assign, call, exception, ffi, flag,
                      items, lib, new_error, path, text, utf8, wrong)
from .results import Generation, Layer, ModelInfo

Floats = NDArray[np.float32]
Text = Union[str, tuple[str, str]]
"""A text, or a pair of texts."""

_INPUTS = "a text, a pair of texts, token ids, or a list of these"


def _ids(value: ArrayLike, what: str) -> NDArray[np.int32]:
    """int32 [n] of any integers; nothing is rounded or wrapped."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        raise errors.ArgumentError(f"{what} is uneven; token ids have 1 dimension",
                                   "E_ARGUMENT") from None
    if array.ndim != 1:
        raise errors.ArgumentError(f"{what} has {array.ndim} dimensions; token ids have 1",
                                   "E_ARGUMENT")
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.dtype.kind not in "iu":
        raise errors.ArgumentError(f"{what} is of type {array.dtype}; token ids are integers",
                                   "E_ARGUMENT")
    if int(array.min()) < -(2**31) or int(array.max()) >= 2**31:
        raise errors.DataError(f"{what} holds numbers beyond 32 bits", "E_DATA")
    return np.ascontiguousarray(array, np.int32)


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, tuple) and len(value) == 2 and all(isinstance(t, str) for t in value))


class _Tokens:
    """sfq_tokens: made of ids by Python, or of texts by the library (then freed by it)."""

    def __init__(self) -> None:
        self.c = ffi.new("sfq_tokens *")
        self.keep = Keep()
        self._owned = False

    @classmethod
    def of_ids(cls, sequences: Sequence[NDArray[np.int32]]) -> _Tokens:
        self = cls()
        offset = np.zeros(len(sequences) + 1, np.uintp)
        np.cumsum([len(s) for s in sequences], out=offset[1:])
        ids = np.concatenate(sequences) if len(sequences) > 0 else np.empty(0, np.int32)
        self.c.count = len(sequences)
        self.c.offset = self.keep.hold(ffi.from_buffer("size_t[]", offset))
        self.c.ids = self.keep.hold(ffi.from_buffer("int32_t[]", ids))
        return self

    @classmethod
    def of_texts(cls, model: Any, texts: Sequence[Text]) -> _Tokens:
        self = cls()
        keep = Keep()
        inputs = ffi.new("sfq_text_pair[]", len(texts))
        for i, value in enumerate(texts):
            if not _is_text(value):
                raise errors.ArgumentError(
                    f"input {i + 1} is a {type(value).__name__}; expected a str or a pair of them",
                    "E_ARGUMENT")
            first, second = value if isinstance(value, tuple) else (value, None)
            _put_text(keep, inputs[i], "text", first, f"input {i + 1}")
            if second is not None:
                _put_text(keep, inputs[i], "pair", second, f"input {i + 1}")
        call(lib.sfq_encode, model, inputs, len(texts), self.c)
        self._owned = True
        return self

    def close(self) -> None:
        if self._owned:
            lib.sfq_tokens_clear(self.c)
            self._owned = False

    def lengths(self) -> list[int]:
        n = self.c.count
        return [self.c.offset[i + 1] - self.c.offset[i] for i in range(n)]


def _put_text(keep: Keep, pair: Any, name: str, value: str, what: str) -> None:
    raw = utf8(value, what)
    setattr(pair, name, keep.hold(ffi.new("char[]", raw)))
    setattr(pair, name + "_bytes", len(raw))


def _close_model(handle: Any) -> None:
    lib.sfq_model_close(handle)


def _close_generator(handle: Any) -> None:
    lib.sfq_generator_close(handle)


def model_options(threads: int, verify: bool, header_only: bool, kv_bits: int,
                  hooks: Hooks) -> Any:
    """sfq_model_options over the library's defaults."""
    options = ffi.new("sfq_model_options *")
    lib.sfq_model_options_default(options)
    assign(options, threads=threads, verify=verify, header_only=header_only, kv_bits=kv_bits)
    options.hooks = hooks.c[0]
    return options


def describe(handle: Any, verified: bool) -> ModelInfo:
    """sfq_model_info and its layers."""
    m = ffi.new("sfq_model_info *")
    layer = ffi.new("sfq_layer_info *")
    layers = []
    call(lib.sfq_model_info_get, handle, m)
    for i in range(m.layers):
        call(lib.sfq_model_layer_get, handle, i, layer)
        layers.append(Layer(layer.heads, layer.kv_heads, layer.ffn, layer.bits))
    return ModelInfo(
        path=text(m.path), architecture=text(m.architecture), family=text(m.family),
        head=text(lib.sfq_head_kind_name(m.head)), compressed=bool(m.compressed),
        parameters=m.parameters, bytes=m.bytes, bits_per_parameter=m.bits_per_parameter,
        original_parameters=m.original_parameters, original_bytes=m.original_bytes,
        reduction=m.reduction, scale_overhead=m.scale_overhead, macs_per_token=m.macs_per_token,
        activation_bits=m.activation_bits, vocab=m.vocab, max_positions=m.max_positions,
        verified=verified, layers=layers)


class Model:
    """A model that is open: a dense Hugging Face directory or an sfq artifact.

    Weights stay in the page cache. A model may be used from several threads; calls that compute
    wait for each other. Close it with `close()`, `with`, or by forgetting it.

    Args:
        model: a directory, or a Hub id ("org/name") in the local Hugging Face cache.
        threads: that compute; 0: as many as this process may use physical cores.
        verify: read every byte and compare checksums while opening.
        kv_bits: how a language model keeps keys and values: 32, 16 or 8; 0: 16 for a compressed
            model, 32 for a dense one.
        progress: True: a bar; None: a bar where stderr is a terminal; or a function that is called
            with `sfq.Progress`.

    Raises:
        NotFoundError, FormatError, ChecksumError, UnsupportedError, LimitError, NumericError,
        OutOfMemoryError, FileError: with the file and tensor that are to blame.

    Example:
        >>> with sfq.Model("small") as model:
        ...     print(model.generate("It was a dark and", max_tokens=20).text)
    """

    def __init__(self, model: PathLike, *, threads: int = 0, verify: bool = False,
                 kv_bits: int = 0, progress: ProgressOption = False) -> None:
        out = ffi.new("sfq_model **")
        with Hooks(progress) as hooks:
            options = model_options(threads, verify, False, kv_bits, hooks)
            try:
                hooks.call(lib.sfq_model_open, out, path(model, "model"), options)
            except BaseException:
                lib.sfq_model_close(out)
                raise
        self._handle: Any = out
        self._lock = threading.Lock()
        self._computing: Optional[int] = None  # the thread that computes
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._finalizer = weakref.finalize(self, _close_model, out)
        self.info: ModelInfo = describe(out[0], verify)
        labels = [lib.sfq_model_label(out[0], i) for i in range(self._label_count())]
        self.labels: list[str] = [text(label) for label in labels if label != ffi.NULL]

    def _label_count(self) -> int:
        m = ffi.new("sfq_model_info *")
        call(lib.sfq_model_info_get, self._handle[0], m)
        return int(m.labels)

    # ---- life ----

    def close(self) -> None:
        """Frees the model. Streams of it end. Closing twice is fine."""
        with self._lock:
            for stream in list(self._streams):
                stream._free()
            self._finalizer()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._finalizer.alive else ", closed"
        return f"<sfq.Model {self.info.path} ({self.info.architecture}{state})>"

    @property
    def width(self) -> int:
        """Numbers in a hidden state or embedding."""
        with self._use() as handle:
            return int(lib.sfq_model_width(handle))

    @contextmanager
    def _use(self) -> Iterator[Any]:
        """The handle, while nobody else computes with it."""
        if self._computing == threading.get_ident():
            raise errors.ArgumentError("a callback of a call on this model cannot use the model",
                                       "E_ARGUMENT", self.info.path)
        with self._lock:
            if not self._finalizer.alive:
                raise errors.ArgumentError(f"the model {self.info.path} is closed", "E_ARGUMENT",
                                           self.info.path)
            self._computing = threading.get_ident()
            try:
                yield self._handle[0]
            finally:
                self._computing = None

    # ---- text and tokens ----

    def tokenize(self, text: str, pair: Optional[str] = None, *,
                 special: bool = True) -> NDArray[np.int32]:
        """Token ids of a text.

        Args:
            text, pair: the text, and the second one of a pair.
            special: add the special tokens that the tokenizer puts around a text.

        Returns:
            int32 [n]; nothing is truncated or padded.
        """
        keep = Keep()
        raw = utf8(text, "text")
        second = None if pair is None else utf8(pair, "pair")
        special = flag(special, "special")
        ids, count = ffi.new("int32_t **"), ffi.new("size_t *")
        with self._use() as handle:
            call(lib.sfq_model_tokenize, handle, keep.hold(ffi.new("char[]", raw)), len(raw),
                 ffi.NULL if second is None else keep.hold(ffi.new("char[]", second)),
                 0 if second is None else len(second), special, ids, count)
        try:
            return _copy_ids(ids[0], count[0])
        finally:
            lib.sfq_release(ids[0])

    def detokenize(self, ids: ArrayLike, *, skip_special: bool = True) -> str:
        """The text of token ids [n]. Invalid bytes become U+FFFD, unknown ids add nothing."""
        array = _ids(ids, "ids")
        skip_special = flag(skip_special, "skip_special")
        out, size = ffi.new("char **"), ffi.new("size_t *")
        with self._use() as handle:
            call(lib.sfq_model_detokenize, handle, ffi.from_buffer("int32_t[]", array), len(array),
                 skip_special, out, size)
        try:
            return bytes(ffi.buffer(out[0], size[0])).decode("utf-8")
        finally:
            lib.sfq_release(out[0])

    # ---- numbers ----

    def _compute(self, inputs: Union[Sequence[Text], Sequence[NDArray[np.int32]]], texts: bool,
                 output: int, progress: ProgressOption) -> tuple[Floats, list[int]]:
        """[rows, columns] of sfq_compute, and the lengths of the sequences."""
        rows, columns = ffi.new("size_t *"), ffi.new("size_t *")
        with self._use() as handle, Hooks(progress) as hooks:
            tokens = (_Tokens.of_texts(handle, cast("Sequence[Text]", inputs)) if texts else
                      _Tokens.of_ids(cast("Sequence[NDArray[np.int32]]", inputs)))
            try:
                call(lib.sfq_compute_shape, handle, tokens.c, output, rows, columns)
                out = np.empty((rows[0], columns[0]), np.float32)
                hooks.call(lib.sfq_compute, handle, tokens.c, output, hooks.c,
                           ffi.from_buffer("float[]", out, require_writable=True))
                return out, tokens.lengths()
            finally:
                tokens.close()

    def _run(self, inputs: Any, output: int, by_token: bool, progress: ProgressOption) -> Any:
        """One input or many, texts or ids: an array for one or for equal lengths, else a list."""
        if isinstance(inputs, (bytes, Mapping)):
            raise wrong("inputs", inputs, _INPUTS)
        if not isinstance(inputs, np.ndarray) and not _is_text(inputs):
            inputs = items(inputs, "inputs", _INPUTS)
        single = _is_text(inputs) or _flat(inputs)
        batch = [inputs] if single else list(inputs)
        texts = len(batch) > 0 and not isinstance(batch[0], np.ndarray) and _is_text(batch[0])
        if not texts:
            batch = [_ids(ids, f"input {i + 1}") for i, ids in enumerate(batch)]
        out, lengths = self._compute(batch, texts, output, progress)
        if not by_token:
            return out[0] if single else out
        if single:
            return out
        if isinstance(inputs, np.ndarray):
            return out.reshape(len(lengths), -1, out.shape[1])
        return np.split(out, np.cumsum(lengths)[:-1]) if lengths else []

    @overload
    def logits(self, inputs: NDArray[Any], *, last: bool = ...,
               progress: ProgressOption = ...) -> Floats: ...

    @overload
    def logits(self, inputs: Union[Text, Sequence[int]], *, last: bool = ...,
               progress: ProgressOption = ...) -> Floats: ...

    @overload
    def logits(self, inputs: Sequence[Union[Text, Sequence[int], NDArray[Any]]], *,
               last: bool = ..., progress: ProgressOption = ...) -> Union[Floats, list[Floats]]: ...

    def logits(self, inputs: Any, *, last: bool = False, progress: ProgressOption = False) -> Any:
        """Logits, float32, before any softmax.

        Args:
            inputs: one input (a text, a pair of texts, or token ids [T]), or several of them (a
                list, or ids [n, T]). Texts get the special tokens of the tokenizer.
            last: language models: only after the last token of each input.
            progress: as for `Model`.

        Returns:
            Language models: [T, vocab] for one input, a list of those for several, [n, T, vocab]
            for ids [n, T]; with `last` [vocab] and [n, vocab]. Classifiers and regression heads:
            [labels] and [n, labels].

        Raises:
            UnsupportedError: an embedding model has no logits.
            DataError: ids outside the vocabulary, no tokens.
            LimitError: more tokens than the model has positions.

        Example:
            >>> model.logits("It was a dark and", last=True).argmax()
        """
        last = flag(last, "last")
        by_token = self.info.head == "language model" and not last
        output = lib.SFQ_OUTPUT_LAST if last else lib.SFQ_OUTPUT_LOGITS
        return self._run(inputs, output, by_token, progress)

    def hidden(self, inputs: Any, *, progress: ProgressOption = False) -> Any:
        """Hidden states behind the last layer and its norm, float32: [T, width] for one input, a
        list of those for several, [n, T, width] for ids [n, T]. Inputs as for `logits`."""
        return self._run(inputs, lib.SFQ_OUTPUT_HIDDEN, True, progress)

    def classify(self, inputs: Union[Text, Sequence[Any], NDArray[Any]], *,
                 progress: ProgressOption = False) -> Floats:
        """Probabilities of the labels (`Model.labels` names them); the values of a regression head.

        Inputs as for `logits`; pairs are truncated longest first to the model's positions.

        Returns:
            float32 [labels] for one input, [n, labels] for several.

        Example:
            >>> scores = model.classify(["a moving, honest film", "dull"])
            >>> [model.labels[i] for i in scores.argmax(axis=1)]
            ['positive', 'negative']
        """
        return cast(Floats, self._run(inputs, lib.SFQ_OUTPUT_SCORES, False, progress))

    def embed(self, inputs: Union[Text, Sequence[Any], NDArray[Any]], *,
              progress: ProgressOption = False) -> Floats:
        """Vectors of texts: the mean of the last hidden states; of length 1 if the model says so.

        Inputs as for `classify`.

        Returns:
            float32 [width] for one input, [n, width] for several.
        """
        return cast(Floats, self._run(inputs, lib.SFQ_OUTPUT_EMBEDDING, False, progress))

    # ---- generation ----

    def generate(self, prompt: Union[str, Sequence[int], NDArray[Any]], *, max_tokens: int = 128,
                 temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
                 stop: Union[str, Sequence[str]] = (), ignore_eos: bool = False,
                 progress: ProgressOption = False) -> Generation:
        """Continues a prompt.

        Args:
            prompt: a text (the tokenizer's special tokens are added) or token ids [n].
            max_tokens: tokens to generate at most.
            temperature: 0: the likeliest token each time; 1: as the model has it.
            top_k: sample among the k likeliest; 0: all.
            top_p: sample among the likeliest that reach this probability together.
            seed: the same seed gives the same text.
            stop: texts that end the answer; they are not part of it.
            ignore_eos: go on behind the model's end tokens.
            progress: as for `Model`.

        Raises:
            UnsupportedError: the model is no language model.
            LimitError: the prompt is longer than the model's positions.
        """
        with self.stream(prompt, max_tokens=max_tokens, temperature=temperature, top_k=top_k,
                         top_p=top_p, seed=seed, stop=stop, ignore_eos=ignore_eos,
                         progress=progress) as stream:
            for _ in stream:
                pass
            return stream.result()

    def stream(self, prompt: Union[str, Sequence[int], NDArray[Any]], *, max_tokens: int = 128,
               temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
               stop: Union[str, Sequence[str]] = (), ignore_eos: bool = False,
               progress: ProgressOption = False) -> Stream:
        """As `generate`, but returns an iterator over pieces of text as soon as they are certain.

        Example:
            >>> for piece in model.stream("It was a dark and"):
            ...     print(piece, end="", flush=True)
        """
        keep = Keep()
        options = keep.hold(ffi.new("sfq_generate_options *"))
        lib.sfq_generate_options_default(options)
        assign(options, max_tokens=max_tokens, ignore_eos=ignore_eos)
        assign(options.sampling, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        options.stop, options.stop_count = keep.strings(stop, "stop")
        raw = b""
        if isinstance(prompt, str):
            raw = utf8(prompt, "prompt")
        else:
            ids = _ids(prompt, "prompt")
            if ids.size == 0:
                raise errors.ArgumentError("the prompt has no token ids", "E_ARGUMENT")
            options.prompt_ids = keep.hold(ffi.from_buffer("int32_t[]", ids))
            options.prompt_count = ids.size
        return Stream(self, raw, options, keep, Hooks(progress))


def _flat(inputs: Any) -> bool:
    """Whether these are the ids of one sequence."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim < 2
    return len(inputs) > 0 and isinstance(inputs[0], (numbers.Number, np.generic))


def _copy_ids(pointer: Any, count: int) -> NDArray[np.int32]:
    if count == 0:
        return np.empty(0, np.int32)
    return np.frombuffer(bytes(ffi.buffer(pointer, 4 * count)), np.int32).copy()


class Stream(Iterator[str]):
    """The pieces of an answer, as `Model.stream` makes them: an iterator and a context manager.

    An exception (KeyboardInterrupt too) leaves it usable: iterating again goes on."""

    def __init__(self, model: Model, prompt: bytes, options: Any, keep: Keep, hooks: Hooks) -> None:
        self._model = model
        self._keep = keep
        self._hooks = hooks
        self._waiting: Optional[str] = None  # a piece that an exception held up
        options.hooks = hooks.c[0]
        out = ffi.new("sfq_generator **")
        with model._use() as handle:
            try:
                hooks.call(lib.sfq_generator_open, out, handle, prompt, len(prompt), options)
            except BaseException:
                lib.sfq_generator_close(out)
                raise
            self._handle = out
            self._finalizer = weakref.finalize(self, _close_generator, out)
            model._streams.add(self)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        piece, size = ffi.new("const char **"), ffi.new("size_t *")
        with self._model._use():
            self._check()
            if self._waiting is None:
                error = new_error()
                status = lib.sfq_generator_next(self._handle[0], piece, size, error)
                if status == lib.SFQ_OK:
                    raw = bytes(ffi.buffer(piece[0], size[0]))
                    self._waiting = raw.decode("utf-8")
                self._hooks.check()
                if status != lib.SFQ_OK:
                    raise exception(status, error)
            ready, self._waiting = self._waiting, None
            if not ready:
                self._hooks.__exit__(None, None, None)
                raise StopIteration
            return ready

    def result(self) -> Generation:
        """The answer as far as it was handed out; finish is "cancelled" before the end."""
        g = ffi.new("sfq_generation *")
        with self._model._use():
            self._check()
            call(lib.sfq_generator_result, self._handle[0], g)
        try:
            return Generation(
                text=bytes(ffi.buffer(g.text, g.text_bytes)).decode("utf-8"),
                tokens=_copy_ids(g.tokens, g.token_count), prompt_tokens=g.prompt_tokens,
                finish=text(g.finish), prefill_seconds=g.prefill_seconds,
                decode_seconds=g.decode_seconds)
        finally:
            lib.sfq_generation_clear(g)

    def close(self) -> None:
        """Frees what the answer needs; closing twice is fine."""
        with self._model._lock:
            self._free()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()

    def _check(self) -> None:
        if not self._finalizer.alive:
            raise errors.ArgumentError("the stream is closed", "E_ARGUMENT")

    def _free(self) -> None:
        self._hooks.__exit__(None, None, None)
        self._finalizer()
