"""`videollama precompute`: features of a dataset, to train from."""

import argparse


__all__ = ["add_arguments", "run"]


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", help="file of a dataset")
    add("folder", metavar="OUT", help="folder for the features; one that is not complete is continued")
    add("--model", required=True, help="folder of a converted checkpoint, or its id on the Hub")
    add("--format", default="messages", help="of DATA: %(default)s, webvid, llava-cc3m, minigpt-4, ...")
    add("--media-dir", metavar="DIR", help="folder that paths of media start from (default: that of DATA)")
    add("--branch", choices=("video", "audio"), default="video", help="branch to be trained (default: %(default)s)")
    add("--batch-size", type=int, default=64, metavar="N", help="frames encoded at once (default: %(default)s)")
    add("--shard-size", type=int, default=256, metavar="N", help="rows of one file (default: %(default)s)")
    add("--processes", type=int, default=1, metavar="N", help="(default: %(default)s; process i uses GPU i)")
    add("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(default: %(default)s)")
    add(
        "--max-unreadable", type=int, default=100, metavar="N", help="rows that may be left out (default: %(default)s)"
    )
    add(
        "--max-unreadable-share",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of the rows that may be left out (default: %(default)s)",
    )
    add(
        "--no-audio",
        dest="load_audio_from_video",
        action="store_const",
        const=False,
        help="leave out the sound of videos, which training without it does not need",
    )
    add(
        "--media-workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that each process opens media in; 0: itself (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """
    Raises:
        SystemExit: with a sentence, and so with the exit status 1 as a training, for data, a model or a folder that
            cannot be used.
    """
    from ..training import precompute

    try:
        cache = precompute(**{name: value for name, value in vars(args).items() if name != "command"})
    except (OSError, ValueError) as error:
        raise SystemExit(f"videollama precompute: {' '.join(str(error).split())}") from error
    left_out = cache.unreadable()
    print(  # noqa: T201 (the answer)
        f"{cache.folder}: features of {cache.num_rows - len(left_out)} rows in {cache.num_shards} files, "
        f"{len(left_out)} rows left out"
    )
    for row, reason in left_out.items():
        print(f"row {row}: {reason}")  # noqa: T201
