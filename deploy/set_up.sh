#!/usr/bin/env bash
# What cluster.yaml runs on a node before Ray starts there: a Python environment with segray and what
# it needs.
#
#   set_up.sh cpu   # the head and the CPU workers
#   set_up.sh gpu   # the GPU workers; ends with a check of the GPU
#
# Ray runs it twice on some nodes, and a node's image may have it done already. Where the environment
# was made by this very script from these very files, it does nothing but check.
set -euo pipefail
kind=$1

# Ray refuses a worker whose Python differs from the head's, even in the last number. Ubuntu has no
# 3.11 and moves its Python between images, so uv brings exactly this one.
python=3.11.18
uv=0.13.9
environment=~/segray-env

case $kind in
    # boto3 is what the head starts workers with. ray[default] has the dashboard and the jobs API.
    cpu) packages=(-e '.[mlflow]' boto3 'ray[default]') ;;
    gpu) packages=(-e '.[gpu,mlflow]' --override deploy/overrides-gpu.txt 'ray[default]') ;;
    *) echo "error: $0 cpu|gpu" >&2 && exit 2 ;;
esac

# For the shells that `ray attach`, `ray exec` and `ray down` open.
grep -qs segray-env ~/.bashrc ||
    printf '%s\n' ". $environment/bin/activate" 'export RAY_AUTH_MODE=token' >> ~/.bashrc

cd "$(dirname "$0")/.."
state="$kind $(cat pyproject.toml constraints.txt deploy/overrides-gpu.txt deploy/set_up.sh | sha256sum)"
if [ "$(cat "$environment/installed" 2>/dev/null)" = "$state" ]; then
    echo "the environment is there already"
else
    ~/.local/bin/uv --version 2>/dev/null | grep -qF "uv $uv " ||
        curl -LsSf "https://astral.sh/uv/$uv/install.sh" | sh
    # Afresh each time: what an older version needed is gone, and nothing is half installed.
    ~/.local/bin/uv venv --clear --python "$python" "$environment"
    ~/.local/bin/uv pip install --python "$environment/bin/python" -c constraints.txt "${packages[@]}"
    echo "$state" > "$environment/installed"
fi

if [ "$kind" = gpu ]; then
    # A node whose GPU cannot be used should fail here, not train on the CPU.
    nvidia-smi --list-gpus
    "$environment/bin/python" deploy/check_gpu.py
fi
