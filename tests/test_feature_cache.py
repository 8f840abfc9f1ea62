"""Features computed once: the losses they give, what stops a run and how it goes on, and what is refused."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from crashing import HOSTILE, make_workers_crash
from PIL import Image
from render_clip import render_clip
from torch.utils.data import DataLoader
from transformers import AutoProcessor


datasets = pytest.importorskip("datasets", reason="the extra transformers-videollama[train] is not installed")

from transformers_videollama import EncodedMedia  # noqa: E402
from transformers_videollama.cli import main  # noqa: E402
from transformers_videollama.training import STAGES  # noqa: E402
from transformers_videollama.training.collator import VideoLlamaDataCollator  # noqa: E402
from transformers_videollama.training.datasets import load_messages, mix  # noqa: E402
from transformers_videollama.training.feature_cache import FeatureCacheError, load_features  # noqa: E402
from transformers_videollama.training.precompute import _device, precompute  # noqa: E402


UNREADABLE = 4  # the row whose file is absent
OPTIONS = {"shard_size": 3, "max_unreadable_share": 0.34}  # one of nine rows, or one of three


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))  # of processes that are started


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    render_clip(folder / "long.mp4", seconds=2.0)
    render_clip(folder / "short.mp4", seconds=0.2)  # fewer frames than are asked for
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels[::-1]).save(folder / "b.png")
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 40000, dtype=np.int16).tobytes())
    return folder


def row(*contents) -> dict:
    """Contents of the user and the assistant in turn; names with a suffix are media."""
    kinds = {"mp4": "video", "png": "image", "wav": "audio"}
    messages = []
    for i, content in enumerate(contents):
        blocks = [
            {"type": kinds[part.rpartition(".")[2]], "path": part} if "." in part else {"type": "text", "text": part}
            for part in content.split(" | ")
        ]
        messages.append({"role": ("user", "assistant")[i % 2], "content": blocks})
    return {"messages": messages}


def write_rows(media: Path, *, sounds: bool, name: str = "rows.json") -> Path:
    rows = [
        row("long.mp4 | What", "A ball"),
        row("a.png", "Noise"),
        row("Before | short.mp4 | after", "A ball", "b.png | And here | a.png", "Noise"),
        row("Nothing to see", "Indeed"),
        row("absent.mp4", "Never"),
        row("b.png | long.mp4", "Both"),
        row("short.mp4", "A ball"),
    ]
    if sounds:
        rows += [row("sound.wav | What", "Noise"), row("a.png | sound.wav | long.mp4", "All")]
    path = media / name
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def data(media) -> dict[str, Path]:
    return {
        "video": write_rows(media, sounds=True, name="video.json"),
        "audio": write_rows(media, sounds=False, name="audio.json"),
    }


@pytest.fixture(scope="module")
def caches(tmp_path_factory, data, checkpoint) -> dict:
    """A complete cache for each branch. Tests do not change it."""
    folder = tmp_path_factory.mktemp("features")
    return {
        branch: precompute(path, folder / branch, model=str(checkpoint), branch=branch, batch_size=10, **OPTIONS)
        for branch, path in data.items()
    }


def run(data, folder, checkpoint, *options: str) -> int:
    always = [part for name, value in OPTIONS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return main(["precompute", str(data), str(folder), "--model", str(checkpoint), *always, *options])


def refused(capsys, data, folder, checkpoint, *options: str) -> str:
    """The one line that the command ends with, and with the exit status 1, or 2 from argparse."""
    with pytest.raises(SystemExit) as caught:
        run(data, folder, checkpoint, *options)
    if caught.value.code == 2:
        return capsys.readouterr().err.splitlines()[-1]
    assert "\n" not in caught.value.code  # which the interpreter prints, and ends with 1
    return caught.value.code


def losses(model, collator, rows, batches) -> list[float]:
    with torch.no_grad():
        return [model(**collator([rows[i] for i in batch])).loss.item() for batch in batches]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.safetensors")}


@pytest.mark.parametrize("branch", ("video", "audio"))
@pytest.mark.parametrize("text", ("chat", "caption"))
def test_losses_are_those_of_training_without_the_cache(model, processor, data, caches, branch, text):
    cached = load_features(caches[branch].folder, model, processor)
    rows = load_messages(data[branch])
    readable = [i for i in range(len(rows)) if i != UNREADABLE]
    assert len(cached) == len(readable)
    number = {row: i for i, row in enumerate(readable)}
    # one by one, and ragged: short and long videos, images alone and between, rows with several items and with none
    batches = [[i] for i in readable] + [[0, 1, 6], [2, 3, 5], readable]
    if text == "caption":
        batches = [[i] for i in (0, 1, 5, 6)] + [[0, 1, 5, 6]]
    stage = STAGES[{"video": "vl2", "audio": "al2"}[branch]]
    collator = stage.collator(processor, text=text)
    expected = losses(model, collator, rows, batches)
    found = losses(model, collator, cached, [[number[i] for i in batch] for batch in batches])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(set(np.round(expected, 6))) == len(expected)


def test_items_are_encoded_and_texts_stay(model, processor, caches):
    cached = load_features(caches["video"].folder, model, processor)
    first, second = cached[2]["messages"][0], cached[2]["messages"][2]
    assert [block["type"] for block in first["content"]] == ["text", "video", "text"]
    assert [block["type"] for block in second["content"]] == ["image", "text", "image"]
    assert first["content"][0] == {"type": "text", "text": "Before"}
    config = model.config
    shape = (config.num_query_tokens, config.qformer_config.hidden_size)
    video, image = first["content"][1]["video"], second["content"][0]["image"]
    assert isinstance(video, EncodedMedia)
    assert image.features.shape == (1, *shape)
    assert 1 < len(video.features) < 8
    assert video.features.shape[1:] == shape
    sound = cached[6]["messages"][0]["content"][0]["audio"].features
    assert sound.shape == (8, config.audio_config.projection_dim)
    heard = load_features(caches["audio"].folder, model, processor)
    frames = heard[0]["messages"][0]["content"][0]["video"].features
    assert frames.shape == (8, config.audio_vision_config.projection_dim)
    with pytest.raises(IndexError, match="out of bounds"):
        cached[len(cached)]


def test_caches_can_be_mixed(model, processor, caches):
    cached = load_features(caches["video"].folder, model, processor)
    mixed = mix([cached, cached], [100, 24])
    assert len(mixed) > len(cached)
    batch = VideoLlamaDataCollator(processor)([mixed[0], mixed[1]])
    assert "video_frame_features" in batch


@pytest.mark.parametrize("context", ("fork", pytest.param("spawn", marks=pytest.mark.slow)))
def test_workers_read_the_same(model, processor, caches, context):
    cached = load_features(caches["video"].folder, model, processor)
    assert pickle.loads(pickle.dumps(cached)).unreadable == cached.unreadable
    collator = VideoLlamaDataCollator(processor)
    loader = DataLoader(cached, batch_size=3, num_workers=1, collate_fn=collator, multiprocessing_context=context)
    for i, batch in enumerate(loader):
        expected = collator([cached[j] for j in range(3 * i, min(3 * i + 3, len(cached)))])
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_bfloat16_takes_half_the_space_and_fits_the_same_model(tmp_path, model, processor, data, checkpoint, caches):
    assert run(data["video"], tmp_path / "half", checkpoint, "--dtype", "bfloat16") == 0
    half = load_features(tmp_path / "half", model, processor)
    full = load_features(caches["video"].folder, model, processor)
    features = half[0]["messages"][0]["content"][0]["video"].features
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(
        features.float(), full[0]["messages"][0]["content"][0]["video"].features, atol=0.05, rtol=0.05
    )
    collator = VideoLlamaDataCollator(processor)
    np.testing.assert_allclose(
        losses(model, collator, half, [[0, 1, 2]]), losses(model, collator, full, [[0, 1, 2]]), atol=1e-2
    )
    assert load_features(tmp_path / "half", copy.deepcopy(model).bfloat16(), processor)
    sizes = [
        sum(len(content) for content in shards(folder).values())
        for folder in (tmp_path / "half", caches["video"].folder)
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_the_prompt_style_makes_no_difference(tmp_path, data, checkpoints, caches):
    assert run(data["video"], tmp_path / "vicuna", checkpoints["vicuna"], "--batch-size", "10") == 0
    assert shards(tmp_path / "vicuna") == shards(caches["video"].folder)


def wait_for_shards(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.safetensors"))) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no shard appeared"
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path, caplog, media, checkpoint):
    path = tmp_path / "many.json"
    rows = [*(row(name, "A ball") for name in ("long.mp4", "short.mp4", "absent.mp4")), row("a.png", "N")] * 12
    path.write_text(json.dumps(rows))
    options = ["--media-dir", str(media), "--shard-size", "2", "--max-unreadable-share", "0.25"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["precompute", str(path), str(killed), "--model", str(checkpoint), *options]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from transformers_videollama.cli import main; main(sys.argv[1:])",
            *arguments,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_shards(killed, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = shards(killed)
    assert 3 <= len(there) < 24
    times = {name: (killed / name).stat().st_mtime_ns for name in there}
    (killed / ".features-00023-of-00024.safetensors.0.partial").write_bytes(b"half of a shard")
    (killed / ".rows.0.partial").mkdir()

    assert run(path, killed, checkpoint, *options) == 0
    assert run(path, whole, checkpoint, *options) == 0
    assert shards(killed) == shards(whole)
    assert len(shards(whole)) == 24
    assert {name: (killed / name).stat().st_mtime_ns for name in there} == times  # not computed again
    assert not list(killed.glob(".*.partial"))
    counts = [message.partition(":")[0] for message in caplog.messages]
    assert counts.count("left out a sample (12 so far, at most 100)") == 2  # a run that goes on does not forget
    assert counts.count("left out a sample (1 so far, at most 100)") == 1


@pytest.mark.slow
def test_several_processes_compute_what_one_does(tmp_path, model, processor, data, checkpoint, caches):
    assert run(data["video"], tmp_path / "two", checkpoint, "--processes", "2", "--batch-size", "10") == 0
    two = load_features(tmp_path / "two", model, processor)
    one = load_features(caches["video"].folder, model, processor)
    assert two.unreadable == one.unreadable
    for found, expected in zip(two, one, strict=True):
        for message, other in zip(found["messages"], expected["messages"], strict=True):
            for block, same in zip(message["content"], other["content"], strict=True):
                kind = block["type"]
                if kind == "text":
                    assert block == same
                else:
                    torch.testing.assert_close(block[kind].features, same[kind].features, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_process_that_fails_stops_all_with_its_reason(tmp_path, capsys, data, checkpoint):
    options = ("--processes", "2", "--max-unreadable", "0")
    assert "a process stopped, and so did the others: 1 samples could not be used, more than max_unreadable=0" in (
        refused(capsys, data["video"], tmp_path / "two", checkpoint, *options)
    )


@pytest.mark.parametrize(
    ("asked", "used"), [(None, "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cpu", "cpu")]
)
def test_processes_share_out_the_gpus(monkeypatch, asked, used):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert _device(asked, rank=3) == used


def test_unreadable_rows_are_recorded_and_left_out(tmp_path, caplog, capsys, model, processor, data, checkpoint):
    assert run(data["video"], tmp_path / "features", checkpoint) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{tmp_path / 'features'}: features of 8 rows in 3 files, 1 rows left out"
    assert out[1].startswith(f"row {UNREADABLE}: ")
    assert "absent.mp4" in out[1]
    caplog.clear()
    cached = load_features(tmp_path / "features", model, processor)
    assert list(cached.unreadable) == [UNREADABLE]
    assert "absent.mp4: does not exist" in cached.unreadable[UNREADABLE]
    assert len(cached) == 8
    assert caplog.messages == [
        f"{tmp_path / 'features'}: 1 of 9 samples could not be read and are left out; the attribute `unreadable` of "
        "the dataset has the reasons"
    ]


@pytest.mark.parametrize("processes", ("1", pytest.param("2", marks=pytest.mark.slow)))
def test_a_row_over_which_the_decoder_crashes_is_unreadable(
    tmp_path, capsys, monkeypatch, media, checkpoint, processes
):
    make_workers_crash(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hostile.png").write_bytes(HOSTILE)
    rows = [row(f"{folder / name}", "Noise") for folder, name in ((media, "a.png"), (tmp_path, "hostile.png"))]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, rows[0]]))
    options = ("--processes", processes, "--shard-size", "1")
    assert run(tmp_path / "rows.json", tmp_path / "features", checkpoint, *options) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{tmp_path / 'features'}: features of 2 rows in 3 files, 1 rows left out"
    assert out[1].startswith(f"row 1: {tmp_path / 'hostile.png'}: ended the process that opened it (signal SIGSEGV)")


def test_the_limit_of_unreadable_rows_is_the_collators(tmp_path, capsys, processor, data, checkpoint):
    folder = tmp_path / "features"
    message = refused(capsys, data["video"], folder, checkpoint, "--max-unreadable", "0")
    collator = VideoLlamaDataCollator(processor, max_unreadable=0)
    with pytest.raises(ValueError, match="1 samples could not be used, more than max_unreadable=0") as caught:
        collator([load_messages(data["video"])[UNREADABLE]])
    assert message.endswith(str(caught.value))
    assert len(shards(folder)) == 1  # the shard before stays, and the next run goes on behind it
    assert run(data["video"], folder, checkpoint) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((False,), "all 1 samples could not be used; the last reasons: "),
        ((False, False, False), "all 3 samples could not be used; "),
        ((True, False, True), "1 of 3 samples could not be used, more than max_unreadable_share=0.2; "),
    ],
)
def test_too_few_readable_rows_end_with_the_reasons(tmp_path, capsys, media, checkpoint, rows, message):
    """A run that goes on in the folder says so again."""
    data, folder = tmp_path / "rows.json", tmp_path / "features"
    names = {True: media / "a.png", False: tmp_path / "absent.mp4"}
    data.write_text(json.dumps([row(str(names[readable]), "A ball") for readable in rows]))
    for _ in range(2):
        line = refused(capsys, data, folder, checkpoint, "--max-unreadable-share", "0.2")
        assert message in line
        assert "absent.mp4: does not exist" in line


def changed(model, part: str):
    model = copy.deepcopy(model)
    parameter = getattr(model.model, part)
    parameter = parameter if isinstance(parameter, torch.Tensor) else next(parameter.parameters())
    parameter.data.view(-1)[0] += 0.5
    return model


@pytest.mark.parametrize("part", ("vision_tower", "query_tokens", "qformer"))
def test_other_weights_are_refused(model, processor, caches, part):
    with pytest.raises(
        FeatureCacheError, match=rf"are of something else: weights\.{part} was '\w+' and is '\w+'; use"
    ):
        load_features(caches["video"].folder, changed(model, part), processor)


def test_weights_that_train_or_are_not_used_may_change(model, processor, caches):
    for part in ("video_resampler", "language_model", "audio_vision_tower"):
        assert load_features(caches["video"].folder, changed(model, part), processor)
    assert load_features(caches["audio"].folder, changed(model, "vision_tower"), processor)
    with pytest.raises(FeatureCacheError, match=r"weights\.audio_vision_tower was"):
        load_features(caches["audio"].folder, changed(model, "audio_vision_tower"), processor)


def test_other_settings_of_the_processor_are_refused(model, checkpoint, caches):
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.video_processor.num_frames = 4
    processor.image_processor.resample = 2
    message = (
        r"processor\.image_processor\.resample was 3 and is 2; processor\.video_processor\.num_frames was 8 and is 4"
    )
    with pytest.raises(FeatureCacheError, match=message):
        load_features(caches["video"].folder, model, processor)


def test_a_model_without_the_trunk_is_refused(model, processor, caches):
    model = copy.deepcopy(model)
    model.model.audio_vision_tower = None
    with pytest.raises(FeatureCacheError, match=r"lacks ImageBind's vision trunk .* --with-imagebind-vision"):
        load_features(caches["audio"].folder, model, processor)
    with pytest.raises(ValueError, match="got a Linear without a VideoLlamaModel in it"):
        load_features(caches["audio"].folder, torch.nn.Linear(1, 1), processor)


@pytest.fixture
def own_cache(tmp_path, data, checkpoint):
    """A cache and a data file that a test may change."""
    path = tmp_path / "own.json"
    path.write_text(data["audio"].read_text())
    folder = tmp_path / "own"
    options = ("--media-dir", str(data["audio"].parent))
    assert run(path, folder, checkpoint, *options) == 0
    return path, folder, options


def test_a_data_file_that_changed_is_refused(capsys, own_cache, model, processor, checkpoint):
    path, folder, options = own_cache
    path.write_text(path.read_text().replace("A ball", "A cube"))
    message = r"data.checksum was '\w+' and is '\w+'"
    with pytest.raises(FeatureCacheError, match=message):
        load_features(folder, model, processor)
    assert "data.checksum was" in refused(capsys, path, folder, checkpoint, *options)
    path.unlink()  # the conversations are in the cache
    assert load_features(folder, model, processor)[0]["messages"][1]["content"] == [{"type": "text", "text": "A ball"}]


def test_a_run_with_other_options_is_refused(tmp_path, capsys, own_cache, checkpoint, checkpoints, media):
    path, folder, options = own_cache
    for other, difference in {
        ("--shard-size", "2"): "options.shard_size was 3 and is 2",
        ("--dtype", "bfloat16"): "options.dtype was 'float32' and is 'bfloat16'",
        ("--branch", "audio"): "options.branch was 'video' and is 'audio'",
        ("--media-dir", str(tmp_path)): f"data.media_dir was '{media}' and is '{tmp_path}'",
    }.items():
        assert difference in refused(capsys, path, folder, checkpoint, *options, *other)
    assert run(path, folder, checkpoint, *options, "--batch-size", "1", "--max-unreadable", "7") == 0
    moved = path.rename(tmp_path / "moved.json")
    assert run(moved, folder, checkpoint, *options) == 0


def first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def test_damaged_shards_are_refused(capsys, own_cache, model, processor, checkpoint):
    path, folder, options = own_cache
    shard = first_shard(folder)
    content = shard.read_bytes()
    advice = "delete it and run videollama precompute again with the same arguments"

    shard.write_bytes(content[:-8])
    with pytest.raises(FeatureCacheError, match=rf"{shard.name} is damaged: .*{advice}"):
        load_features(folder, model, processor)
    assert f"{shard.name} is damaged" in refused(capsys, path, folder, checkpoint, *options)

    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    cached = load_features(folder, model, processor)
    assert all(cached[i] for i in range(2))  # the last byte is of the last item
    with pytest.raises(FeatureCacheError, match=rf"{shard.name} is damaged at the item 2\.2\.2; {advice}"):
        cached[2]
    assert f"{shard.name} is damaged at the item 2.2.2; {advice}" in refused(
        capsys, path, folder, checkpoint, *options
    )

    shard.write_bytes(sorted(folder.glob("*.safetensors"))[1].read_bytes())
    with pytest.raises(
        FeatureCacheError, match=rf"{shard.name} belongs to another cache, or is another shard; {advice}"
    ):
        load_features(folder, model, processor)

    shard.unlink()
    with pytest.raises(FeatureCacheError, match="lacks 1 of 3 shards; run videollama precompute again"):
        load_features(folder, model, processor)
    assert run(path, folder, checkpoint, *options) == 0
    assert shard.read_bytes() == content


def test_damaged_folders_are_refused(tmp_path, capsys, own_cache, model, processor, checkpoint):
    path, folder, options = own_cache
    header = (folder / "features.json").read_text()
    (folder / "features.json").write_text(header[:-10])
    with pytest.raises(FeatureCacheError, match=r"features\.json is no header of features"):
        load_features(folder, model, processor)
    (folder / "features.json").unlink()
    with pytest.raises(FeatureCacheError, match=r"own has no features\.json; videollama precompute writes one"):
        load_features(folder, model, processor)
    assert "is not empty, and holds no features.json; give another folder" in (
        refused(capsys, path, folder, checkpoint, *options)
    )
    (folder / "features.json").write_text(header)
    (folder / "rows" / "state.json").unlink()
    with pytest.raises(FeatureCacheError, match=r"rows cannot be read: .*; delete it and run"):
        load_features(folder, model, processor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", "0"), "got batch_size=0, expected at least 1"),
        (("--shard-size", "-1"), "got shard_size=-1, expected at least 1"),
        (("--processes", "0"), "got processes=0, expected at least 1"),
        (("--format", "coco"), "got format='coco', expected one of messages, webvid"),
        (("--format", "webvid"), "row 1: the header"),
        (("--model", "/nowhere"), "the model /nowhere cannot be loaded"),
        (("--dtype", "int8"), "invalid choice: 'int8'"),
    ],
)
def test_wrong_arguments_end_in_one_line(tmp_path, capsys, data, checkpoint, options, message):
    assert message in refused(capsys, data["video"], tmp_path / "features", checkpoint, *options)
    assert not (tmp_path / "features").exists()


def test_shards_can_be_read_by_whom_the_header_can(caches):
    folder = caches["video"].folder
    assert {path.stat().st_mode for path in folder.glob("*.safetensors")} == {
        (folder / "features.json").stat().st_mode
    }
