#!/bin/sh
# libsfq.so exports exactly what the public headers declare with SFQ_API, and the library keeps no
# mutable variable of its own (what the loader relocates once counts as constant).
# usage: symbols.sh LIBSFQ.SO NM ARCHIVE...
set -eu
so=$1
nm=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$(dirname "$0")/../.."
# A declaration may span lines: everything from SFQ_API to the bracket, on one line.
cat include/sfq/*.h | tr '\n' ' ' | grep -oE 'SFQ_API [^(;]*\(' | grep -oE 'sfq_[a-z0-9_]+ ?\($' |
    tr -d ' (' | sort -u >"$work/declared"
"$nm" -D --defined-only "$so" | awk '{ print $NF }' | sort -u >"$work/exported"
diff "$work/declared" "$work/exported" >"$work/diff" || {
    echo "symbols: < declared only, > exported only" >&2
    cat "$work/diff" >&2
    exit 1
}
"$nm" -f sysv "$@" | awk -F'|' '$7 ~ /^\.(bss|data|tbss|tdata)/ && $7 !~ /^\.data\.rel\.ro/ &&
    $4 ~ /OBJECT/ { print $1, $7 }' >"$work/mutable"
if [ -s "$work/mutable" ]; then
    echo "symbols: mutable variables in the library:" >&2
    cat "$work/mutable" >&2
    exit 1
fi
echo "symbols: $(wc -l <"$work/exported") public functions, no mutable variable"
