"""`videollama serve --engine vllm`: vLLM's server in this process, with the same limits as the library's."""

import asyncio
import functools
import io
import os
import runpy
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, AudioMediaIO, ImageMediaIO, MediaConnector

from ...media import Sound, load_image, load_sound
from ...media.access import access_for
from ...media.channels import to_mono
from ...media.sources import local_file
from ..limits import HEALTH, MODELS, RequestLimits


__all__ = ["LimitedMediaConnector", "ServerLimits", "serve_with_vllm"]

MEDIA_CONNECTOR = "video_llama"


@MEDIA_CONNECTOR_REGISTRY.register(MEDIA_CONNECTOR)
class LimitedMediaConnector(MediaConnector):
    """
    Opens what [`MediaAccess`] allows, as this package opens it, in the workers of the process; vLLM itself follows
    addresses into private networks, and decodes in its own process.
    """

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
        file = local_file(url, access_for(None, fetch_timeout))
        if isinstance(media_io, ImageMediaIO):
            return media_io.load_bytes(_bitmap(load_image(file)))
        if isinstance(media_io, AudioMediaIO):
            return _mono(load_sound(file))
        return media_io.load_file(Path(file.path))  # which asks this package's loader of videos

    async def load_from_url_async(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
        load = functools.partial(self.load_from_url, url, media_io, fetch_timeout=fetch_timeout)
        return await asyncio.get_running_loop().run_in_executor(None, load)


def _bitmap(image: Image.Image) -> bytes:
    """A file that is safe to decode, as vLLM wants one."""
    target = io.BytesIO()
    image.save(target, "BMP")
    return target.getvalue()


def _mono(sound: Sound) -> tuple[np.ndarray, float]:
    """The whole sound, as vLLM has it: samples (samples,), float32, and their rate in Hz."""
    channels = sound.read(0.0, sound.duration, sound.sampling_rate)
    return to_mono(channels, sound.channels), sound.sampling_rate


class ServerLimits(RequestLimits):
    """vLLM makes it without arguments, so [`serve_with_vllm`] sets `limits` before."""

    limits: dict[str, Any] = {}

    def __init__(self, app):
        super().__init__(app, **self.limits)


def serve_with_vllm(args: Namespace) -> None:
    """
    Answer until stopped.

    Args:
        args (`Namespace`): as [`~transformers_videollama.serving.serve`] takes them; `engine_options` are
            further words of vLLM's command line.
    """
    ServerLimits.limits = {
        "max_bytes": args.max_upload << 20,
        "seconds": args.timeout,
        "unlimited": (HEALTH, MODELS, "/metrics"),
    }
    os.environ["VLLM_MEDIA_CONNECTOR"] = MEDIA_CONNECTOR
    options = {"model": args.model, "host": args.host, "port": args.port, "dtype": args.dtype}
    options["middleware"] = f"{__name__}.{ServerLimits.__name__}"
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    sys.argv = ["vllm", *words, *args.engine_options]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
