"""
The world that the tiny model sees and hears: coloured shapes that move, and things that sound.

A `Scene` says what a clip shows and what is heard. Everything said about it, captions, questions and answers, and the
descriptions that stand in the place of media while the language model learns to read, follows from it.
"""

from dataclasses import dataclass

import numpy as np


COLOURS = {
    "red": (225, 45, 45),
    "green": (40, 180, 60),
    "blue": (50, 90, 235),
    "yellow": (240, 215, 40),
    "purple": (150, 50, 190),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "still": "stays still",
}
SOUNDS = {
    "bell": "a bell",
    "drum": "a drum",
    "siren": "a siren",
    "rain": "the rain",
    "bird": "a bird",
    "engine": "an engine",
    "clock": "a clock",
    "whistle": "a whistle",
}
NUMBERS = ("no", "one", "two", "three", "four")
MAX_OBJECTS = 3
ABOUT_A_THING = ("colour", "shape", "motion")

QUESTIONS = {
    "colour": ("What colour is {}?", "What color is {}?", "Which colour does {} have?"),
    "shape": ("What shape is {}?", "Which shape does {} have?"),
    "motion": ("How does {} move?", "Which way does {} move?", "Where does {} go?"),
    "count": ("How many objects are there?", "How many objects do you see?"),
    "see": ("What do you see?", "Describe the video.", "What happens in the video?"),
    "hear": ("What do you hear?", "What can you hear?", "What is the sound?"),
    "see and hear": ("What do you see and hear?", "Describe what you see and hear."),
}


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured shape that moves."""

    shape: str
    colour: str
    motion: str

    @property
    def held_out(self) -> bool:
        """Whether clips for training never have it: for every colour and shape, one motion of five."""
        ranks = (
            list(COLOURS).index(self.colour),
            SHAPES.index(self.shape),
            list(MOTIONS).index(self.motion),
        )
        return sum(ranks) % len(MOTIONS) == 0


@dataclass(frozen=True)
class Scene:
    """What a clip shows and what is heard; `None` says that there is no such stream."""

    things: tuple[Thing, ...] | None
    sound: str | None = None


@dataclass(frozen=True)
class Question:
    """A question of one `kind` (a key of `QUESTIONS`) about a scene, and the right answer."""

    kind: str
    text: str
    answer: str


THINGS = tuple(Thing(shape, colour, motion) for shape in SHAPES for colour in COLOURS for motion in MOTIONS)


def random_things(rng: np.random.Generator, number: int, *, held_out: bool | None) -> tuple[Thing, ...]:
    """`number` things of one split or (`None`) of both, of different shapes and colours, in the order of `SHAPES`."""
    chosen: list[Thing] = []
    while len(chosen) < number:
        left = [
            thing
            for thing in THINGS
            if held_out in (None, thing.held_out)
            and all(thing.shape != other.shape and thing.colour != other.colour for other in chosen)
        ]
        chosen.append(left[rng.integers(len(left))])
    return tuple(sorted(chosen, key=lambda thing: SHAPES.index(thing.shape)))


def clause(thing: Thing) -> str:
    """What stands for a thing in a description."""
    return f"{thing.colour} {thing.shape} {thing.motion}."


def caption(scene: Scene) -> str:
    """What a caption says of what is there: all that is seen, or what is heard where nothing is to be seen."""
    return f"I hear {_heard(scene)}." if scene.things is None else f"I see {_seen(scene)}."


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """One question of every kind, and on colour, shape and motion one about each thing, in a wording by chance."""
    asked = [
        _ask("see", f"I see {_seen(scene)}.", rng),
        _ask("hear", f"I hear {_heard(scene)}.", rng),
        _ask("see and hear", f"I see {_seen(scene)} and I hear {_heard(scene)}.", rng),
    ]
    if not scene.things:
        return asked
    asked.append(_ask("count", _count(len(scene.things)), rng))
    for thing in scene.things:
        asked += [_ask_about(kind, thing, len(scene.things), rng) for kind in ABOUT_A_THING]
    return asked


def _ask(kind: str, answer: str, rng: np.random.Generator, name: str = "") -> Question:
    texts = QUESTIONS[kind]
    return Question(kind, texts[rng.integers(len(texts))].format(name), answer)


def _ask_about(kind: str, thing: Thing, number: int, rng: np.random.Generator) -> Question:
    """A question about one thing, which it names by what is not asked for."""
    by_shape, by_colour = f"the {thing.shape}", f"the {thing.colour} object"
    names = {
        "colour": [by_shape],
        "shape": [by_colour],
        "motion": [by_shape, by_colour, f"the {thing.colour} {thing.shape}"],
    }[kind]
    if number == 1 and rng.random() < 0.5:
        names = ["the object"]
    name = names[rng.integers(len(names))]
    predicate = {"colour": f"is {thing.colour}", "shape": f"is a {thing.shape}", "motion": MOTIONS[thing.motion]}[kind]
    return _ask(kind, f"{name.capitalize()} {predicate}.", rng, name)


def _count(number: int) -> str:
    return f"There is {NUMBERS[number]} object." if number == 1 else f"There are {NUMBERS[number]} objects."


def _seen(scene: Scene) -> str:
    if not scene.things:
        return "nothing"
    return " and ".join(f"a {thing.colour} {thing.shape} that {MOTIONS[thing.motion]}" for thing in scene.things)


def _heard(scene: Scene) -> str:
    return "nothing" if scene.sound is None else SOUNDS[scene.sound]
