"""Stories whose answers follow from two facts or three: of animals, of sizes, and of what lies where."""

from models.episodes.people import PLACES
from models.episodes.stories import Puzzle

ANIMALS = {"cat": "cats", "mouse": "mice", "sheep": "sheep", "wolf": "wolves"}
CONTAINERS = ("box", "chest", "container", "suitcase")
SHAPES = ("blue square", "pink rectangle", "red sphere", "red square", "triangle", "yellow square")

COMPASS = {"north of": (0, 1), "south of": (0, -1), "west of": (-1, 0), "east of": (1, 0)}
SIDES = {"above": (0, 1), "below": (0, -1), "to the left of": (-1, 0), "to the right of": (1, 0)}
OPPOSITE = {
    "north of": "south of",
    "south of": "north of",
    "west of": "east of",
    "east of": "west of",
    "above": "below",
    "below": "above",
    "to the left of": "to the right of",
    "to the right of": "to the left of",
}


class Fears(Puzzle):
    """Animals are afraid of animals; of which is one of them afraid?"""

    words = "a afraid are cat cats emily gertrude is jessica mice mouse of sheep what winona wolf wolves"
    questions, most_questions = (4, 4), 4
    all_facts = 8

    def pose(self, questions: int) -> None:
        feared = {kind: self.pick(other for other in ANIMALS if other != kind) for kind in ANIMALS}
        names = ("emily", "gertrude", "jessica", "winona")
        kinds: dict[str, str] = {}
        said: dict[str, int] = {}
        while left := [one for one in (*ANIMALS, *names) if one not in said]:
            one = self.pick(left)
            if one in ANIMALS:
                said[one] = self.say(f"{ANIMALS[one]} are afraid of {ANIMALS[feared[one]]}")
            elif (kind := self.pick(ANIMALS)) in said:  # an animal is named after the fear of its kind
                kinds[one], said[one] = kind, self.say(f"{one} is a {kind}")
        for _ in range(questions):
            name = self.pick(names)
            self.ask(f"what is {name} afraid of", feared[kinds[name]], said[name], said[kinds[name]])


class Colours(Puzzle):
    """Animals of one kind have one colour; which has the one whose colour is not given?"""

    words = "a bernhard brian color frog gray green greg is julius lily lion rhino swan what white yellow"
    questions, most_questions = (1, 1), 1
    all_facts = 9

    def pose(self, questions: int) -> None:
        del questions
        asked, like, *others = self.shuffled(("bernhard", "brian", "greg", "julius", "lily"))
        kinds = {name: self.pick(("frog", "lion", "rhino", "swan")) for name in (like, *others)}
        kinds[asked] = kinds[like]
        shades = self.shuffled(("gray", "green", "white", "yellow"))
        colours = {kind: shades.pop() for kind in dict.fromkeys(kinds.values())}
        each = {name: f"{name} is a {kind}" for name, kind in kinds.items()}
        shown = {name: f"{name} is {colours[kinds[name]]}" for name in (like, *others)}
        said = {text: self.say(text) for text in self.shuffled((*each.values(), *shown.values()))}
        supports = sorted(said[text] for text in (each[asked], each[like], shown[like]))
        self.ask(f"what color is {asked}", colours[kinds[asked]], *supports)


class Sizes(Puzzle):
    """Things fit inside others; is one bigger than another, which it is by way of a third?"""

    words = "bigger box chest chocolate chocolates container does fit fits in inside is no of suitcase than the yes"
    all_facts, most_words = 5, 11

    def pose(self, questions: int) -> None:
        sizes = ["chocolate", "box of chocolates", *self.shuffled(CONTAINERS)]
        pairs = [(small, big) for at, big in enumerate(sizes) for small in sizes[:at]]
        chains: list[tuple[int, int]] = []
        while not chains:
            facts = [self.pick(pairs) for _ in range(self.all_facts)]
            chains = [(one, other) for one in range(5) for other in range(5) if facts[one][1] == facts[other][0]]
        for small, big in facts:
            self.say(f"the {small} fits inside the {big}" if self.chance() else f"the {big} is bigger than the {small}")
        for _ in range(questions):
            one, other = self.pick(chains)
            self.compare(facts[one][0], facts[other][1], one, other)

    def compare(self, small: str, big: str, *supports: int) -> None:
        """Ask whether the one fits in the other, which is so, or the other in it."""
        is_so = self.chance()
        inner, outer = (small, big) if is_so else (big, small)
        asked = f"does the {inner} fit in the {outer}" if self.chance() else f"is the {outer} bigger than the {inner}"
        self.ask(asked, "yes" if is_so else "no", *supports)


