"""What calls return: frozen dataclasses with the keys of the command line's JSON, so that
`dataclasses.asdict(sfq.inspect(path))` is the object of `sfq inspect path --json`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from ._native import text


def _number(value: float) -> Optional[float]:
    """None where the library has no value."""
    return None if math.isnan(value) else value


# ---- models --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One layer: query heads and KV heads that it keeps, FFN width, and stored bits per weight of
    its matrices, padding and scales counted."""

    heads: int
    kv_heads: int
    ffn: int
    bits: float


@dataclass(frozen=True)
class ModelInfo:
    """What a model directory holds.

    Attributes:
        path: the directory that was opened.
        architecture: as in config.json, e.g. "LlamaForCausalLM".
        family: "llama", "bert", ...
        head: "language model", "classifier", "regression" or "embedding".
        compressed: whether it is an sfq artifact.
        parameters: as stored now, tied ones once.
        bytes: of all weight files.
        bits_per_parameter: 8 * bytes / original_parameters.
        original_parameters: before compression.
        original_bytes: 2 * original_parameters (16 bits each).
        reduction: 1 - bytes / original_bytes.
        scale_overhead: scales / quantized weights, 0 for a dense model.
        macs_per_token: multiply-adds in the matrices for one token.
        activation_bits: the widest integer activations; 32 for a dense model (floats).
        vocab: tokens of the vocabulary.
        max_positions: tokens that a sequence may have.
        verified: whether every byte was read and checked.
        layers: one entry for each layer.
    """

    path: str
    architecture: str
    family: str
    head: str
    compressed: bool
    parameters: int
    bytes: int
    bits_per_parameter: float
    original_parameters: int
    original_bytes: int
    reduction: float
    scale_overhead: float
    macs_per_token: int
    activation_bits: int
    vocab: int
    max_positions: int
    verified: bool
    layers: list[Layer]


# ---- compression ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pruned:
    """What pruning removed: heads, FFN neurons, and their share of the prunable parameters."""

    heads: int
    neurons: int
    fraction: float


@dataclass(frozen=True)
class Calibration:
    """The data that was used: sequences, tokens, and their share of all (0: sampled)."""

    sequences: int
    tokens: int
    fraction: float


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline: its held-out loss (None where nothing was measured) and steps."""

    name: str
    seconds: float
    loss: Optional[float]
    steps: int


@dataclass(frozen=True)
class Measure:
    """A metric and its value (0..1; correlations -1..1; perplexity)."""

    metric: str
    value: float


@dataclass(frozen=True)
class Compression:
    """What a compression did.

    Attributes:
        output: the directory of the artifact.
        recipe: "sfq".
        original_bytes, bytes: 16-bit size of the original, size of the artifact's weight files.
        reduction: 1 - bytes / original_bytes.
        scale_overhead: scales / quantized weights.
        pruned, calibration, stages: what was removed, what data was used, how long it took.
        baseline, compressed: the metric before and after; None without data to measure on.
        drop: points (100 * (baseline - compressed)); for perplexity the increase in %.
        seconds: of the whole run.
        stopped_by: "done", or "time" where `minutes` ended it.
    """

    output: str
    recipe: str
    original_bytes: int
    bytes: int
    reduction: float
    scale_overhead: float
    pruned: Pruned
    calibration: Calibration
    stages: list[Stage]
    baseline: Optional[Measure]
    compressed: Optional[Measure]
    drop: Optional[float]
    seconds: float
    stopped_by: str


@dataclass(frozen=True)
class PlanCost:
    """What a compression would take: memory, disk, time."""

    memory_bytes: int
    disk_bytes: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A compression that was planned, not done: sizes as it would write them."""

    recipe: str
    original_bytes: int
    bytes: int
    reduction: float
    scale_overhead: float
    pruned: Pruned
    plan: PlanCost


def _pruned(r: Any) -> Pruned:
    return Pruned(r.pruned_heads, r.pruned_neurons, r.pruned_fraction)


