#!/usr/bin/env bash
# From a fresh clone to a report: makes .venv, installs, and runs the whole pipeline on an embedded world.
#
#   scripts/quickstart.sh                                     the embedded world: no download, two cores, about five minutes
#   scripts/quickstart.sh seed=1 output=runs/another          with settings that override the configuration
#   scripts/quickstart.sh recipes/configs/NAME/pipeline.yaml  another configuration
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
-h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac

config=recipes/configs/planted/pipeline.yaml
case "${1:-}" in
*.yaml | *.yml)
    config=$1
    shift
    ;;
esac

cat <<TEXT
palm runs $config, stage by stage:
  data, base    read pairwise preferences of many users; make or load the base language model
  embed, fit    turn texts into features; learn basis rewards and a weight for every user
  sample, score, plan
                collect candidate responses, score them, choose the few weights to train for, with a certificate
  train         one LoRA policy per weight, with TRL
  measure, route, report
                measure what the policies really give, route every user, write the report
It can be stopped and started again at any time: finished stages are kept.

TEXT
. scripts/environment.sh
prepare_environment "plot"
exec palm run "$config" "$@"
