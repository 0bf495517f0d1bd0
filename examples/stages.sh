# shellcheck shell=bash
# Sourced by every train_*.sh: one call of a trainer per stage of its curriculum.

# stages_of FILE: fill the array STAGES with "name length rate" of every stage of a curriculum file.
stages_of() {
  local line lines
  lines=$("$PYTHON" - "$1" <<'PYTHON'
import sys
import curriculum_sampler as cs

for stage in cs.StageSchedule.load(sys.argv[1]).stages:
    print(stage.name, stage.length, stage.lr)
PYTHON
  )
  STAGES=()
  while read -r line; do STAGES+=("$line"); done <<<"$lines"
}

# train_in_stages NAME TOTAL_FLAG FOLDER -- ARGUMENTS: train the stages in the array STAGES one after the other.
#
# A stage is "name length rate"; lengths are of the stage alone, TOTAL_FLAG gets their running total. A stage whose final
# checkpoint exists is passed over, so a run that was interrupted goes on when the same command is given again.
train_in_stages() {
  local name=$1 total_flag=$2 folder=$3 line stage length rate total=0 number=0 resume launch
  shift 4
  launch=("$PYTHON")
  if ((${GPUS:-1} > 1)); then
    launch=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$GPUS")
  fi
  for line in "${STAGES[@]}"; do
    read -r stage length rate <<<"$line"
    total=$((total + length))
    number=$((number + 1))
    if stage_is_done "$folder" "$number" "$stage" "$total_flag" "$total"; then
      say "$name, stage $number ($stage): done before"
      continue
    fi
    # The first stage may start afresh; a later one without a checkpoint would be a broken hand-over, hence an error.
    resume=latest
    ((number == 1)) || resume=$folder/latest_checkpoint.pt
    say "$name, stage $number ($stage): to $total ${total_flag##*_} in all, learning rate $rate"
    passing_signals "${launch[@]}" "$EXAMPLES/$name/train.py" \
      --difficulty "$stage" \
      "$total_flag" "$total" \
      --learning_rate "$rate" \
      --output_dir "$folder" \
      --resume_from_checkpoint "$resume" \
      --wandb_project "$name-curriculum" \
      --wandb_run_name "$name-curriculum-stage$number-$stage" \
      "$@"
  done
}

# all_stages_done TOTAL_FLAG FOLDER: is there nothing left to train?
all_stages_done() {
  local line stage length rate total=0 number=0
  for line in "${STAGES[@]}"; do
    read -r stage length rate <<<"$line"
    total=$((total + length))
    number=$((number + 1))
    stage_is_done "$2" "$number" "$stage" "$1" "$total" || return 1
  done
}

# stage_is_done FOLDER NUMBER STAGE TOTAL_FLAG TOTAL: is its final checkpoint there? Epochs are only known to the trainer.
stage_is_done() {
  [[ $4 == --max_train_steps && -f $1/checkpoint_stage$2-$3_step_$5.pt ]]
}
