#!/usr/bin/env bash
# STBIR-C: chairs (QMUL ChairV2 with captions), recipe stbir_c. Layout of DATA: docs/data.md.
# On a CPU, from MobileNetV2 weights: stbir_c.sh.
#   bash runs/stbir_c_gpu.sh DATA [OUT]      DATA and OUT: any URI; WORKERS, GPU, SET: published.sh
set -euo pipefail
exec bash runs/published.sh stbir_c "qmul:$1/ChairV2" "${2:-out/stbir_c_gpu}" photos=400 sketches=1275
