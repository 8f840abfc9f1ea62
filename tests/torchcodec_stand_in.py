"""A stand-in for torchcodec, which needs FFmpeg's shared libraries: its interface, on PyAV."""

from types import SimpleNamespace

import av
import numpy as np
import torch


__all__ = ["AudioDecoder", "VideoDecoder"]


class VideoDecoder:
    """What torchcodec's documentation says of its decoder, on PyAV; it counts the frames that it decodes."""

    def __init__(
        self,
        source,
        dimension_order: str = "NCHW",
        header: bool = True,
        *,
        stream_index: int | None = None,
        num_ffmpeg_threads: int = 1,
        device: str = "cpu",
    ):
        self.decoded: list[int] = []
        self.device = device
        self.order = (0, 3, 1, 2) if dimension_order == "NCHW" else (0, 1, 2, 3)
        with av.open(source if hasattr(source, "read") else str(source)) as container:
            stream = container.streams.video[0] if stream_index is None else container.streams[stream_index]
            frames = list(container.decode(stream))
            self._pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
            self._seconds = [frame.time for frame in frames]
            rate = float(stream.average_rate)
        self._duration = 1 / rate
        end = self._seconds[-1] + self._duration
        self.metadata = SimpleNamespace(
            average_fps=len(frames) / (end - self._seconds[0]) if header else None,
            end_stream_seconds=end if header else None,
        )

    _shift = 0.0

    def __len__(self) -> int:
        return len(self._seconds)

    def get_frames_at(self, indices):
        self.decoded += indices
        if max(indices) >= len(self._seconds):
            raise IndexError(f"Invalid frame index={max(indices)}")
        pixels = torch.from_numpy(self._pixels[indices]).permute(*self.order).to(self.device)
        seconds = torch.tensor([self._shift + self._seconds[index] for index in indices], dtype=torch.float64)
        return SimpleNamespace(data=pixels, pts_seconds=seconds)

    def get_frame_at(self, index: int):
        frames = self.get_frames_at([index])
        return SimpleNamespace(
            data=frames.data[0], pts_seconds=frames.pts_seconds[0].item(), duration_seconds=self._duration
        )


class AudioDecoder:
    """As above, of sound."""

    def __init__(self, samples: np.ndarray, rate: int):
        self._samples, self._rate = torch.from_numpy(samples), rate
        self.metadata = SimpleNamespace(
            sample_rate=rate, num_channels=len(samples), duration_seconds=samples.shape[1] / rate
        )

    def get_samples_played_in_range(self, start_seconds: float = 0.0, stop_seconds: float | None = None):
        first = round(start_seconds * self._rate)
        stop = None if stop_seconds is None else round(stop_seconds * self._rate)
        return SimpleNamespace(data=self._samples[:, first:stop], sample_rate=self._rate, pts_seconds=start_seconds)

    def get_all_samples(self):
        return self.get_samples_played_in_range()
