# shellcheck shell=bash
# Sourced by every train_*.sh: where things are, and a Python that has what the trainers need.
#
#   OUTPUT_ROOT  where checkpoints and logs go; default: the folder that the caller stands in
#   PYTHON       an interpreter that already has the packages; default: a virtual environment of this repository

EXAMPLES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(dirname "$EXAMPLES")
OUTPUT_ROOT=${OUTPUT_ROOT:-$PWD}
mkdir -p "$OUTPUT_ROOT"
OUTPUT_ROOT=$(cd "$OUTPUT_ROOT" && pwd)
export OUTPUT_ROOT

say() { printf '\n==> %s\n' "$*"; }

# The message comes as one or more lines: what is wrong, then what to do.
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 2
}

# passing_signals COMMAND...: run a command, and hand it the signals that only this shell gets (a container's stop, a
# scheduler's). Ended by one, the status is that of the signal even where a launcher between says 1.
passing_signals() {
  local child status=0 received=
  set -m # a group of its own: without, a script's background commands ignore Ctrl-C
  "$@" &
  child=$!
  set +m
  trap 'received=130; kill -INT "$child" 2>/dev/null || true' INT
  trap 'received=143; kill -TERM "$child" 2>/dev/null || true' TERM HUP
  while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
  wait "$child" || status=$?
  trap - INT TERM HUP
  ((status == 0)) || status=${received:-$status}
  return "$status"
}

# prepare_python EXTRAS: make PYTHON an interpreter with curriculum-sampler[EXTRAS]. Nothing happens when that is done.
prepare_python() {
  [[ -z ${PYTHON:-} ]] || return 0
  local extras=$1 environment=$REPOSITORY/.venv wanted stamp
  stamp=$environment/.installed-${extras//,/-}
  wanted=$(cat "$REPOSITORY/pyproject.toml" "$REPOSITORY/constraints.txt" | cksum)
  export PYTHON=$environment/bin/python
  if [[ -x $PYTHON && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return 0
  fi
  local base
  base=$(find_python)
  say "Installing into $environment (the first time this downloads about 1 GB)"
  "$base" -m venv "$environment" ||
    fail "$base cannot make a virtual environment." "On Debian and Ubuntu: apt install python3-venv. Or set PYTHON=."
  "$PYTHON" -m pip install --quiet --disable-pip-version-check \
    -c "$REPOSITORY/constraints.txt" -e "${REPOSITORY}[$extras]" ||
    fail "The packages could not be installed." "Check the network and the messages above, then run the same command again."
  printf '%s' "$wanted" >"$stamp"
}

# The Python that the user calls python3, or else another of at least 3.11.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  fail "No Python 3.11 or newer was found." "Install one, or set PYTHON= to an interpreter that has the packages."
}

# require_prefixes: stop, before anything is installed, when a real run has not been told where its data is.
require_prefixes() {
  [[ -n $S3_PREFIXES ]] || fail "A real run needs to know where its shards are, and S3_PREFIXES is empty." \
    "S3_PREFIXES=\"s3://my-bucket/vton/v1\" bash ${0##*/}    several places: separate them by spaces" \
    "bash ${0##*/} --tiny                                 to see it work on rendered pictures, on a CPU"
}

# check_real_run CURRICULUM [BASE]: stop, naming all that is missing, unless data, pretrained base and a GPU are there.
check_real_run() {
  local places base=()
  read -r -a places <<<"$S3_PREFIXES"
  (($# < 2)) || base=(--pretrained_model_name_or_path "$2")
  "$PYTHON" "$EXAMPLES/common/readiness.py" --curriculum_config "$1" "${base[@]}" --s3_prefixes "${places[@]}"
}

# summarise FOLDER...: where everything is, and what was learned.
summarise() {
  say "Summary"
  "$PYTHON" "$EXAMPLES/common/run_summary.py" --report "$OUTPUT_ROOT/training_report.html" "$@"
}
