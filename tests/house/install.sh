#!/bin/sh
# The installed library as a stranger meets it: install into an empty prefix, build the example
# outside the tree with pkg-config alone, run it and the installed program.
# usage: install.sh BUILD-DIR COMPILER
set -eu
build=$1
cc=$2
models=$(cd "$(dirname "$0")/../../models" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$(dirname "$0")/../../examples/complete.c" "$work/"

cmake --install "$build" --prefix "$work/prefix" >"$work/install.log"
pc=$(find "$work/prefix" -name sfq.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir sfq)

# pkg-config prints words for the command line.
# shellcheck disable=SC2046
"$cc" -std=c99 -Wall -Wextra -Werror "$work/complete.c" -o "$work/complete" \
    $(pkg-config --cflags --libs sfq) -Wl,-rpath,"$libdir"
"$work/complete" "$models/novels-5m" "It was a dark and" >"$work/out"
cat "$work/out"
grep -q ' tokens, ' "$work/out"
if "$work/complete" "$work/no-such-model" "x" 2>"$work/err"; then
    echo "install: a missing model was accepted" >&2
    exit 1
fi
grep -q no-such-model "$work/err"

for file in bin/sfq share/man/man1/sfq.1 share/man/man1/sfq-compress.1 \
    share/bash-completion/completions/sfq share/zsh/site-functions/_sfq \
    share/fish/vendor_completions.d/sfq.fish; do
    test -s "$work/prefix/$file" || {
        echo "install: $file is missing" >&2
        exit 1
    }
done
"$work/prefix/bin/sfq" --version
