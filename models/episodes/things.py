"""Stories of people who carry things from place to place, or go where they find what they want."""

from models.episodes.base import Random
from models.episodes.people import GOING, NAMES, WENT, Where
from models.episodes.stories import Story

OBJECTS = ("apple", "football", "milk")
GOT = ("got", "grabbed", "picked up", "took")
DROPPED = ("discarded", "dropped", "left", "put down")
NUMBERS = ("none", "one", "two", "three")
WANTS = {
    "bored": ("garden", "football"),
    "hungry": ("kitchen", "apple"),
    "thirsty": ("kitchen", "milk"),
    "tired": ("bedroom", "pajamas"),
}

HANDLING = f"{GOING} {' '.join(OBJECTS)} discarded down dropped got grabbed left picked put there took up"


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
