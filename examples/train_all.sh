#!/usr/bin/env bash
# Every trainer in turn, each through its curriculum Easy -> Medium -> Hard, and a summary at the end.
#
#   S3_PREFIXES=s3://my-bucket/vton/v1 bash train_all.sh    the real runs
#   bash train_all.sh --tiny                                all of it in minutes on a CPU, nothing needed beforehand
#
# A trainer that fails or is interrupted ends the script. The same command again goes on where it stopped.
set -euo pipefail

TRAINERS=(catvton dit vtongan)
S3_PREFIXES=${S3_PREFIXES:-}

# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --tiny ]]; then
  prepare_python demo
else
  require_prefixes
  prepare_python train,wandb
fi

folders=()
for trainer in "${TRAINERS[@]}"; do
  folders+=("$OUTPUT_ROOT/checkpoints_${trainer}_curriculum")
  status=0
  SUMMARY=no passing_signals bash "$EXAMPLES/train_$trainer.sh" "$@" || status=$?
  case $status in
    0) ;;
    2) exit 2 ;; # something is missing, and has been named
    130 | 143)
      say "Interrupted. The same command goes on from the last checkpoint."
      exit "$status"
      ;;
    *)
      say "$trainer ended with exit status $status; its messages are above. The same command goes on from its last checkpoint."
      exit "$status"
      ;;
  esac
done

summarise "${folders[@]}"
