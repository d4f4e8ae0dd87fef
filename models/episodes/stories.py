"""Stories with questions, made from templates in the way of the bAbI tasks (Weston et al., arXiv 1502.05698).

They are not those of the data set, which Engram does not come with: only their form, their words and their logic are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from models.episodes.base import Random, Range

PEOPLE = ("daniel", "john", "mary", "sandra")
WOMEN = ("mary", "sandra", "julie")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("apple", "football", "milk")
WENT = ("went", "went back", "moved", "journeyed", "travelled")
GOT = ("got", "grabbed", "picked up", "took")
DROPPED = ("discarded", "dropped", "left", "put down")
OTHERS = ("bill", "fred", "julie", "mary")
OTHER_PLACES = ("bedroom", "cinema", "kitchen", "office", "park", "school")
NUMBERS = ("none", "one", "two", "three")
THEN = ("after that", "afterwards", "following that", "then")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
ANIMALS = {"cat": "cats", "mouse": "mice", "sheep": "sheep", "wolf": "wolves"}
WANTS = {
    "bored": ("garden", "football"),
    "hungry": ("kitchen", "apple"),
    "thirsty": ("kitchen", "milk"),
    "tired": ("bedroom", "pajamas"),
}
TIMES = ("yesterday", "this morning", "this afternoon", "this evening")


GOING = f"{' '.join(PLACES)} back journeyed moved the to travelled went"
HANDLING = f"{GOING} {' '.join(OBJECTS)} discarded down dropped got grabbed left picked put there took up"
NAMES = " ".join(PEOPLE)
ELSEWHERE = f"{' '.join((*OTHERS, *OTHER_PLACES))} back journeyed moved the to travelled went"


@dataclass(frozen=True)
class Sentence:
    """The words of a sentence, in lower case, with its mark; a question has an answer, which follows from `supports`.

    supports: numbers of sentences, from 0.
    """

    words: tuple[str, ...]
    answer: tuple[str, ...] = ()
    supports: tuple[int, ...] = ()


class Story(ABC):
    """A story of one form."""

    words: ClassVar[str]
    """All words that it may have."""
    questions: ClassVar[Range | None] = (5, 5)
    """The questions of a story in the data; None: they vary."""
    most_questions: ClassVar[int] = 20
    facts: ClassVar[Range | None] = (2, 2)
    """The facts before each question in the data; None: they vary."""
    most_facts: ClassVar[int] = 20
    """The most facts before each question; 0: their number follows from the form."""
    all_facts: ClassVar[int] = 0
    """The facts of the whole story, where they do not depend on the questions."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.sentences: list[Sentence] = []

    @abstractmethod
    def grow(self, questions: int, facts: int) -> None:
        """Add these numbers of questions, and of facts before each."""

    def pick(self, options: Iterable[str]) -> str:
        listed = list(options)
        return listed[int(self.random.integers(len(listed)))]

    def pick_two(self, options: Sequence[str]) -> tuple[str, str]:
        one = self.pick(options)
        return one, self.pick(other for other in options if other != one)

    def chance(self) -> bool:
        return bool(self.random.random() < 0.5)

    def say(self, text: str) -> int:
        """Add a fact; return its number."""
        self.sentences.append(Sentence((*text.split(), ".")))
        return len(self.sentences) - 1

    def ask(self, text: str, answer: str, *supports: int) -> None:
        """Add a question; an answer of several words has a space between them."""
        self.sentences.append(Sentence((*text.split(), "?"), tuple(answer.split()), supports))

    def shuffled(self, options: Iterable[str]) -> list[str]:
        listed = list(options)
        return [listed[place] for place in self.random.permutation(len(listed)).tolist()]


class Growing(Story):
    """A story of facts, then a question, again and again."""

    def grow(self, questions: int, facts: int) -> None:
        for _ in range(questions):
            for _ in range(facts):
                self.fact()
            self.question()

    @abstractmethod
    def fact(self) -> None:
        """Add a fact."""

    @abstractmethod
    def question(self) -> None:
        """Add a question that the facts answer; before it, facts that it needs."""


