#!/usr/bin/env bash
# The test command: makes its own environment, builds the wheel, and checks it.
#   scripts/test.sh           lint, types, tests, doctests
#   scripts/test.sh --slow    what is heavy: the tests marked slow, and the demo from end to end
#   scripts/test.sh -k name   further arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

marker="not slow"
if [[ "${1:-}" == "--slow" ]]; then
  marker="slow"
  shift
fi

environment="${TEST_VENV:-.venv-test}"
python="$environment/bin/python"
# One thread a process: the tests run side by side, and oversubscribed threads are many times slower.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg WANDB_MODE=offline
export HYPOTHESIS_PROFILE="${HYPOTHESIS_PROFILE:-ci}" PIP_DISABLE_PIP_VERSION_CHECK=1

if [[ ! -x "$python" ]]; then
  "${PYTHON:-python3}" -m venv "$environment"
fi
wheels="$environment/wheels"
rm -rf "$wheels"
# The tests run against the wheel that users get, not against the source tree.
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" .
wheel="$(ls "$wheels"/*.whl)"
"$python" -m pip install --quiet --constraint constraints.txt "$wheel[test]"
"$python" -m pip install --quiet --no-deps --force-reinstall "$wheel"

if [[ "$marker" == "not slow" ]]; then
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  "$python" -m mypy
fi
# The heavy tests of one file share its expensive beginnings, so they stay in one process.
spread=load
[[ "$marker" == "not slow" ]] || spread=loadfile
"$python" -m pytest --numprocesses "${TEST_PROCESSES:-2}" --dist "$spread" -m "$marker" tests "$@"
if [[ "$marker" == "not slow" && $# -eq 0 ]]; then
  "$python" -m pytest --doctest-modules --pyargs curriculum_sampler
fi
