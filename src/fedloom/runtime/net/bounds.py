"""How much a party keeps for whoever asks it: more than any run needs, so that who asks for more is refused.

Each bound is for one member that the party answers for: a site is one, a relay has many. What an honest run needs:

- Tasks that wait: one training, and one other question, since the next is asked when the one before is over. A
  buffered schedule, too, has at most one training of a member in flight. After a lost line all that is open is asked
  again, in the place of what was asked before. What is called off waits no more.
- Bodies that they name: the model that is trained, the one that is measured, and of each what the stages make public,
  some of it as large as a model. In a buffered run each member of a relay may train from another model.
- Answers whose round is open: one where rounds follow one another. In a buffered run the quickest member may fill a
  whole step, so its size comes on top. What a coordinator lost in a crash it asks for under the same number.
"""

from dataclasses import dataclass

TASKS = 100  # that wait
MODELS = 16  # of the largest bodies: what all that wait may name
OFFERS = 1000  # answers that are not known to have arrived; the oldest is forgotten for one more


@dataclass(frozen=True)
class Answers:
    """How many answers may wait to be settled.

    Args:
        number: of them, for each member.
        models: how many of the largest bodies they may be together, for each member.
    """

    number: int = 1000
    models: int = 64

    def beside(self, size: int) -> "Answers":
        """Return the bounds where a step of the server counts so many answers, all of which may be one member's.

        >>> Answers().beside(10)
        Answers(number=1010, models=74)
        """
        return Answers(self.number + size, self.models + size)
