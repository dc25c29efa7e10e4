"""`python -m nndiag`, and `torchrun ... -m nndiag watch SCRIPT`."""

import sys

from nndiag.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
