"""
Time of a training step from a feature cache against one from files, with the encoders of the released size: the vision
tower (39 layers, 1408 wide), the image Q-Former (12 layers) and the Video Q-Former, of random weights, on clips made
here. A small language model stands in for the 7B one, so the steps hold what the vision costs and little more; the
seconds that the cache saves in a step are the same under any language model, the share of the step is not.

    python -m benchmarks.feature_cache            # a table
    python -m benchmarks.feature_cache --json

Takes about 10 minutes on two CPU cores that have nothing else to do, 10 GB of memory and 7 GB of disk.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from transformers_videollama import (
    VideoLlamaConfig,
    VideoLlamaFeatureExtractor,
    VideoLlamaForConditionalGeneration,
    VideoLlamaImageProcessor,
    VideoLlamaProcessor,
    VideoLlamaVideoProcessor,
    load_chat_template,
)
from transformers_videollama.precompute import precompute
from transformers_videollama.training import STAGES, VideoLlamaDataCollator, prepare_for_stage
from transformers_videollama.training.datasets import load_messages
from transformers_videollama.training.feature_cache import FeatureCache, FeatureDataset, load_features

from .measure import seconds_of


STAGE = STAGES["vl1"]
NUM_CLIPS, NUM_FRAMES = 2, 8
CAPTION = "a ball swings over the ground " * 5
READ_ROWS, READ_SHARD = 1024, 256
PARTS = ("vision", "files", "cache")  # that are timed
SMALL = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "num_attention_heads": 4}


def write_clip(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (15, 20, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for i in range(100):
            picture = np.roll(noise, i // 5, axis=1).repeat(16, axis=0).repeat(16, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def small_processor() -> VideoLlamaProcessor:
    """The released front ends, and a tokenizer of the words that occur here."""
    special = ["<unk>", "<s>", "</s>", "<image>", "<video>", "<audio>"]
    words = {
        word: i
        for i, word in enumerate([*special, "#", "[", "]", "/", "INST", "Video", *sorted(set(CAPTION.split()))])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": special[3:]})
    return VideoLlamaProcessor(
        VideoLlamaImageProcessor(),
        VideoLlamaVideoProcessor(),
        VideoLlamaFeatureExtractor(),
        fast,
        chat_template=load_chat_template("llama-2"),
    )


def save_model(folder: Path) -> VideoLlamaProcessor:
    processor = small_processor()
    ids = {f"{kind}_token_id": getattr(processor, f"{kind}_token_id") for kind in ("image", "video", "audio")}
    text_config = LlamaConfig(vocab_size=len(processor.tokenizer), **SMALL)
    torch.manual_seed(0)
    model = VideoLlamaForConditionalGeneration(
        VideoLlamaConfig(text_config=text_config, output_vocab_size=None, **ids)
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor


def write_data(folder: Path) -> Path:
    for i in range(NUM_CLIPS):
        write_clip(folder / f"{i}.mp4", seed=i)
    lines = "".join(f"{i},.,{CAPTION}\n" for i in range(NUM_CLIPS))
    (folder / "clips.csv").write_text(f"videoid,page_dir,name\n{lines}")
    return folder / "clips.csv"


def training_step(
    model: VideoLlamaForConditionalGeneration, collator: VideoLlamaDataCollator, rows, batch_size: int
) -> Callable[[], float]:
    """A step as the `Trainer` does it, from rows to updated weights, in one process."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)

    def step() -> float:
        loss = model(**collator([rows[i] for i in range(batch_size)])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def measure(folder: Path, processor: VideoLlamaProcessor, dtype: str, repeats: int) -> list[dict]:
    rows = load_messages(folder / "clips.csv", format="webvid")
    started = time.perf_counter()
    precompute(folder / "clips.csv", folder / dtype, model=str(folder / "model"), format="webvid", dtype=dtype)
    precomputed = time.perf_counter() - started
    model = VideoLlamaForConditionalGeneration.from_pretrained(folder / "model", dtype=dtype)
    cached = load_features(folder / dtype, model, processor)
    prepare_for_stage(model, STAGE)
    collator = STAGE.collator(processor)
    results = []
    for batch_size in (1, 2):
        batches = [collator([source[i] for i in range(batch_size)]) for source in (rows, cached)]
        with torch.no_grad():  # without dropout, to be compared
            losses = [model.eval()(**batch).loss.item() for batch in batches]
        model.train()
        pixels = torch.zeros(batch_size * NUM_FRAMES, 3, 224, 224)
        result = {
            "dtype": dtype,
            "batch_size": batch_size,
            "vision": asdict(seconds_of(lambda pixels=pixels: model.model.get_frame_features(pixels), repeats)),
            "files": asdict(seconds_of(training_step(model, collator, rows, batch_size), repeats)),
            "cache": asdict(seconds_of(training_step(model, collator, cached, batch_size), 10 * repeats)),
            "losses_from_files_and_cache": losses,
            "precompute_s": precomputed,
        }
        results.append(result)
        print(json.dumps(result), file=sys.stderr)
    return results


def reading_rate(folder: Path) -> dict[str, float]:
    """Rows a second that one process reads in random order, of features of the released size in float32."""
    import datasets

    block = {"type": "video", "text": None, "path": "clip.mp4"}
    rows = datasets.Dataset.from_list([{"messages": [{"role": "user", "content": [block]}]}] * READ_ROWS)
    options = {"branch": "video", "dtype": "float32", "shard_size": READ_SHARD, "num_rows": READ_ROWS}
    cache = FeatureCache.create(folder, {"options": options}, rows)
    for shard in range(cache.num_shards):
        features = {f"{row}.0.0": torch.randn(NUM_FRAMES, 32, 768) for row in cache.shard_rows(shard)}
        cache.write_shard(shard, features, {})
    dataset = FeatureDataset(cache)
    order = np.random.default_rng(0).permutation(READ_ROWS)
    taken = asdict(seconds_of(lambda: [dataset[i] for i in order], repeats=5))
    megabytes = features.popitem()[1].nbytes / 1e6
    return {"rows_per_s": READ_ROWS / taken["median_s"], "megabytes_per_row": megabytes, **taken}


def table(results: list[dict]) -> str:
    lines = [
        "| weights | batch | vision alone | step from files | step from the cache | times faster | saved |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        seconds = [f"{result[name]['median_s']:.3g} ({result[name]['core_s']:.3g})" for name in PARTS]
        _, files, cache = (result[name]["core_s"] for name in PARTS)
        lines.append(
            f"| {result['dtype']} | {result['batch_size']} | {' | '.join(seconds)} | {files / cache:.0f} | "
            f"{files - cache:.3g} |"
        )
    return "\n".join(lines)


def report(about: dict) -> str:
    reading = about["reading"]
    paragraphs = (
        f"{about['what']}; torch {about['versions']['torch']}, {about['machine']}, load average "
        f"{about['load_average']:.1f}, {about['date']}.",
        "Seconds, and in brackets those of all cores, which the last two columns compare.",
        table(about["rows"]),
        "Reading a cache in random order, one process, the file in memory: "
        f"{reading['rows_per_s']:.0f} rows/s of {reading['megabytes_per_row']:.2f} MB.",
    )
    return "\n\n".join(paragraphs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3, help="of what takes long (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        reading = reading_rate(folder / "reading")
        processor = save_model(folder / "model")
        results = [
            result for dtype in arguments.dtypes for result in measure(folder, processor, dtype, arguments.repeats)
        ]
    about = {
        "what": f"stage {STAGE.name}, {NUM_FRAMES} frames, caption of {len(CAPTION.split())} words, encoders of the "
        f"released size with random weights, language model of {SMALL['num_hidden_layers']} layers",
        "command": "python -m benchmarks.feature_cache --json",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads",
        "load_average": os.getloadavg()[1],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "reading": reading,
        "rows": results,
    }
    print(json.dumps(about) if arguments.json else report(about))


if __name__ == "__main__":
    main()
