"""
Trains and tests a tiny Video-LLaMA, from nothing, on two CPU cores: `python -m examples.tiny [FOLDER]`.

Every phase keeps what it makes in FOLDER; a phase that is complete is skipped when the command runs again.
"""

import argparse
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, AutoProcessor, set_seed

from . import data, frames, imagebind, language, stages, world
from .card import write_card
from .evaluate import evaluate
from .model import load_part, load_tokenizer, new_model, save_model, save_part, train_tokenizer
from .report import write_report
from .training import Schedule


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    clips: dict[str, int]
    language: int
    frames: int
    pictures: int
    sounds: int
    stage: dict[str, int]  # steps
    graded: int  # scenes in text


FULL = Sizes(
    clips={"things": 8000, "sounding": 400, "held_out": 288},
    language=1600,
    frames=700,
    pictures=500,
    sounds=300,
    stage={"vl1": 2400, "vl2": 1500, "al1": 150, "al2": 200},
    graded=297,
)
SMOKE = Sizes(
    clips={"things": 16, "sounding": 16, "held_out": 12},
    language=3,
    frames=3,
    pictures=2,
    sounds=2,
    stage={"vl1": 2, "vl2": 2, "al1": 2, "al2": 2},
    graded=9,
)


# Learning rates of the matrices. The video branch goes on gently from what captions have taught it: at the rate of
# captions that is lost at first. The audio branch has less to tell; slowly, it stays at answers that are wrong.
STAGE_RATES = {"vl1": 5e-3, "vl2": 2e-3, "al1": 2e-2, "al2": 2e-2}


