"""`python -m mesh_proxy`."""

import sys

from mesh_proxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