class Where(Growing):
    """People go to places; where is one of them?"""

    words = f"{GOING} {NAMES} is where"
    people: Sequence[str] = PEOPLE
    places: Sequence[str] = PLACES

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.at: dict[str, str] = {}
        self.seen: dict[str, int] = {}

    def fact(self) -> None:
        self.move(self.pick(self.people))

    def move(self, *who: str, subject: str = "") -> None:
        """Add that some people go to a place where the first of them is not; subject: their name in the sentence."""
        place = self.pick(place for place in self.places if place != self.at.get(who[0]))
        number = self.say(f"{subject or ' and '.join(who)} {self.pick(WENT)} to the {place}")
        for one in who:
            self.come(one, place, number)

    def come(self, who: str, place: str, number: int) -> None:
        """Put a person at a place, as the fact of this number has it."""
        self.at[who], self.seen[who] = place, number

    def question(self) -> None:
        who = self.pick(self.at)
        self.ask(f"where is {who}", self.at[who], self.seen[who])


class YesOrNo(Where):
    """People go to places; is one of them in a place?"""

    words = f"{GOING} {NAMES} in is no yes"

    def question(self) -> None:
        who = self.pick(self.at)
        place = self.at[who] if self.chance() else self.pick(self.places)
        self.ask(f"is {who} in the {place}", "yes" if self.at[who] == place else "no", self.seen[who])


class Pronoun(Where):
    """Somebody goes to a place, and then she or he goes to another."""

    words = f"{Where.words} after afterwards following he she that then"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.last: tuple[str, ...] = ()

    def fact(self) -> None:
        if self.last:
            self.move(*self.last, subject=f"{self.pick(THEN)} {self.pronoun(self.last)}")
            self.last = ()
        else:
            self.last = self.subjects()
            self.move(*self.last)

    def question(self) -> None:
        super().question()
        self.last = ()

    def subjects(self) -> tuple[str, ...]:
        return (self.pick(self.people),)

    def pronoun(self, who: tuple[str, ...]) -> str:
        return "she" if who[0] in WOMEN else "he"


class Together(Where):
    """Two people go to a place."""

    words = f"{Where.words} and"

    def fact(self) -> None:
        self.move(*self.pick_two(self.people))


class They(Pronoun):
    """Two people go to a place, and then they go to another."""

    words = f"{Where.words} after afterwards and following that then they"

    def subjects(self) -> tuple[str, ...]:
        return self.pick_two(self.people)

    def pronoun(self, who: tuple[str, ...]) -> str:
        del who
        return "they"


class Negation(Where):
    """People are in places, or no longer there."""

    words = f"{YesOrNo.words} longer not"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.gone: dict[str, str] = {}

    def fact(self) -> None:
        who = self.pick(self.people)
        if self.chance():
            self.gone.pop(who, None)
            if self.chance():
                return self.move(who)
            self.at[who] = self.pick(self.places)
            self.seen[who] = self.say(f"{who} is in the {self.at[who]}")
            return None
        gone = self.at.pop(who, None)
        self.gone[who] = gone or self.gone.get(who) or self.pick(self.places)
        self.seen[who] = self.say(f"{who} is {'no longer' if gone else 'not'} in the {self.gone[who]}")
        return None

    def question(self) -> None:
        who = self.pick(self.seen)
        known = self.at.get(who)
        place = self.gone[who] if known is None else known if self.chance() else self.pick(self.places)
        self.ask(f"is {who} in the {place}", "yes" if place == known else "no", self.seen[who])


class Maybe(Where):
    """People are in a place, or in one of two."""

    words = f"{ELSEWHERE} either in is maybe no or yes"
    people, places = OTHERS, OTHER_PLACES

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.either: dict[str, tuple[str, str]] = {}

    def fact(self) -> None:
        who = self.pick(self.people)
        if self.chance():
            self.either[who] = one, other = self.pick_two(self.places)
            self.seen[who] = self.say(f"{who} is either in the {one} or the {other}")
            self.at.pop(who, None)
        else:
            self.either.pop(who, None)
            self.move(who)

    def question(self) -> None:
        who = self.pick(self.seen)
        possible = self.either.get(who) or (self.at[who],)
        place = self.pick(possible) if self.chance() else self.pick(self.places)
        answer = "no" if place not in possible else "maybe" if len(possible) == 2 else "yes"
        self.ask(f"is {who} in the {place}", answer, self.seen[who])


