"""The pixels of decoded frames: 8-bit RGB, upright, of one size. FFmpeg's filters convert them."""

from typing import Any

import numpy as np

from .errors import MediaError, import_or_explain
from .hdr import HDR_TRANSFERS, standard_range
from .orientation import Matrix, filters_of, matrix_of


__all__ = ["FrameConverter", "over_white"]


class FrameConverter:
    """
    Decoded frames -> RGB, upright and of one size; FFmpeg's own filters scale while they convert.

    What is transparent is over white. Frames in high dynamic range (PQ, HLG) are tone-mapped (`hdr`).

    Args:
        size (`tuple[int, int]`, *optional*): (height, width); by default frames keep theirs.
        orientation (`Matrix`, *optional*): What holds for frames until one says otherwise.
    """

    def __init__(self, size: tuple[int, int] | None, orientation: Matrix | None = None):
        self.size, self.orientation = size, orientation
        self.shape: tuple[int, ...] | None = None
        self.graph: Any = None
        self.takes: tuple | None = None

    def notice(self, frame: Any) -> None:
        """For each frame that is decoded, also where it is not wanted: what it says of orientation holds on."""
        self.orientation = matrix_of(frame) or self.orientation

    def __call__(self, frame: Any) -> np.ndarray:
        self.notice(frame)
        frame = _opaque(frame)
        takes = (frame.width, frame.height, frame.format.name, frame.color_trc in HDR_TRANSFERS, self.orientation)
        if takes != self.takes:
            self.graph, self.takes = self._graph(frame), takes
        self.graph.push(frame)
        pixels: np.ndarray = self.graph.pull().to_ndarray()
        if frame.color_trc in HDR_TRANSFERS:
            pixels = standard_range(pixels, frame.color_trc, frame.color_primaries)
        if self.shape not in (None, pixels.shape):
            raise MediaError(f"its frames differ in size, {self.shape[:2]} and {pixels.shape[:2]}; pass size")
        self.shape = pixels.shape
        return pixels

    def _graph(self, frame: Any) -> Any:
        av = import_or_explain("av", "av")
        graph = av.filter.Graph()
        height, width = self.size or (-1, -1)
        form = "rgb48le" if frame.color_trc in HDR_TRANSFERS else "rgb24"
        filters = [*filters_of(self.orientation), f"scale={width}:{height}", f"format={form}"]
        takes = {name: getattr(frame, name) for name in ("width", "height", "format", "time_base")}
        nodes = [graph.add_buffer(**takes), *(graph.add(*text.split("=", 1)) for text in filters)]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph


def _opaque(frame: Any) -> Any:
    """The frame, or, where it is transparent anywhere, one in RGB over white."""
    if frame.format.name != "pal8" and not any(component.is_alpha for component in frame.format.components):
        return frame
    pixels = frame.reformat(format="rgba").to_ndarray()
    if pixels[..., 3].min() == 255:
        return frame
    opaque = type(frame).from_ndarray(over_white(pixels), format="rgb24")
    opaque.pts, opaque.time_base = frame.pts, frame.time_base
    return opaque


def over_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGBA of shape (..., 4) -> RGB over white, of shape (..., 3)."""
    alpha = pixels[..., 3:].astype(np.uint16)
    light = pixels[..., :3] * alpha + 255 * (255 - alpha)
    return ((light + 127) // 255).astype(np.uint8)
