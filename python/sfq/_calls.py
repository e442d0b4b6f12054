"""The calls that need no open model: compress, plan, export, evaluate, inspect, environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Union

from . import errors, results
from ._model import Model, describe, model_options
from ._native import (Hooks, Keep, PathLike, ProgressOption, assign, call, exception, ffi, flag,
                      items, lib, new_error, path, text as c_text, wrong)

Texts = Union[PathLike, Sequence[PathLike], None]


def _paths(value: Texts) -> list[bytes]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, os.PathLike)):
        return [path(value, "text")]
    return [path(item, "text") for item in items(value, "text", "a path, or a list of them")]


def _rules(value: Any) -> list[tuple[Any, Any]]:
    """Pairs of a regular expression and bits."""
    wanted = "a dict of bits by regular expression"
    pairs = items(value.items() if isinstance(value, Mapping) else value, "bits_for", wanted)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise wrong("bits_for", value, wanted)
    return [(regex, bits) for regex, bits in pairs]


def _compress_options(keep: Keep, hooks: Hooks, model: PathLike, output: Optional[PathLike],
                      given: Mapping[str, Any]) -> Any:
    o = keep.hold(ffi.new("sfq_compress_options *"))
    lib.sfq_compress_options_default(o)
    values = dict(given)
    rules = _rules(values.pop("bits_for"))
    o.bits_for = keep.hold(ffi.new("sfq_bits_rule[]", len(rules)))
    o.bits_for_count = len(rules)
    for i, (regex, bits) in enumerate(rules):
        o.bits_for[i].regex = keep.string(regex, "bits_for")
        assign(o.bits_for[i], bits=bits)
    o.keep, o.keep_count = keep.strings(values.pop("keep"), "keep")
    o.text_files, o.text_count = keep.strings(_paths(values.pop("text")), "text")
    for name in ("recipe", "task", "pick", "saliency"):
        value = values.pop(name)
        if value is not None:
            setattr(o, name, keep.string(value, name))
    data = values.pop("data")
    if data is not None:
        o.data = keep.string(path(data, "data"), "data")
    assign(o, **values)
    o.model = keep.string(path(model, "model"), "model")
    o.output = keep.string(None if output is None else path(output, "output"), "output")
    o.hooks = hooks.c[0]
    return o


def compress(model: PathLike, output: PathLike, *, recipe: Optional[str] = None,
             prune: Optional[float] = None, bits: Optional[int] = None,
             embedding_bits: Optional[int] = None, activation_bits: Optional[int] = None,
             task: Optional[str] = None, data: Optional[PathLike] = None, text: Texts = None,
             calib_fraction: Optional[float] = None, calib_tokens: Optional[int] = None,
             calib_length: Optional[int] = None, pick: Optional[str] = None,
             saliency: Optional[str] = None, rounds: Optional[int] = None,
             uniform: bool = False, steps: Optional[int] = None, minutes: Optional[float] = None,
             keep: Union[str, Iterable[str]] = (),
             bits_for: Union[Mapping[str, int], Iterable[tuple[str, int]]] = (),
             max_drop: Optional[float] = None, seed: int = 0, threads: int = 0,
             keep_stages: bool = False, force: bool = False,
             progress: ProgressOption = None) -> results.Compression:
    """Compresses a checkpoint: prune, fuse, recalibrate. The same as `sfq compress`.

    None means the library's default (`sfq compress --help` names it). The same input, options and
    seed give the same bytes at any thread count.

    Args:
        model: a directory, or a Hub id in the local Hugging Face cache.
        output: the directory of the artifact; must not exist unless `force`.
        recipe: "sfq".
        prune: share of the attention and FFN parameters to remove, 0 to below 1 (0.40).
        bits: per weight of the matrices, 2..8 (8).
        embedding_bits: per weight of embedding tables and output heads, 2..8 (8).
        activation_bits: to which the matrices' inputs are rounded at run time, 8..14; 0: 12 for
            language models' down from 5 bits on and heads from 7 on and encoders' v from 6 on, 8
            for the others (0).
        task, data: calibrate on a task's train split in a directory, measure on its dev split.
        text: file or files; calibrate on them, measure perplexity on a part set aside.
        calib_fraction, calib_tokens: how much of it to calibrate on (0.5 %, with a floor).
        calib_length: tokens of a sequence of text (256).
        pick: how calibration is chosen: "curated" or "random".
        saliency: what a head or neuron is judged by: "fisher", "taylor", "magnitude", "error".
        rounds: of pruning, 1..16.
        uniform: the same widths in every layer.
        steps: recalibration steps at most, 0: none.
        minutes: ceiling on the whole run (30); 0: none.
        keep: regular expressions; tensors that match stay whole and 16 bit.
        bits_for: other bits (2..8, 16) by regular expression; the last that matches counts.
        max_drop: points; a larger drop raises `GuardError`, the output kept as NAME.rejected.
        seed: of everything random.
        threads: 0: as many as this process may use physical cores.
        keep_stages: leave the model after each stage, too (OUTPUT.pruned, ...).
        force: replace an output that exists.
        progress: None: bars where stderr is a terminal; True; False; or a function that is called
            with `sfq.Progress`. An exception in it ends the call.

    Raises:
        GuardError: the drop is above max_drop; its `result` says what was measured.
        ExistsError, NotFoundError, FormatError, DataError, ArgumentError, UnsupportedError,
        NoSpaceError, OutOfMemoryError: with the output path as it was before.
        KeyboardInterrupt: on Ctrl-C; OUTPUT.work stays, from which the same call goes on.

    Example:
        >>> sfq.compress("models/novels-5m", "small", prune=0.2, embedding_bits=4, text="book.txt")
    """
    given = {k: v for k, v in locals().items() if k not in ("model", "output", "progress")}
    storage = Keep()
    result = ffi.new("sfq_compress_result *")
    with Hooks(progress) as hooks:
        options = _compress_options(storage, hooks, model, output, given)
        error = new_error()
        status = lib.sfq_compress(options, result, error)
        hooks.check()
    if status == lib.SFQ_OK:
        return results.compression(result)
    raised = exception(status, error)
    if isinstance(raised, errors.GuardError):
        raised.result = results.compression(result)
    raise raised


def plan(model: PathLike, *, prune: Optional[float] = None, bits: Optional[int] = None,
         embedding_bits: Optional[int] = None, activation_bits: Optional[int] = None,
         task: Optional[str] = None, data: Optional[PathLike] = None, text: Texts = None,
         calib_fraction: Optional[float] = None, calib_tokens: Optional[int] = None,
         calib_length: Optional[int] = None, steps: Optional[int] = None,
         minutes: Optional[float] = None, uniform: bool = False,
         keep: Union[str, Iterable[str]] = (),
         bits_for: Union[Mapping[str, int], Iterable[tuple[str, int]]] = (), threads: int = 0,
         progress: ProgressOption = False) -> results.Plan:
    """Sizes, memory, disk and time of a compression, without doing it. Arguments as `compress`."""
    given = {k: v for k, v in locals().items() if k not in ("model", "progress")}
    given.update(recipe=None, pick=None, saliency=None)
    storage = Keep()
    result = ffi.new("sfq_compress_result *")
    with Hooks(progress) as hooks:
        options = _compress_options(storage, hooks, model, None, given)
        hooks.call(lib.sfq_compress_plan, options, result)
    return results.plan(result)


def export(model: PathLike, output: PathLike, *, threads: int = 0, force: bool = False,
           progress: ProgressOption = None) -> results.Export:
    """Writes a plain 16-bit Hugging Face checkpoint of any model, which stock Transformers loads.

    Checksums are verified first. Arguments as `compress`.
    """
    storage = Keep()
    o, r = ffi.new("sfq_export_options *"), ffi.new("sfq_export_result *")
    lib.sfq_export_options_default(o)
    o.model = storage.string(path(model, "model"), "model")
    o.output = storage.string(path(output, "output"), "output")
    o.force = flag(force, "force")
    assign(o, threads=threads)
    with Hooks(progress) as hooks:
        o.hooks = hooks.c[0]
        hooks.call(lib.sfq_export, o, r)
    return results.Export(output=c_text(r.output), format=c_text(o.format), bytes=r.bytes,
                          parameters=r.parameters, heads=r.heads, kv_heads=r.kv_heads, ffn=r.ffn,
                          padded=bool(r.padded))


def inspect(model: PathLike, *, verify: bool = False,
            progress: ProgressOption = None) -> results.ModelInfo:
    """What a model directory holds, without opening its weights.

    Args:
        model: a directory, or a Hub id in the local Hugging Face cache.
        verify: read every byte: checksums of an artifact (ChecksumError names the tensor), finite
            numbers (NumericError).
        progress: as for `compress`.
    """
    out = ffi.new("sfq_model **")
    with Hooks(progress) as hooks:
        try:
            hooks.call(lib.sfq_model_open, out, path(model, "model"),
                       model_options(0, False, True, 0, hooks))
            if flag(verify, "verify"):
                hooks.call(lib.sfq_model_verify, out[0], hooks.c)
            return describe(out[0], verify)
        finally:
            lib.sfq_model_close(out)


def evaluate(model: Union[PathLike, Model], *, task: Optional[str] = None,
             data: Optional[PathLike] = None, split: str = "dev", text: Texts = None,
             context: int = 0, max_tokens: int = 0, batch: int = 0,
             against: Union[PathLike, Model, None] = None, threads: int = 0,
             progress: ProgressOption = None) -> results.Evaluation:
    """Measures a model on a task or on text. The same as `sfq eval`.

    Args:
        model: an open `Model`, a directory, or a Hub id.
        task, data, split: a task's name (or any name for your own data), the directory of its
            data, the file to read there.
        text: file or files; perplexity of each as one string.
        context: tokens per chunk of text; 0: the model's positions, at most 2048.
        max_tokens: stop after so many scored tokens; 0: all.
        batch: sequences at a time, 0: chosen; never changes a result.
        against: a reference for KL divergence, same top-1 and flips.
        threads: of models that are opened here.
        progress: as for `compress`.

    Raises:
        ArgumentError: neither or both of task and text.
        DataError, NotFoundError: about the data. UnsupportedError: head and task do not fit.
    """
    if not isinstance(model, Model):
        with Model(model, threads=threads) as opened:
            return evaluate(opened, task=task, data=data, split=split, text=text, context=context,
                            max_tokens=max_tokens, batch=batch, against=against, threads=threads,
                            progress=progress)
    if against is not None and not isinstance(against, Model):
        with Model(against, threads=threads) as opened:
            return evaluate(model, task=task, data=data, split=split, text=text, context=context,
                            max_tokens=max_tokens, batch=batch, against=opened, progress=progress)
    storage = Keep()
    o, r = ffi.new("sfq_eval_options *"), ffi.new("sfq_eval_result *")
    lib.sfq_eval_options_default(o)
    o.task = storage.string(task, "task")
    o.data = storage.string(None if data is None else path(data, "data"), "data")
    o.split = storage.string(split, "split")
    o.text_files, o.text_count = storage.strings(_paths(text), "text")
    assign(o, context=context, max_tokens=max_tokens, batch=batch)
    with Hooks(progress) as hooks:
        o.hooks = hooks.c[0]
        with model._use() as handle:
            if against is None or against is model:
                o.against = handle if against is model else ffi.NULL
                hooks.call(lib.sfq_evaluate, handle, o, r)
                return results.evaluation(r)
            with against._use() as other:
                o.against = other
                hooks.call(lib.sfq_evaluate, handle, o, r)
                return results.evaluation(r)


def environment() -> results.Environment:
    """The build, and what it found on this machine. The same as `sfq env`."""
    e = ffi.new("sfq_environment *")
    call(lib.sfq_environment_get, e)
    return results.Environment(
        version=c_text(e.version), compiler=c_text(e.compiler), build_type=c_text(e.build_type),
        isa=c_text(e.isa), isa_detected=c_text(e.isa_detected), cpu=c_text(e.cpu),
        threads=e.threads, threads_affinity=e.threads_affinity, threads_cores=e.threads_cores,
        threads_quota=e.threads_quota, memory_available=e.memory_available,
        libraries=c_text(e.libraries))
