"""
Converts original Video-LLaMA checkpoints into a folder that `from_pretrained` loads. README.md in this folder has
the command for every released checkpoint; `videollama convert` is the same where the package is installed.

    python conversion/convert_video_llama_to_hf.py original Video-LLaMA-2-7B-Finetuned
"""

import sys

from transformers_videollama.convert.command import main


if __name__ == "__main__":
    sys.exit(main(prog="convert_video_llama_to_hf.py"))