def compression(r: Any) -> Compression:
    """Of an sfq_compress_result."""
    metric = text(r.metric)
    stages = [Stage(text(s.name), s.seconds, _number(s.loss), s.steps)
              for s in r.stages[0:r.stage_count]]
    return Compression(
        output=text(r.output), recipe=text(r.recipe), original_bytes=r.original_bytes,
        bytes=r.bytes, reduction=r.reduction, scale_overhead=r.scale_overhead, pruned=_pruned(r),
        calibration=Calibration(r.calibration_sequences, r.calibration_tokens,
                                r.calibration_fraction),
        stages=stages,
        baseline=Measure(metric, r.baseline) if r.measured else None,
        compressed=Measure(metric, r.compressed) if r.measured else None,
        drop=r.drop if r.measured else None,
        seconds=r.seconds, stopped_by=text(r.stopped_by))


def plan(r: Any) -> Plan:
    """Of an sfq_compress_result that sfq_compress_plan filled."""
    return Plan(recipe=text(r.recipe), original_bytes=r.original_bytes, bytes=r.bytes,
                reduction=r.reduction, scale_overhead=r.scale_overhead, pruned=_pruned(r),
                plan=PlanCost(r.plan_memory_bytes, r.plan_disk_bytes, r.plan_seconds))


@dataclass(frozen=True)
class Export:
    """A plain checkpoint that was written.

    Attributes:
        output: its directory.
        format: "dense".
        bytes: of the weight file.
        parameters: stored, padding included.
        heads, kv_heads, ffn: the widths that all its layers have.
        padded: whether narrower layers got zero units.
    """

    output: str
    format: str
    bytes: int
    parameters: int
    heads: int
    kv_heads: int
    ffn: int
    padded: bool


# ---- evaluation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """How good a model is.

    Attributes:
        task: the task's name; None for text.
        metric: the task's main metric; "perplexity" for text.
        value: of that metric.
        metrics: all metrics of the task by name.
        n: examples.
        perplexity, nll: of text (natural logarithm); 0 for a task.
        tokens: that were scored.
        kl_mean, kl_p999: KL divergence from `against`, mean and 99.9th percentile; None without
            a comparison, and where the answers are no distributions.
        same_top1: share of answers with the same top label or token.
        flips: answers whose top label or token changed.
        isa: the kernels that computed it.
        activation_bits: 32 for floats.
        seconds: of the evaluation.
    """

    task: Optional[str]
    metric: str
    value: float
    metrics: dict[str, float]
    n: int
    perplexity: float
    nll: float
    tokens: int
    kl_mean: Optional[float]
    kl_p999: Optional[float]
    same_top1: Optional[float]
    flips: Optional[int]
    isa: str
    activation_bits: int
    seconds: float


def evaluation(r: Any) -> Evaluation:
    """Of an sfq_eval_result."""
    metrics = {text(m.name): float(m.value) for m in r.metrics[0:r.metric_count]}
    compared = bool(r.compared)
    return Evaluation(
        task=text(r.task) or None, metric=text(r.metric), value=r.value, metrics=metrics, n=r.n,
        perplexity=r.perplexity, nll=r.nll, tokens=r.tokens,
        kl_mean=_number(r.kl_mean) if compared else None,
        kl_p999=_number(r.kl_p999) if compared else None,
        same_top1=_number(r.same_top1) if compared else None,
        flips=r.flips if compared else None,
        isa=text(r.isa), activation_bits=r.activation_bits, seconds=r.seconds)


# ---- generation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Generation:
    """An answer.

    Attributes:
        text: without the prompt, the stop text and the end token.
        tokens: int32 [n], the ids that were generated, an end token not included.
        prompt_tokens: of the prompt.
        finish: "stop" (end token), "text" (stop text), "length", or "cancelled" before the end.
        prefill_seconds, decode_seconds: reading the prompt, generating.
    """

    text: str
    tokens: NDArray[np.int32] = field(compare=False)
    prompt_tokens: int
    finish: str
    prefill_seconds: float
    decode_seconds: float


# ---- the machine ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """The build and what it found on this machine.

    Attributes:
        version, compiler, build_type: of libsfq.
        isa: the best kernels in use; isa_detected: before the cap SFQ_MAX_ISA.
        cpu: its name.
        threads: the default number; threads_affinity, threads_cores, threads_quota: what it comes
            from (processors allowed, physical cores among them, cgroup quota or 0).
        memory_available: bytes.
        libraries: third-party libraries and their versions.
    """

    version: str
    compiler: str
    build_type: str
    isa: str
    isa_detected: str
    cpu: str
    threads: int
    threads_affinity: int
    threads_cores: int
    threads_quota: float
    memory_available: int
    libraries: str
