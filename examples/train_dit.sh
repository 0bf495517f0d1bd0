#!/usr/bin/env bash
# DiT, Easy -> Medium -> Hard: one call of dit/train.py per stage.
#
#   S3_PREFIXES=s3://my-bucket/vton/v1 bash train_dit.sh    the real run
#   bash train_dit.sh --tiny                                minutes on a CPU, nothing needed beforehand
#
# Give the same command again after an interruption: it goes on where it stopped. Further flags go to train.py.
set -euo pipefail

# Name, length in epochs, learning rate. Lengths are of each stage alone: a longer stage is an edit of its
# line. A further stage is one more line here and a [[stages]] table of that name, with its mixture, in CURRICULUM.
STAGES=(
  "easy   100 1e-4"
  "medium 150 5e-5"
  "hard   150 2e-5"
)
S3_PREFIXES=${S3_PREFIXES:-}
PRETRAINED_VAE=${PRETRAINED_VAE:-stabilityai/sd-vae-ft-mse}
GPUS=${GPUS:-1}

# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source-path=SCRIPTDIR source=stages.sh
source "$EXAMPLES/stages.sh"
# shellcheck source-path=SCRIPTDIR source=demo/tiny.sh
source "$EXAMPLES/demo/tiny.sh"

CURRICULUM=${CURRICULUM:-dit} # a preset of the package, or a TOML file
FOLDER=$OUTPUT_ROOT/checkpoints_dit_curriculum

if [[ ${1:-} == --tiny ]]; then
  shift
  CURRICULUM=$EXAMPLES/common/curricula/dit_tiny.toml
  S3_PREFIXES=$TINY_PREFIX
  MODEL=(--model_preset tiny --pretrained_vae_name_or_path "$TINY_VAE")
  prepare_python demo
  stages_of "$CURRICULUM"
  all_stages_done --num_epochs "$FOLDER" || start_tiny
else
  MODEL=(--model_preset full --pretrained_vae_name_or_path "$PRETRAINED_VAE")
  require_prefixes
  prepare_python train,wandb
  all_stages_done --num_epochs "$FOLDER" || check_real_run "$CURRICULUM"
fi

read -r -a places <<<"$S3_PREFIXES"
train_in_stages dit --num_epochs "$FOLDER" -- \
  "${MODEL[@]}" --curriculum_config "$CURRICULUM" --s3_prefixes "${places[@]}" "$@"
[[ ${SUMMARY:-yes} == no ]] || summarise "$FOLDER"
