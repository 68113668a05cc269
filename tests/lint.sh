#!/bin/sh
# lint.sh clang-tidy|cppcheck - runs one of the two over the book, the programs, io/, plots/, bench/, web/ and what the experiments share.
# Silent if it finds nothing.
cd "$(dirname "$0")/.." || exit 1
flags='-std=c11 -D_POSIX_C_SOURCE=200809L -DREAL=float -I.'
case $1 in
clang-tidy) # the headers' findings come with the files that include them
    for file in *.c fast/*.c io/*.c plots/*.c bench/[!l]*.c experiments/[!q]*.c experiments/regret/*.c web/*.c; do
        clang-tidy --quiet --config-file=tests/clang-tidy.yaml "$file" -- $flags 2> /dev/null || status=1
    done
    exit ${status:-0} ;;
cppcheck) # exhaustive where it asks for it; what it is told not to report stands in the list with its reason
    cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --std=c11 --library=posix \
        --suppressions-list=tests/cppcheck.txt -D_POSIX_C_SOURCE=200809L -DREAL=float -I. \
        ./*.c fast/*.c io/*.c plots/*.c bench/[!l]*.c experiments/[!q]*.c experiments/regret/*.c web/*.c ;;
*) echo "lint.sh: clang-tidy or cppcheck?" >&2; exit 2 ;;
esac
