"""Examples -> those to train with and those to evaluate with."""

from __future__ import annotations

import random
from dataclasses import replace

from headscope.errors import TrainingError
from headscope.train.data import Examples


def split(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Training and evaluation, drawn at random and stratified.

    Examples of an equal group (the same text, the same context) stay together, each stratum (a label) has the same
    share on both sides as far as it can be divided, and every label occurs in the training.

    Raises:
        TrainingError: the share leaves nothing on one side.
    """
    task = examples.task
    groups: dict[str, list[int]] = {}
    for place, example in enumerate(examples.rows):
        groups.setdefault(task.group(example), []).append(place)
    strata: dict[str, list[list[int]]] = {}
    for group in groups.values():
        strata.setdefault(task.stratum(examples.rows[group[0]]), []).append(group)
    draw, held = random.Random(seed), set[int]()
    owed = 0.0  # what earlier strata were short of, by rounding
    for name in sorted(strata):
        members = strata[name]
        draw.shuffle(members)
        wanted = share * sum(map(len, members)) + owed
        taken = 0
        for group in members if share == 1 else members[:-1]:
            if taken + len(group) / 2 > wanted:
                break
            held.update(group)
            taken += len(group)
        owed = wanted - taken
    train = [place for place in range(len(examples)) if place not in held]
    known = {label for place in train for label in task.labels(examples.rows[place])}
    for place in sorted(held):
        labels = set(task.labels(examples.rows[place]))
        if labels - known:
            known |= labels
            held.remove(place)
            train.append(place)
    if not train or not held:
        raise TrainingError(
            f"--eval-share {share}: {len(examples)} examples leave {len(train)} to train with and {len(held)} to "
            "evaluate; give more examples, another share, or --eval-data FILE."
        )
    return examples.select(sorted(train)), replace(examples.select(sorted(held)), skipped=())
