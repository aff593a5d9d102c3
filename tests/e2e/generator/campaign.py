"""Sends hostile statements by kind for so long, from a seed, in two worlds that differ in protected values alone.

    campaign.py SECONDS SEED [FINDINGS_MAX]      the environment says where, as for corpus/run.py

A finding is: a canary in what was received, an answer that differs between the worlds, or a database that has changed. It is
printed with the number that made it (`campaign.py --one SEED NUMBER` shows it again) and made as small as it gets."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "corpus"))

import forms
from canary import Watch
from choices import Choices, smaller
from grammar import hostile
from run import Place, difference, seen
from wire import Session, errors

WORLDS = ("shop", "twin")
ROUND = 25
SHRINK_MAX_S = 20
STATEMENT_MAX_MS = 3000


class Desk:
    """Sessions by role and world, and what they were told."""

    def __init__(self):
        self.place, self.watch, self.sessions = Place(), Watch(), {}
        self.asked = self.refused = self.answered = 0

    def session(self, role, world):
        session = self.sessions.get((role, world))
        if session is None or session.ended is not None:
            session = self.sessions[role, world] = Session(**self.place.through(role, world))
            forms.simple(session, [f"set statement_timeout = {STATEMENT_MAX_MS}"])
        return session

    def forget(self):
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()

    def told(self, role, statements, form, world):
        session = self.session(role, world)
        answer = forms.answered(session, "", lambda s: forms.FORMS[form](s, statements), [])
        if session.ended is None:
            forms.simple(session, ["rollback"])
        return answer

    def fault(self, role, statements, form):
        """What is wrong with how this is answered, if anything."""
        answer, other = (self.told(role, statements, form, world) for world in WORLDS)
        if canaries := self.watch.seen(answer.received):
            return f"shows {sorted(canaries)[:3]}"
        if answer.ended or other.ended:
            return f"ends the session: {answer.ended or other.ended}"
        failed, also = codes(answer), codes(other)
        self.refused += "42501" in failed
        self.answered += not failed
        if failed != also and all(code[:2] in ASKED for code in failed ^ also):
            self.asked += 1
            return None
        by_value = {code for code in failed if code[:2] in ASKED and code != "42501"}
        if by_value and failed == also and all(code[:2] in ASKED for code in failed) and words(answer) == words(other):
            # Each row that came before the error has answered the same question with no.
            self.asked += 1
            return None
        if "57014" in failed | also or seen(answer) == seen(other):
            return None
        return "differs with what is protected: " + difference(seen(answer), seen(other))


# An error of one value and not of another answers a question, as a condition does; more than that it may not say.
ASKED = {"22", "21", "53", "54", "42", "25", "34"}


def codes(answer):
    return {error.get("C", "") for error in errors(answer.received)}


def words(answer):
    """What errors say, their place in the text left out."""
    return {tuple(sorted((k, v) for k, v in error.items() if k != "P")) for error in errors(answer.received)}


def made(seed, number):
    return Choices(f"{seed}/{number}")


def shrunken(desk, choices, kind):
    """The smallest choices found in time that are at fault in the same way."""
    deadline, best = time.monotonic() + SHRINK_MAX_S, choices.made
    improved = True
    while improved:
        improved = False
        for candidate in smaller(best):
            if time.monotonic() > deadline:
                return best
            again = Choices(replayed=candidate)
            if (desk.fault(*hostile(again)) or "").startswith(kind):
                best, improved = candidate, True
                break
    return best


def changed(desk, before):
    return [world for world in WORLDS if desk.place.digest(world) != before[world]]


def culprits(desk, seed, numbers):
    """Which of a round changed the database: each alone."""
    for number in numbers:
        before = {world: desk.place.digest(world) for world in WORLDS}
        desk.forget()
        choices = made(seed, number)
        desk.fault(*hostile(choices))
        desk.forget()
        if changed(desk, before):
            yield number


def show(seed, number, fault, statement):
    role, statements, form = statement
    print(f"FOUND seed {seed} number {number}, as {role}, {form}: {fault}")
    for sql in statements:
        print("    " + sql)
    sys.stdout.flush()


def campaign(desk, seconds, seed, findings_max):
    """How many statements were sent, and the distinct findings."""
    start, number, found = time.monotonic(), 0, {}
    while time.monotonic() - start < seconds and len(found) < findings_max:
        before, numbers = {world: desk.place.digest(world) for world in WORLDS}, range(number, number + ROUND)
        for number in numbers:
            choices = made(seed, number)
            statement = hostile(choices)
            if not (fault := desk.fault(*statement)):
                continue
            desk.forget()
            if not desk.fault(*statement):
                continue
            small = hostile(Choices(replayed=shrunken(desk, choices, fault[:5])))
            if str(small[1]) not in found:
                found[str(small[1])] = fault
                show(seed, number, fault, statement)
                print("  made smaller:\n    " + "\n    ".join(small[1]), flush=True)
        number += 1
        desk.forget()
        if changed(desk, before):
            for culprit in culprits(desk, seed, numbers):
                found[f"changes {culprit}"] = "changes"
                show(seed, culprit, "changes the database", hostile(made(seed, culprit)))
    return number, found


def main():
    desk = Desk()
    if sys.argv[1] == "--one":
        seed, number = sys.argv[2:4]
        statement = hostile(made(seed, number))
        show(seed, number, desk.fault(*statement), statement)
        return
    seconds, seed = float(sys.argv[1]), sys.argv[2]
    findings_max = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    start = time.monotonic()
    number, found = campaign(desk, seconds, seed, findings_max)
    print(
        f"on {desk.place.major}: seed {seed}, {number} statements in {time.monotonic() - start:.0f} s, twice each: {desk.answered} answered, "
        f"{desk.refused} refused, {desk.asked} asked by an error; {len(found)} findings"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