class Things(Where):
    """People carry things from place to place; where is one of the things?"""

    words = f"{HANDLING} {NAMES} is where"
    facts = None

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.carried: dict[str, list[str]] = {who: [] for who in self.people}
        self.history: dict[str, list[str]] = {}
        self.taken: dict[str, int] = {}
        self.carriers: dict[str, None] = {}

    def fact(self) -> None:
        who = self.pick(self.people)
        kind = self.random.random()
        if kind < 0.4 and self.takeable(who):
            self.take(who, self.pick(self.takeable(who)))
        elif kind < 0.55 and self.carried[who]:
            self.drop(who)
        else:
            self.move(who)

    def come(self, who: str, place: str, number: int) -> None:
        super().come(who, place, number)
        for thing in self.carried[who]:
            self.history[thing].append(place)

    def takeable(self, who: str) -> list[str]:
        """Return the things that a person can take: nobody has them, and they were seen nowhere else."""
        held = [thing for things in self.carried.values() for thing in things]
        place = self.at.get(who)
        return [thing for thing in OBJECTS if place and thing not in held and self.place(thing) in (place, None)]

    def take(self, who: str, thing: str) -> None:
        self.taken[thing] = self.say(f"{who} {self.pick(GOT)} the {thing}{' there' if self.chance() else ''}")
        self.carried[who].append(thing)
        self.carriers[who] = None
        if self.place(thing) is None:
            self.history[thing] = [self.at[who]]

    def drop(self, who: str) -> None:
        thing = self.pick(self.carried[who])
        self.taken[thing] = self.say(f"{who} {self.pick(DROPPED)} the {thing}{' there' if self.chance() else ''}")
        self.carried[who].remove(thing)

    def place(self, thing: str) -> str | None:
        return self.history[thing][-1] if thing in self.history else None

    def holder(self, thing: str) -> str | None:
        return next((who for who, things in self.carried.items() if thing in things), None)

    def fetch(self, thing: str) -> str:
        """Add that somebody takes a thing from where it lies; return who."""
        who, place = self.pick(self.at), self.history[thing][-1]
        if self.at[who] != place:
            self.come(who, place, self.say(f"{who} {self.pick(WENT)} to the {place}"))
        self.take(who, thing)
        return who

    def need_thing(self) -> None:
        """Add facts until a thing was taken."""
        if not self.history:
            self.take(self.pick(self.at), self.pick(OBJECTS))

    def question(self) -> None:
        self.need_thing()
        thing = self.pick(self.history)
        holder = self.holder(thing)
        moved = () if holder is None else (self.seen[holder],)
        self.ask(f"where is the {thing}", self.history[thing][-1], self.taken[thing], *moved)


class Before(Things):
    """People carry things from place to place; where was one of the things before?"""

    words = f"{HANDLING} {NAMES} before was where"
    most_facts = 40

    def question(self) -> None:
        self.need_thing()
        if not self.carried_on():
            self.carry_on()
        thing = self.pick(self.carried_on())
        before, place = self.history[thing][-2:]
        self.ask(f"where was the {thing} before the {place}", before, self.taken[thing])

    def carried_on(self) -> list[str]:
        """Return the things that were in several places."""
        return [thing for thing, places in self.history.items() if len(places) > 1]

    def carry_on(self) -> None:
        """Add that somebody carries a thing to another place."""
        thing = self.pick(self.history)
        self.move(self.holder(thing) or self.fetch(thing))


class Count(Things):
    """People carry things; how many has one of them?"""

    words = f"{HANDLING} {NAMES} carrying how is many objects {' '.join(NUMBERS)}"

    def question(self) -> None:
        who = self.asked()
        self.ask(f"how many objects is {who} carrying", NUMBERS[len(self.carried[who])], *self.of(who))

    def asked(self) -> str:
        """Return a person who carries something, or carried something before."""
        self.need_thing()
        return self.pick(self.carriers)

    def of(self, who: str) -> list[int]:
        """Return the numbers of the facts by which a person has things."""
        return sorted(self.taken[thing] for thing in self.carried[who])


