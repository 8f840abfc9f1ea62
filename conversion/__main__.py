"""`python -m conversion` in a checkout: the same as `videollama convert`."""

import sys

from transformers_videollama.convert.command import main


if __name__ == "__main__":
    sys.exit(main(prog="python -m conversion"))
