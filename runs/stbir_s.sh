#!/usr/bin/env bash
# STBIR-S: shoes (QMUL ShoeV2 with captions), recipe stbir_s. Layout of DATA: docs/data.md.
#   bash runs/stbir_s.sh DATA [OUT]          DATA and OUT: any URI; WORKERS, GPU, SET: published.sh
set -euo pipefail
exec bash runs/published.sh stbir_s "qmul:$1/ShoeV2" "${2:-out/stbir_s}" photos=2000 sketches=6648
