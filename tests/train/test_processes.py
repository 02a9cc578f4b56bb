"""What several processes predict together, without the processes."""

import torch.distributed as dist

from headscope.recording.ranks.share import Rank
from headscope.train import processes


def test_every_process_predicts_its_share_and_gets_all(monkeypatch):
    rows = list(range(7))
    for count in (2, 3, 9):
        shares = [[10 * row for row in rows[number::count]] for number in range(count)]

        def gathers(found, mine, shares=shares):
            assert mine in shares
            assert len(found) == len(shares)
            found[:] = shares

        monkeypatch.setattr(dist, "all_gather_object", gathers)
        for number in range(count):
            monkeypatch.setattr(processes, "here", lambda number=number, count=count: Rank(number, count, (number,)))
            assert processes.in_shares(rows, lambda part: [10 * row for row in part]) == [10 * row for row in rows]
