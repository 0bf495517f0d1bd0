# shellcheck shell=bash
# Sourced by every train_*.sh: what --tiny needs and a real run does not: rendered pictures, an S3 server, a small VAE.

DEMO=$OUTPUT_ROOT/.demo
TINY_VAE=$OUTPUT_ROOT/checkpoints_tiny_vae
TINY_PREFIX=s3://vton-demo/v1

# start_tiny: render the pictures (once), serve them from an S3 server of our own, and train the small VAE (once).
start_tiny() {
  mkdir -p "$DEMO"
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=PASSIVE WANDB_MODE=${WANDB_MODE:-offline}
  start_store
  say "Rendering try-on pictures, and writing them as shards into $TINY_PREFIX"
  "$PYTHON" "$EXAMPLES/demo/fill_store.py" --cache "$DEMO" --destination "$TINY_PREFIX"
  if [[ ! -f $TINY_VAE/config.json ]]; then
    say "Training a small VAE on the pictures"
    "$PYTHON" "$EXAMPLES/common/tiny_vae.py" --s3_prefixes "$TINY_PREFIX" --output_dir "$TINY_VAE"
  fi
}

# The server holds its objects in memory and ends with this shell, however that ends.
start_store() {
  local endpoint=$DEMO/endpoint waited
  rm -f "$endpoint"
  "$PYTHON" "$EXAMPLES/demo/store.py" --endpoint_file "$endpoint" --owner $$ >"$DEMO/store.log" 2>&1 &
  STORE=$!
  trap stop_store EXIT
  for ((waited = 0; waited < 600; waited++)); do
    [[ ! -s $endpoint ]] || break
    kill -0 "$STORE" 2>/dev/null || break
    sleep 0.1
  done
  [[ -s $endpoint ]] || fail "The S3 server did not start." "$(tail -n 5 "$DEMO/store.log")"
  AWS_ENDPOINT_URL=$(<"$endpoint")
  export AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo AWS_DEFAULT_REGION=us-east-1
  export NO_PROXY=127.0.0.1${NO_PROXY:+,$NO_PROXY} no_proxy=127.0.0.1${no_proxy:+,$no_proxy}
  unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3
}

# When the script returns, the port is free.
stop_store() {
  kill "$STORE" 2>/dev/null || true
  wait "$STORE" 2>/dev/null || true
}
