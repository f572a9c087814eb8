#!/usr/bin/env bash
# All checks, from nothing: makes .venv, installs, lints, checks formatting and types, runs the tests.
#
#   scripts/test.sh                        everything
#   scripts/test.sh tests/portfolio -k gap only pytest, with these arguments
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment "plot,text,ray,dev"

export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 # tests run in parallel, one thread each
if [ $# -eq 0 ]; then
    echo "== ruff =="
    ruff check .
    ruff format --check .
    echo "== mypy =="
    mypy
    echo "== pytest =="
fi
exec python -m pytest -n "${PALM_TEST_WORKERS:-2}" --dist loadfile "$@"
