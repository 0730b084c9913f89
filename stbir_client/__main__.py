"""`python -m stbir_client` runs the shell command `stbir`."""

import sys

from stbir_client.command import main

if __name__ == "__main__":
    sys.exit(main())
