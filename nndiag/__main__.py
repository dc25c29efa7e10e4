"""`python -m nndiag`, and `torchrun ... -m nndiag watch SCRIPT`."""

import sys

if __name__ == "__main__":
    # `-m` puts the working directory first: a rich.py or json.py there must not become ours.
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]

    from nndiag.cli.app import main

    sys.exit(main())
