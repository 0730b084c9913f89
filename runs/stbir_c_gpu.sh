#!/usr/bin/env bash
# STBIR-C: chairs (QMUL ChairV2 with captions), recipe stbir_c. What DATA holds: docs/data.md.
# On a CPU, from weights of a MobileNetV2: stbir_c.sh.
#   bash runs/stbir_c_gpu.sh DATA [OUT]      DATA and OUT any URI; see published.sh for WORKERS, GPU, SET
set -euo pipefail
exec bash runs/published.sh stbir_c "qmul:$1/ChairV2" "${2:-out/stbir_c_gpu}" photos=400 sketches=1275
