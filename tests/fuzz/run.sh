#!/bin/sh
# Every fuzz target of BUILD-DIR for SECONDS, from the committed corpus; new inputs stay in the
# build directory. A finding ends the run with its file and the line that replays it.
# usage: run.sh BUILD-DIR SECONDS
set -eu
build=$1
seconds=$2
corpus=$(dirname "$0")/corpus
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export UBSAN_OPTIONS
for target in safetensors config tokenizer artifact; do
    mkdir -p "$build/fuzz/$target"
    printf '== fuzz %s, %s s\n' "$target" "$seconds"
    "$build/bin/fuzz_$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 \
        -max_len=65536 -print_final_stats=1 -artifact_prefix="$build/fuzz/$target-" \
        "$build/fuzz/$target" "$corpus/$target" >"$build/fuzz/$target.log" 2>&1 || {
        tail -n 30 "$build/fuzz/$target.log"
        printf 'replay: %s/bin/fuzz_%s FILE\n' "$build" "$target"
        exit 1
    }
    grep -E 'number_of_executed_units|new_units_added|peak_rss_mb' "$build/fuzz/$target.log"
done