class Carrying(Count):
    """People carry things; which ones has one of them?"""

    words = f"{HANDLING} {NAMES} carrying is nothing what"

    def question(self) -> None:
        who = self.asked()
        self.ask(f"what is {who} carrying", " ".join(self.carried[who]) or "nothing", *self.of(who))


class Giving(Things):
    """Somebody gives a thing to somebody; who gave what to whom?"""

    words = f"{HANDLING} bill did fred gave give handed jeff mary passed received what who"
    people = ("bill", "fred", "jeff", "mary")

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.gift: tuple[str, str, str, int] | None = None

    def fact(self) -> None:
        givers = [who for who in self.people if self.carried[who]]
        if givers and self.chance():
            self.give(self.pick(givers))
        else:
            super().fact()

    def give(self, giver: str) -> None:
        """Add that a person gives a thing to another, who is there then."""
        thing = self.pick(self.carried[giver])
        others = [one for one in self.people if one != giver]
        receiver = self.pick([one for one in others if self.at.get(one) in (None, self.at[giver])] or others)
        number = self.say(f"{giver} {self.pick(('gave', 'handed', 'passed'))} the {thing} to {receiver}")
        self.carried[giver].remove(thing)
        self.carried[receiver].append(thing)
        self.come(receiver, self.at[giver], number)
        self.gift = giver, thing, receiver, number

    def question(self) -> None:
        self.need_thing()
        if self.gift is None:
            thing = self.pick(self.history)
            self.give(self.holder(thing) or self.fetch(thing))
        assert self.gift is not None
        giver, thing, receiver, number = self.gift
        asked = {
            f"what did {giver} give to {receiver}": thing,
            f"who did {giver} give the {thing} to": receiver,
            f"who gave the {thing} to {receiver}": giver,
            f"who gave the {thing}": giver,
            f"who received the {thing}": receiver,
        }
        text = self.pick(asked)
        self.ask(text, asked[text], number)


class Times(Growing):
    """People go to places at times, in any order; where was one before?"""

    words = f"{ELSEWHERE} afternoon before evening morning this was where yesterday"
    most_questions, most_facts = 5, 3
    facts = None

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.visits: dict[str, dict[int, tuple[str, int]]] = {who: {} for who in OTHERS}

    def fact(self) -> None:
        begun = [who for who in OTHERS if 0 < len(self.visits[who]) < len(TIMES)]
        free = [who for who in OTHERS if len(self.visits[who]) < len(TIMES)]
        self.visit(self.pick(begun if begun and self.chance() else free))

    def visit(self, who: str) -> None:
        """Add that a person goes to a place where this person never was, at a time that is free."""
        visits = self.visits[who]
        free = [time for time in range(len(TIMES)) if time not in visits]
        time = free[int(self.random.integers(min(2, len(free))))]
        place = self.pick(place for place in OTHER_PLACES if place not in [one for one, _ in visits.values()])
        went = f"{who} {self.pick(WENT)} to the {place}"
        text = f"{TIMES[time]} {went}" if self.chance() else f"{went} {TIMES[time]}"
        visits[time] = place, self.say(text)

    def question(self) -> None:
        while not (able := [who for who in OTHERS if len(self.visits[who]) > 1]):
            self.visit(self.pick(who for who in OTHERS if self.visits[who]))
        who = self.pick(able)
        times = sorted(self.visits[who])
        later = int(self.random.integers(1, len(times)))
        (before, one), (place, other) = (self.visits[who][times[at]] for at in (later - 1, later))
        self.ask(f"where was {who} before the {place}", before, one, other)