class Run:
    """A training run in a folder: its phases in their order."""

    def __init__(self, folder: Path, sizes: Sizes, seed: int):
        self.folder, self.sizes, self.seed = folder, sizes, seed
        self.clips = folder / "clips"
        self.started = time.time()

    def say(self, text: str) -> None:
        print(f"[{time.time() - self.started:5.0f} s] {text}", flush=True)

    def phase(self, name: str, make) -> dict:
        """What `make` returned when this phase ran, now or before."""
        record = self.folder / f"{name}.json"
        if not record.exists():
            self.say(f"{name} ...")
            set_seed(self.seed)
            start = time.time()
            result = {**(make() or {}), "seconds": None}
            result["seconds"] = round(time.time() - start, 1)
            record.write_text(json.dumps(result, indent=1))
        self.say(f"{name}: done")
        return json.loads(record.read_text())

    def part(self, name: str, train) -> dict:
        """A phase that trains one part of the model, which it leaves frozen."""
        path = self.folder / f"{name}.safetensors"

        def make() -> dict:
            result = train()
            save_part(self.model, path)
            return result

        result = self.phase(name, make)
        load_part(self.model, path)
        self.model.eval()
        return result

    def schedule(self, steps: int, learning_rate: float) -> Schedule:
        return Schedule(steps, learning_rate, np.random.default_rng([self.seed, steps]), self.say)

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, number in self.sizes.clips.items():
            self.phase(
                f"clips-{name}", lambda name=name, number=number: data.make_clips(self.clips, name, number, self.seed)
            )
        if not (self.folder / "tokenizer" / "tokenizer.model").exists():
            train_tokenizer(language.sentences_for_tokenizer(), self.folder / "tokenizer")
        self.model, self.processor = new_model(load_tokenizer(self.folder / "tokenizer"), self.seed)
        self.model.eval()

    def language(self) -> dict:
        schedule = self.schedule(self.sizes.language, 1e-2)
        with reduced_precision():
            language.train_language_model(self.model, self.processor, schedule)
        grades = language.grade(self.model.eval(), self.processor, self.sizes.graded)
        self.say(f"  text of held-out combinations: {np.mean(list(grades.values())):.1%} right, worst {worst(grades)}")
        return {"losses": {"language": schedule.losses}, "grades": grades}

    def frames(self) -> dict:
        schedule = self.schedule(self.sizes.frames, 5e-3)
        with reduced_precision():
            frames.train_frame_encoder(self.model, schedule)
        return {"losses": {"frames": schedule.losses}}

    def imagebind(self) -> dict:
        pictures, sounds = self.schedule(self.sizes.pictures, 1e-2), self.schedule(self.sizes.sounds, 1e-2)
        with reduced_precision():
            imagebind.train_pictures(self.model, pictures)
        bound = self.bind_sounds(sounds)
        return {**bound, "losses": {"pictures": pictures.losses, **bound["losses"]}}

    def bind_sounds(self, schedule: Schedule, *, shuffled: bool = False) -> dict:
        extractor = self.processor.feature_extractor
        with reduced_precision():
            imagebind.train_sounds(self.model, extractor, schedule, shuffled=shuffled)
        found = imagebind.retrieval(self.model.eval(), extractor, np.random.default_rng(self.seed))
        self.say(f"  {found:.1%} of sounds are nearest to their picture")
        return {"losses": {"sounds": schedule.losses}, "retrieval": found}

    def seen(self, name: str, branch: str) -> stages.Clips:
        """What the frozen encoders of a branch see in the clips of a folder."""
        index, path = data.read_index(self.clips, name), self.folder / f"features-{name}.safetensors"

        def make() -> None:
            seen = stages.encode_clips(self.model, self.processor, [clip for clip, _ in index], branch)
            save_file({"features": torch.stack(seen)}, path)

        self.phase(f"features-{name}", make)
        return stages.Clips(list(load_file(path)["features"]), [scene for _, scene in index])

    def stage(self, name: str, *, frame_positions: bool = True) -> dict:
        clips, beside = self.seen("things", "video"), self.seen("sounding", "audio")
        if name.startswith("al"):
            clips, beside = beside, clips
        losses = stages.train_stage(
            name,
            self.model,
            self.processor,
            clips,
            self.folder / "trainer",
            steps=self.sizes.stage[name],
            learning_rate=STAGE_RATES[name],
            seed=self.seed,
            beside=beside,
            positions=frame_positions,
        )
        return {"losses": {name: losses}}

    def train(self) -> None:
        self.prepare()
        for name, train in (("language", self.language), ("frames", self.frames), ("imagebind", self.imagebind)):
            self.part(name, train)
        for name in ("vl1", "al1", "vl2", "al2"):
            self.part(name, lambda name=name: self.stage(name))
        save_model(self.model, self.processor, self.folder / "model")
        self.say(f"saved {self.folder / 'model'}")

    def evaluate(self) -> dict[str, dict]:
        """Test the saved model on held-out files, with its ears and without."""
        model = AutoModelForMultimodalLM.from_pretrained(self.folder / "model", dtype=torch.float32).eval()
        processor = AutoProcessor.from_pretrained(self.folder / "model")
        clips = data.read_index(self.clips, "held_out")
        with_sound = [(path, scene) for path, scene in clips if scene.sound]
        deaf = partial(evaluate, model, processor, with_sound, self.seed, load_audio_from_video=False)
        return {
            "full": self.phase("test", partial(evaluate, model, processor, clips, self.seed)),
            "without audio branch": self.phase("test-deaf", deaf),
        }

    def ablate(self) -> dict[str, dict]:
        """Train again what the paper says is needed, without it, and test."""
        return {"without frame positions": self._without_positions(), "shuffled pairs": self._with_shuffled_pairs()}

    def _without_positions(self) -> dict:
        self.model.model.video_resampler = new_model(self.processor.tokenizer, self.seed)[0].model.video_resampler
        for name in ("vl1", "vl2"):
            self.part(f"{name}-unordered", partial(self.stage, name, frame_positions=False))
        result = self.phase("test-unordered", partial(self._test, [*world.ABOUT_A_THING, "count"], silent=True))
        load_part(self.model, self.folder / "vl2.safetensors")
        return result

    def _with_shuffled_pairs(self) -> dict:
        self.model.model.audio_tower = new_model(self.processor.tokenizer, self.seed)[0].model.audio_tower
        sounds = self.schedule(self.sizes.sounds, 1e-2)
        self.part("imagebind-shuffled", partial(self.bind_sounds, sounds, shuffled=True))
        result = self.phase("test-shuffled", partial(self._test, ["hear"], silent=False))
        load_part(self.model, self.folder / "imagebind.safetensors")
        return result

    def _test(self, kinds: list[str], *, silent: bool) -> dict:
        clips = [row for row in data.read_index(self.clips, "held_out") if (row[1].sound is None) == silent]
        return evaluate(self.model, self.processor, clips, self.seed, kinds=kinds)


def reduced_precision() -> torch.autocast:
    """bfloat16 in the multiplications of matrices; weights change between them, so none are kept."""
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)


def worst(grades: dict[str, float]) -> str:
    name = min(grades, key=grades.get)
    return f"{name}: {grades[name]:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo/tiny"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--smoke", action="store_true", help="run through everything in about a minute, learning nothing"
    )
    parser.add_argument("--ablations", action="store_true", help="also train without frame positions and true pairs")
    options = parser.parse_args()
    run = Run(options.folder, SMOKE if options.smoke else FULL, options.seed)
    run.train()
    results = run.evaluate()
    if options.ablations:
        results |= run.ablate()
    write_card(run.folder / "model", run.model.num_parameters(), results, run.seed)
    print(write_report(run.folder, results))


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))  # more would wait for each other: everything is small
    main()
