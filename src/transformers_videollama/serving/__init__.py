"""`videollama serve`: the library's OpenAI-compatible server or vLLM's, with limits on what requests may do."""

from argparse import Namespace
from pathlib import Path

from ..media import MediaAccess, restrict_media_access
from ..media.workers import opening_in_workers


__all__ = ["serve"]


def serve(args: Namespace) -> None:
    """
    Answer until stopped.

    Args:
        args (`Namespace`): `engine`, `model`, `host`, `port`, `device`, `dtype`, `max_upload` in MiB, `timeout` in
            seconds, `allow_local` (folders), `allow_private`, `media_workers` (processes), `engine_options`; `adapter`
            and `branch`, as [`~transformers_videollama.adapters.load_trained`] takes them.

    Raises:
        ImportError: if the packages of the engine are not installed.
        ValueError: options that the engine does not take.
    """
    if args.engine_options and args.engine != "vllm":
        raise ValueError(f"got {args.engine_options} behind --, but only vLLM takes further options")
    if args.engine == "vllm" and (args.adapter or args.branch):
        raise ValueError(
            "vLLM knows no trained branches, and no adapters with one: write a plain checkpoint with `videollama "
            "merge`, which takes the same --model, --adapter and --branch, and serve that"
        )
    restrict_media_access(
        MediaAccess(tuple(map(Path, args.allow_local)), args.allow_private, max_decoding_seconds=args.timeout)
    )
    with opening_in_workers(args.media_workers):
        if args.engine == "vllm":
            from .vllm.server import serve_with_vllm

            serve_with_vllm(args)
        else:
            from .transformers_server import serve_with_transformers

            serve_with_transformers(args)
