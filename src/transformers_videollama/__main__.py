"""`python -m transformers_videollama`: the `videollama` command."""

import sys

from .cli import main


if __name__ == "__main__":
    sys.exit(main())
