#!/usr/bin/env bash
# STBIR-D: daily objects (Sketchy's 125 categories with captions), recipe stbir_d. Layout of DATA: docs/data.md.
#   bash runs/stbir_d.sh DATA [OUT]          DATA and OUT: any URI; WORKERS, GPU, SET: published.sh
set -euo pipefail
exec bash runs/published.sh stbir_d "sketchy:$1/Sketchy" "${2:-out/stbir_d}" photos=12500
