"""`python -m stbir_client` is `stbir`."""

import sys

from stbir_client.command import main

if __name__ == "__main__":
    sys.exit(main())
