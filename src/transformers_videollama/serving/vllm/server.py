"""`videollama serve --engine vllm`: vLLM's server in this process, with the same limits as the library's."""

import asyncio
import functools
import os
import runpy
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector

from ...media.access import access_for
from ...media.sources import local_file
from ..limits import HEALTH, MODELS, RequestLimits


__all__ = ["LimitedMediaConnector", "ServerLimits", "serve_with_vllm"]

MEDIA_CONNECTOR = "video_llama"


@MEDIA_CONNECTOR_REGISTRY.register(MEDIA_CONNECTOR)
class LimitedMediaConnector(MediaConnector):
    """Opens what [`MediaAccess`] allows; vLLM itself follows addresses into private networks."""

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
        if url[:5].lower() == "data:":
            return super().load_from_url(url, media_io)
        file = local_file(url, access_for(None, fetch_timeout))
        return media_io.load_file(Path(file.path))

    async def load_from_url_async(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
        load = functools.partial(self.load_from_url, url, media_io, fetch_timeout=fetch_timeout)
        return await asyncio.get_running_loop().run_in_executor(None, load)


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