class Placed(Puzzle):
    """A story of what lies on which side of what."""

    def worded(self, one: str, side: str, other: str) -> tuple[str, str, str]:
        """Return how to say that one lies on a side of another, or the other opposite it: subject, side, object."""
        return (one, side, other) if self.chance(2 / 3) else (other, OPPOSITE[side], one)

    def lies(self, subject: str, side: str, other: str) -> int:
        return self.say(f"the {subject} is {side} the {other}")


class Directions(Placed):
    """Two places lie in opposite directions from a third; which one is where?"""

    words = "bathroom bedroom east garden hallway is kitchen north of office south the west what"
    questions, most_questions = (1, 1), 1
    all_facts = 2

    def pose(self, questions: int) -> None:
        del questions
        middle, *ends = self.shuffled(PLACES)[:3]
        side = self.pick(COMPASS)
        sides = dict(zip(ends, (side, OPPOSITE[side]), strict=True))
        said = {fact: self.lies(*fact) for fact in [self.worded(end, sides[end], middle) for end in ends]}
        subject, side, other = fact = self.pick(said)
        asked = self.pick((f"what is {side} the {other}", f"what is the {other} {OPPOSITE[side]}"))
        self.ask(asked, subject, said[fact])


class Positions(Placed):
    """Two shapes lie on two sides of a third; does the one lie on a side of the other?"""

    words = "above below blue is left no of pink rectangle red right sphere square the to triangle yellow yes"
    questions = (8, 8)
    all_facts, most_words = 2, 13

    def pose(self, questions: int) -> None:
        middle, *ends = self.shuffled(SHAPES)[:3]
        sides = dict(zip(ends, self.shuffled(SIDES), strict=False))
        said = {end: self.lies(*self.worded(end, sides[end], middle)) for end in ends}
        for _ in range(questions):
            one, other = self.shuffled(ends)
            is_so = self.chance()
            side = self.pick(side for side in SIDES if is_toward(side, sides[one], sides[other]) == is_so)
            self.ask(f"is the {one} {side} the {other}", "yes" if is_so else "no", said[one], said[other])


def is_toward(side: str, one: str, other: str) -> bool:
    """Return whether what lies at `one` is farther to a side than what lies at `other`."""
    (right, up), (x, y), (from_x, from_y) = SIDES[side], SIDES[one], SIDES[other]
    return right * (x - from_x) + up * (y - from_y) > 0


class Ways(Placed):
    """Places lie beside one another; how does one go from the one to the other, two steps away?"""

    words = (
        "bathroom bedroom do e east from garden go hallway how is kitchen n north of office s south the to w west you"
    )
    questions, most_questions = (1, 1), 1
    all_facts, most_words = 5, 12

    def pose(self, questions: int) -> None:
        del questions
        start, middle, end, *others = self.shuffled(PLACES)
        first, last = self.shuffled(COMPASS)[:2]
        path = [(start, first, middle), (end, last, middle)]
        taken = [(middle, first), (middle, last), (start, OPPOSITE[first]), (end, OPPOSITE[last])]
        free = [(place, side) for place in (start, middle, end) for side in COMPASS if (place, side) not in taken]
        beside = [(other, side, place) for other, (place, side) in zip(others, self.shuffled(free), strict=False)]
        said = {fact: self.lies(*self.worded(*fact)) for fact in self.shuffled((*path, *beside))}
        answer = f"{OPPOSITE[first][0]} {last[0]}"
        self.ask(f"how do you go from the {start} to the {end}", answer, *(said[fact] for fact in path))
