#!/usr/bin/env bash
# CatVTON, Easy -> Medium -> Hard: one call of catvton/train.py per stage.
#
#   S3_PREFIXES=s3://my-bucket/vton/v1 bash train_catvton.sh    the real run
#   bash train_catvton.sh --tiny                                minutes on a CPU, nothing needed beforehand
#
# Give the same command again after an interruption: it goes on where it stopped. Further flags go to train.py.
set -euo pipefail

# Name, length in optimiser steps, learning rate. Lengths are of each stage alone: a longer stage is an edit of its
# line. A further stage is one more line here and a [[stages]] table of that name, with its mixture, in CURRICULUM.
STAGES=(
  "easy   10000 1e-5"
  "medium 15000 5e-6"
  "hard   15000 2e-6"
)
S3_PREFIXES=${S3_PREFIXES:-}
PRETRAINED_MODEL=${PRETRAINED_MODEL:-stable-diffusion-v1-5/stable-diffusion-inpainting}
GPUS=${GPUS:-1}

# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source-path=SCRIPTDIR source=stages.sh
source "$EXAMPLES/stages.sh"
# shellcheck source-path=SCRIPTDIR source=demo/tiny.sh
source "$EXAMPLES/demo/tiny.sh"

CURRICULUM=${CURRICULUM:-catvton} # a preset of the package, or a TOML file
FOLDER=$OUTPUT_ROOT/checkpoints_catvton_curriculum

if [[ ${1:-} == --tiny ]]; then
  shift
  CURRICULUM=$EXAMPLES/common/curricula/catvton_tiny.toml
  S3_PREFIXES=$TINY_PREFIX
  MODEL=(--model_preset tiny --pretrained_vae_name_or_path "$TINY_VAE")
  prepare_python demo
  stages_of "$CURRICULUM"
  all_stages_done --max_train_steps "$FOLDER" || start_tiny
else
  MODEL=(--model_preset full --pretrained_model_name_or_path "$PRETRAINED_MODEL")
  require_prefixes
  prepare_python train,wandb
  all_stages_done --max_train_steps "$FOLDER" || check_real_run "$CURRICULUM" "$PRETRAINED_MODEL"
fi

read -r -a places <<<"$S3_PREFIXES"
train_in_stages catvton --max_train_steps "$FOLDER" -- \
  "${MODEL[@]}" --curriculum_config "$CURRICULUM" --s3_prefixes "${places[@]}" "$@"
[[ ${SUMMARY:-yes} == no ]] || summarise "$FOLDER"
