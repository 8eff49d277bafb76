"""``python -m amos_ref`` is ``amos-ref``."""

import sys

from amos_ref.cli import main

if __name__ == "__main__":
    sys.exit(main())
