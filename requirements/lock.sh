#!/bin/sh
# Writes requirements/<extra>.txt: one resolution of everything, then its part for each extra, so
# that any two of them fit into one environment. Releases younger than a week are left out: most
# malicious ones are found sooner.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.venv/bin/python - >"$work/build.in" <<'PY'
import pathlib, tomllib
print("\n".join(tomllib.loads(pathlib.Path("pyproject.toml").read_text())["build-system"]["requires"]))
PY

resolve() {
    output=$1
    shift
    .venv/bin/uv pip compile pyproject.toml "$work/build.in" "$@" \
        --universal --python-version 3.11 --exclude-newer "7 days" \
        --generate-hashes --no-emit-package deepkits --no-emit-index-url --no-emit-find-links \
        --no-annotate --custom-compile-command "make lock" --quiet --output-file "$output"
    echo "$output"
}

resolve "$work/all.txt" --all-extras
for extra in train convert executorch rtx line defect medical serve grpc otel ray edge fraud; do
    resolve "requirements/$extra.txt" --upgrade --constraints "$work/all.txt" --extra "$extra"
done
# What the tests need: the development tools and the extras that they import.
resolve requirements/dev.txt --upgrade --constraints "$work/all.txt" \
    --extra dev --extra fraud --extra defect --extra medical --extra serve --extra grpc --extra otel --extra ray --extra edge \
    --extra executorch --extra rtx
