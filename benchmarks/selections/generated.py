"""Generated examples in the form of eight tasks of BIG-Bench Hard.

The authors of the benchmark ask not to train on its rows, but the adapter of a task is trained on its examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

from catalog.tasks.examples import Example

Make = Callable[[random.Random], tuple[str, str]]
PEOPLE = ("Ada", "Bo", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jun")
THINGS = {
    "fruits": ("apple", "banana", "plum", "peach", "grape", "orange", "cherry"),
    "vegetables": ("carrot", "potato", "onion", "cabbage", "beet", "turnip", "leek"),
    "animals": ("dog", "cat", "goat", "frog", "bear", "snail", "duck"),
    "objects": ("lamp", "chair", "table", "stove", "car", "bed", "fridge"),
}
PLURALS = {"peach": "peaches", "cherry": "cherries", "potato": "potatoes", "cabbage": "cabbages"}
COUNTS = ("", "two", "three", "four")
ADJECTIVES = (  # in the order of English grammar
    ("lovely", "awful", "good"), ("big", "small", "huge"), ("old", "new", "ancient"), ("round", "square", "flat"),
    ("red", "green", "black"), ("Greek", "Polish", "Chilean"), ("wooden", "steel", "paper"),
    ("walking", "eating", "driving"),
)  # fmt: skip
NOUNS = ("knife", "boat", "shoe", "car", "box", "hat")
WORDS = (
    "amber", "bridge", "canyon", "desert", "engine", "forest", "garden", "harbor", "island", "jungle", "kettle",
    "ladder", "market", "needle",
)  # fmt: skip
BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}


def boolean_expressions(draw: random.Random) -> tuple[str, str]:
    terms = [draw.choice(("True", "False", "not True", "not False", "( True )", "( False )")) for _ in range(4)]
    text = " ".join([terms[0], *(f"{draw.choice(('and', 'or'))} {term}" for term in terms[1:])])
    return f"{text} is", str(eval(text, {"__builtins__": {}}))


def dyck_languages(draw: random.Random) -> tuple[str, str]:
    opened = [draw.choice(list(BRACKETS)) for _ in range(draw.randint(2, 4))]
    closed = draw.choice(list(BRACKETS))
    text = " ".join([opened[0], closed, BRACKETS[closed], *opened[1:]])
    question = "Complete the rest of the sequence, making sure that the parentheses are closed properly. Input: "
    return question + text, " ".join(BRACKETS[each] for each in reversed(opened))


def hyperbaton(draw: random.Random) -> tuple[str, str]:
    kinds = sorted(draw.sample(range(len(ADJECTIVES)), 4))
    right = [draw.choice(ADJECTIVES[kind]) for kind in kinds]
    wrong = right[::-1] if draw.random() < 0.5 else [right[1], right[3], right[0], right[2]]
    noun, first = draw.choice(NOUNS), draw.random() < 0.5
    one, other = (right, wrong) if first else (wrong, right)
    lines = f"(A) {' '.join(one)} {noun}\n(B) {' '.join(other)} {noun}"
    return f"Which sentence has the correct adjective order:\nOptions:\n{lines}", "(A)" if first else "(B)"


def multistep_arithmetic_two(draw: random.Random) -> tuple[str, str]:
    def bracket() -> str:
        numbers = [str(draw.randint(-9, 9)) for _ in range(4)]
        return "(" + " ".join([numbers[0], *(f"{draw.choice('+-*')} {each}" for each in numbers[1:])]) + ")"

    text = f"({bracket()} {draw.choice('+-*')} {bracket()})"
    return f"{text} =", str(eval(text, {"__builtins__": {}}))


def navigate(draw: random.Random) -> tuple[str, str]:
    ways = {"left": (-1, 0), "right": (1, 0), "forward": (0, 1), "backward": (0, -1)}
    steps = [(draw.randint(1, 10), draw.choice(list(ways))) for _ in range(3)]
    if draw.random() < 0.5:
        opposite = {"left": "right", "right": "left", "forward": "backward", "backward": "forward"}
        steps += [(count, opposite[way]) for count, way in steps]
        draw.shuffle(steps)
    at = [sum(count * ways[way][axis] for count, way in steps) for axis in (0, 1)]
    directions = " ".join(f"Take {count} step{'s' * (count > 1)} {way}." for count, way in steps)
    question = "If you follow these instructions, do you return to the starting point? Always face forward."
    return f"{question} {directions}\nOptions:\n- Yes\n- No", "No" if any(at) else "Yes"


def object_counting(draw: random.Random) -> tuple[str, str]:
    kind, other = draw.sample(list(THINGS), 2)
    said, count = [], 0
    for thing, counts in [(thing, True) for thing in draw.sample(THINGS[kind], 5)] + [
        (thing, False) for thing in draw.sample(THINGS[other], 2)
    ]:
        number = draw.randint(1, 4)
        article = "an" if thing[0] in "aeiou" else "a"
        said.append(f"{COUNTS[number - 1]} {PLURALS.get(thing, f'{thing}s')}" if number > 1 else f"{article} {thing}")
        count += number if counts else 0
    draw.shuffle(said)
    return f"I have {', '.join(said[:-1])}, and {said[-1]}. How many {kind} do I have?", str(count)


def web_of_lies(draw: random.Random) -> tuple[str, str]:
    people = draw.sample(PEOPLE, 5)
    true = draw.random() < 0.5
    said = [f"{people[0]} {'tells the truth' if true else 'lies'}."]
    for before, person in pairwise(people):
        claim = draw.random() < 0.5  # that the one before tells the truth
        said.append(f"{person} says {before} {'tells the truth' if claim else 'lies'}.")
        true = claim == true
    return f"Question: {' '.join(said)} Does {people[-1]} tell the truth?", "Yes" if true else "No"


def word_sorting(draw: random.Random) -> tuple[str, str]:
    words = draw.sample(WORDS, draw.randint(3, 8))
    return f"Sort the following words alphabetically: List: {' '.join(words)}", " ".join(sorted(words))


YES_NO = ("Yes", "No")
# for each task: the generator, the instruction, and the possible answers if there are few
TASKS: dict[str, tuple[Make, str, tuple[str, ...]]] = {
    "boolean_expressions": (boolean_expressions, "Evaluate the Boolean expression.", ("True", "False")),
    "dyck_languages": (dyck_languages, "Close the open brackets.", ()),
    "hyperbaton": (hyperbaton, "Answer with the letter of the right option.", ("(A)", "(B)")),
    "multistep_arithmetic_two": (multistep_arithmetic_two, "Compute the value of the expression.", ()),
    "navigate": (navigate, "Answer Yes or No.", YES_NO),
    "object_counting": (object_counting, "Answer with a number.", tuple(map(str, range(2, 21)))),
    "web_of_lies": (web_of_lies, "Answer Yes or No.", YES_NO),
    "word_sorting": (word_sorting, "Sort the words.", ()),
}


def examples(task: str, count: int) -> list[Example]:
    """`count` examples, the same ones in each call."""
    make, instruction, _ = TASKS[task]
    draw = random.Random(task)
    rows = (make(draw) for _ in range(count))
    return [Example(instruction, answer, question) for question, answer in rows]
