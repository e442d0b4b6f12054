#!/usr/bin/env python3
"""One encoder of another library, kept open and timed on demand: bench/peers.py starts one process
per library, so that rounds of all of them can be interleaved without loading anything again.

    peer_encoders.py LIBRARY VARIANT FOLDER THREADS     (onnxruntime, openvino, ctranslate2)

Reads lines {"batch": B, "length": L, "seconds": S} from stdin; answers each with the median seconds
of a pass: {"seconds": ..., "runs": ...}. Runs under the Python of peers.py's environment.
"""

import json
import os
import pathlib
import statistics
import sys
import time

import numpy as np


def onnxruntime(variant, folder, threads):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(folder / f"{variant}.onnx"), options,
                                   providers=["CPUExecutionProvider"])

    def make(ids):
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return lambda: session.run(None, feed)
    return make


def openvino(variant, folder, threads):
    import openvino as ov
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(str(folder / f"{variant}.xml")), "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1})
    request = compiled.create_infer_request()

    def make(ids):
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)
    return make


def ctranslate2(variant, folder, threads):
    import ctranslate2 as ct2
    encoder = ct2.Encoder(str(folder / "ct2"), device="cpu", compute_type=variant,
                          intra_threads=threads, inter_threads=1)

    def make(ids):
        lists = ids.tolist()
        return lambda: np.array(encoder.forward_batch(lists).last_hidden_state)
    return make


def measure(run, seconds):
    """Passes for `seconds` after a warm-up; at least three."""
    for _ in range(3):
        run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return {"seconds": statistics.median(times), "runs": len(times)}


def main():
    library, variant, folder, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print is no answer
    makers = {"onnxruntime": onnxruntime, "openvino": openvino, "ctranslate2": ctranslate2}
    make = makers[library](variant, pathlib.Path(folder), int(threads))
    rng = np.random.default_rng(0)
    passes = {}
    for line in sys.stdin:
        ask = json.loads(line)
        shape = ask["batch"], ask["length"]
        if shape not in passes:
            passes[shape] = make(rng.integers(5, 30522, shape, np.int64))
        print(json.dumps(measure(passes[shape], ask["seconds"])), file=answers)


if __name__ == "__main__":
    main()
