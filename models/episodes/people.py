"""Stories of people who go to places."""

from collections.abc import Sequence

from models.episodes.base import Random
from models.episodes.stories import Growing

PEOPLE = ("daniel", "john", "mary", "sandra")
WOMEN = ("mary", "sandra", "julie")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
WENT = ("went", "went back", "moved", "journeyed", "travelled")
OTHERS = ("bill", "fred", "julie", "mary")
OTHER_PLACES = ("bedroom", "cinema", "kitchen", "office", "park", "school")
THEN = ("after that", "afterwards", "following that", "then")
TIMES = ("yesterday", "this morning", "this afternoon", "this evening")

GOING = f"{' '.join(PLACES)} back journeyed moved the to travelled went"
NAMES = " ".join(PEOPLE)
ELSEWHERE = f"{' '.join((*OTHERS, *OTHER_PLACES))} back journeyed moved the to travelled went"


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


class Times(Growing):
    """People go to places at times, in any order; where was one before?"""

    words = f"{ELSEWHERE} afternoon before evening morning this was where yesterday"
    most_questions, most_facts = 5, 3

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
        time = free[0] if self.chance(3 / 4) else self.pick(free[:2])
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
