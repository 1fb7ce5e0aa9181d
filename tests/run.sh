#!/bin/bash
# All checks and all tests. On a fresh Debian machine it installs what they need first (as root).
#   tests/run.sh [ARGUMENTS OF PYTEST]        such as --slow, -k gc, -n 0, tests/test_layout.py
# Without root, tests whose servers are missing are skipped, and it says so; with CI set, they fail.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/environment.sh

servers=(docker-registry skopeo ceph-mon ceph-osd radosgw ceph-common libgoogle-perftools4 redis-server curl)

if ! need_packages "${servers[@]}"; then
  [ -z "${CI:-}" ] || fail "CI needs all of them"
  say "Going on: tests that need them are SKIPPED"
fi
make_venv '[test,redis]'

# Programs are started hundreds of times: compile their modules once.
unset PYTHONDONTWRITEBYTECODE

bin=.venv/bin
quietly "$bin/ruff" format --check . || fail "run $bin/ruff format"
quietly "$bin/ruff" check .
quietly "$bin/mypy"
exec "$bin/python" -m pytest -n 2 --dist loadfile --cov --cov-report=term "$@" </dev/null
