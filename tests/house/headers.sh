#!/bin/sh
# Each public header compiles alone: as C99 without extensions, as C17, and as C++.
# usage: headers.sh COMPILER
set -eu
cc=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$(dirname "$0")/../.."
count=0
for header in include/sfq/*.h; do
    name=sfq/$(basename "$header")
    printf '#include <%s>\nint main(void) { return 0; }\n' "$name" >"$work/alone.c"
    for mode in "c -std=c99" "c -std=c17" "c++ -std=c++11"; do
        # $mode is a language and its standard, two words.
        # shellcheck disable=SC2086
        if ! "$cc" -x $mode -pedantic -Wall -Wextra -Werror -Iinclude -fsyntax-only "$work/alone.c"
        then
            echo "headers: $name does not compile alone as $mode" >&2
            exit 1
        fi
        count=$((count + 1))
    done
done
echo "headers: $count compilations"
