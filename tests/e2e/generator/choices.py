"""A sequence of choices: made at random, replayed, and made smaller. The first alternative is always the plainest."""

import random


class Choices:
    def __init__(self, seed=None, replayed=None):
        self.chance = random.Random(seed)
        self.replayed, self.made = replayed, []

    def below(self, n):
        if self.replayed is None:
            chosen = self.chance.randrange(n)
        else:
            at = len(self.made)
            chosen = self.replayed[at] % n if at < len(self.replayed) else 0
        self.made.append(chosen)
        return chosen

    def of(self, alternatives):
        return alternatives[self.below(len(alternatives))]

    def one_in(self, n):
        """Rarely true; never in the plainest sequence."""
        return self.below(n) == n - 1


def smaller(made):
    """Sequences that are shorter or plainer, the boldest first."""
    size = len(made)
    while size:
        for at in range(0, len(made) - size + 1):
            yield made[:at] + made[at + size :]
        size //= 2
    for at, chosen in enumerate(made):
        if chosen:
            yield made[:at] + [0] + made[at + 1 :]
            yield made[:at] + [chosen - 1] + made[at + 1 :]