class Directions(Story):
    """Two places lie in a direction from a third; which one is where?"""

    words = "bathroom bedroom east garden hallway is kitchen north of office south the west what"
    questions, most_questions = (1, 1), 1
    most_facts, all_facts = 0, 2

    def grow(self, questions: int, facts: int) -> None:
        del questions, facts
        middle, one, other = self.shuffled(PLACES)[:3]
        side = self.pick(OPPOSITE)
        back = OPPOSITE[side]
        first = f"the {one} is {side} of the {middle}" if self.chance() else f"the {middle} is {back} of the {one}"
        said = {one: self.say(first), other: self.say(f"the {other} is {back} of the {middle}")}
        asked = {
            f"what is {side} of the {middle}": one,
            f"what is {back} of the {middle}": other,
            f"what is the {middle} {back} of": one,
            f"what is the {middle} {side} of": other,
        }
        text = self.pick(asked)
        self.ask(text, asked[text], said[asked[text]])


class Fears(Story):
    """Animals are afraid of animals; of which is one of them afraid?"""

    words = "a afraid are cat cats emily gertrude is jessica mice mouse of sheep what winona wolf wolves"
    questions, most_questions = (4, 4), 4
    most_facts, all_facts = 0, 8

    def grow(self, questions: int, facts: int) -> None:
        del facts
        feared = {kind: self.pick(other for other in ANIMALS if other != kind) for kind in ANIMALS}
        kinds = {name: self.pick(ANIMALS) for name in ("emily", "gertrude", "jessica", "winona")}
        fears = {kind: f"{ANIMALS[kind]} are afraid of {ANIMALS[other]}" for kind, other in feared.items()}
        each = {name: f"{name} is a {kind}" for name, kind in kinds.items()}
        said = {text: self.say(text) for text in self.shuffled((*fears.values(), *each.values()))}
        for name in self.shuffled(kinds)[:questions]:
            kind = kinds[name]
            self.ask(f"what is {name} afraid of", feared[kind], said[each[name]], said[fears[kind]])


class Colours(Story):
    """Animals of one kind have one colour; which has the one whose colour is not given?"""

    words = "a bernhard brian color frog gray green greg is julius lily lion rhino swan what white yellow"
    questions, most_questions = (1, 1), 1
    most_facts, all_facts = 0, 9

    def grow(self, questions: int, facts: int) -> None:
        del questions, facts
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


class Motives(Story):
    """People want something; where do they go, and why?"""

    words = "antoine apple back bedroom bored did football garden get go got grabbed hungry is jason journeyed kitchen "
    words += "milk moved pajamas picked sumit the there thirsty tired to took travelled up went where why will yann"
    questions, most_questions = None, 12
    facts, most_facts, all_facts = None, 0, 12

    def grow(self, questions: int, facts: int) -> None:
        del facts
        for who in self.shuffled(("antoine", "jason", "sumit", "yann"))[: -(-questions // 3)]:
            want = self.pick(WANTS)
            place, thing = WANTS[want]
            reason = self.say(f"{who} is {want}")
            self.ask(f"where will {who} go", place, reason)
            self.say(f"{who} {self.pick(WENT)} to the {place}")
            self.ask(f"why did {who} go to the {place}", want, reason)
            self.say(f"{who} {self.pick(GOT)} the {thing} there")
            self.ask(f"why did {who} get the {thing}", want, reason)
        asked = [number for number, sentence in enumerate(self.sentences) if sentence.answer]
        del self.sentences[asked[questions - 1] + 1 :]


STORIES: dict[int, tuple[str, type[Story]]] = {
    1: ("one supporting fact", Where),
    2: ("two supporting facts", Things),
    3: ("three supporting facts", Before),
    4: ("two arguments", Directions),
    5: ("three arguments", Giving),
    6: ("yes or no", YesOrNo),
    7: ("counting", Count),
    8: ("lists", Carrying),
    9: ("negation", Negation),
    10: ("indefinite knowledge", Maybe),
    11: ("pronouns", Pronoun),
    12: ("conjunction", Together),
    13: ("pronouns of two", They),
    14: ("times", Times),
    15: ("deduction", Fears),
    16: ("induction", Colours),
    20: ("motives", Motives),
}
"""The tasks of bAbI that have templates here: a name, and the form of their stories."""
