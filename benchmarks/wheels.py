"""
Makes wheels smaller that are carried to another machine, in place: shared libraries are packed with LZMA, and those of
bitsandbytes for other versions of CUDA are left out.

    python -m benchmarks.wheels FOLDER --cuda 130
"""

import argparse
import os
import re
import zipfile
from pathlib import Path


__all__ = ["main", "pack"]

LIBRARY = re.compile(r"\.so(\.\d+)*$")
FOR_CUDA = re.compile(r"bitsandbytes/libbitsandbytes_(cuda|rocm|xpu)(\d+)\.so$")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wheels", description="Makes wheels smaller.")
    parser.add_argument("folder", type=Path, help="of the wheels")
    parser.add_argument("--cuda", default="130", help="of the torch that they will run with (default: %(default)s)")
    args = parser.parse_args(argv)
    wheels = sorted(args.folder.glob("*.whl"))
    if not wheels:
        parser.error(f"{args.folder} has no wheels")
    for wheel in wheels:
        pack(wheel, args.cuda)
    print(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 2**20:.1f} MiB")


def pack(wheel: Path, cuda: str) -> None:
    """Nothing else in the wheel changes; pip unpacks LZMA as it does what is usual."""
    temporary = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(temporary, "w") as target:
        for entry in source.infolist():
            library = FOR_CUDA.search(entry.filename)
            if library and library.groups() != ("cuda", cuda):
                continue
            content = source.read(entry)
            entry.compress_type = zipfile.ZIP_LZMA if LIBRARY.search(entry.filename) else zipfile.ZIP_DEFLATED
            target.writestr(entry, content)
    os.replace(temporary, wheel)


if __name__ == "__main__":
    main()
