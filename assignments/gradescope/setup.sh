#!/usr/bin/env bash
# setup.sh - Gradescope runs this once, as root, when it builds the image: what the grader needs is a C compiler, awk and unzip.
set -e
apt-get update
apt-get install -y --no-install-recommends gcc libc6-dev make mawk unzip
