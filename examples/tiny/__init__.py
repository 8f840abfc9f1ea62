"""A tiny Video-LLaMA, trained from nothing on clips of a made-up world. `python -m examples.tiny --help`."""
