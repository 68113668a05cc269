#!/bin/sh
# collect.sh - takes out of a submission what is to be graded, and nothing else:  sh collect.sh SUBMISSION OUT FILE...
#
# SUBMISSION is a directory or a .zip; a folder, or one .zip, that is alone at its top is opened. A FILE may be where the project has it,
# or at the top without its directory. Only regular files of at most a megabyte are taken: no link is followed, none is copied. What is
# there and is not taken stands in OUT/refused, with the reason.
set -u
submission=$1 out=$2
shift 2
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -p "$out"
: > "$out/refused"
refuse() { printf '%s\t%s\n' "$1" "$2" >> "$out/refused"; }

# open_archive FILE: its contents in a directory of their own, which is printed; with limits, for it may hold more than it seems to
open_archive() {
    mkdir "$dir/archive"
    ( ulimit -f 40000; ulimit -t 20
      if command -v unzip > /dev/null; then unzip -q -o "$1" -d "$dir/archive"; else python3 -m zipfile -e "$1" "$dir/archive"; fi ) > /dev/null 2>&1 ||
        refuse '*' "${1##*/} cannot be opened, or holds more than it should"
    echo "$dir/archive"
}

at=$submission depth=0
while [ $depth -lt 4 ]; do
    depth=$((depth + 1))
    if [ -f "$at" ] && [ $depth -le 3 ] && [ ! -d "$dir/archive" ]; then at=$(open_archive "$at"); continue; fi
    [ -d "$at" ] || break
    alone=
    for entry in "$at"/*; do
        case ${entry##*/} in __MACOSX | refused | '*') continue ;; esac
        alone="${alone:+several}${alone:-$entry}"
    done
    [ -n "$alone" ] && [ -e "$alone" ] && [ ! -L "$alone" ] || break
    case ${alone##*/} in assignments | *.c) break ;; esac
    if [ -d "$alone" ]; then at=$alone; else case $alone in *.zip) at=$alone ;; *) break ;; esac fi
done

for file; do
    for from in "$at/$file" "$at/${file##*/}"; do
        [ -e "$from" ] || [ -L "$from" ] || continue
        if [ -L "$from" ] || { [ "${from%/*}" != "$at" ] && [ -L "${from%/*}" ]; }; then
            refuse "$file" "is a symbolic link, or in one: hand in the file itself"
        elif [ ! -f "$from" ]; then refuse "$file" "is no regular file"
        elif [ "$(wc -c < "$from")" -gt 1000000 ]; then refuse "$file" "is longer than a megabyte"
        else
            case $file in */*) mkdir -p "$out/${file%/*}" ;; esac
            cp "$from" "$out/$file" && break
        fi
    done
done
