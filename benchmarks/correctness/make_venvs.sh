#!/usr/bin/env bash
# One virtual environment for each toolkit that the correctness table compares.
#
#   bash benchmarks/correctness/make_venvs.sh [FOLDER [NAME ...]]
#
# A CPU build of torch is enough. Where the package index has builds with CUDA, say
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu TORCH=2.13.0+cpu bash make_venvs.sh
# Toolkits with heavy dependencies are installed without them; what their loss code imports is named.
set -euo pipefail
folder=${1:-"$(dirname "$0")/.venvs"}
names=" ${*:2} "
mkdir -p "$folder"
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
echo "torch==${TORCH:-2.13.0}" > "$constraints"

new() { [[ "$names" == "  " || "$names" == *" $1 "* ]] && python3 -m venv "$folder/$1"; }
add() { "$folder/$1/bin/pip" install -q -c "$constraints" "${@:2}"; }
alone() { "$folder/$1/bin/pip" install -q --no-deps "${@:2}"; }

if new trl; then
    add trl torch trl==1.16.0
fi
if new liger; then
    add liger torch triton numpy packaging
    alone liger liger-kernel==0.8.5
fi
if new torchtune; then
    add torchtune torch torchtune==0.6.1 torchao==0.10.0
fi
if new modelopt; then
    add modelopt torch transformers==5.23.0 accelerate datasets requests nvidia-modelopt==0.47.0
fi
if new msswift; then
    add msswift torch transformers==5.19.0 trl==0.29.1 'peft<0.21' 'datasets<4.8.5' accelerate modelscope \
        dacite einops scipy requests pillow json-repair aiohttp msgspec
    alone msswift ms-swift==4.6.0
fi
if new axolotl; then
    add axolotl torch triton transformers==5.16.1 trl==1.9.0 peft==0.20.0 accelerate==1.13.0 datasets==4.8.4 \
        pydantic addict requests numba colorama
    alone axolotl liger-kernel==0.8.1 axolotl==0.19.0
fi
if new torchdistill; then
    add torchdistill torch torchvision numpy pyyaml scipy torchdistill==1.1.5
fi
