"""One process: no group unless torchrun started it; seeds that stay the same from version to version."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from albef import distributed
from albef.config import UserError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wrong() -> int:
    raise UserError("A sentence.")


def test_without_torchrun_there_is_no_group() -> None:
    with distributed.group(10, device="cpu"):
        assert not distributed.in_group()
        assert not dist.is_initialized()
        assert (distributed.rank(), distributed.world_size(), distributed.local_world_size()) == (0, 1, 1)
        assert distributed.from_first(lambda: 3) == 3
        assert distributed.from_each(lambda: 3) == [3]
        assert distributed.share(5, 2) == range(5)
        with pytest.raises(UserError, match="A sentence"):
            distributed.from_first(wrong)


def test_what_torchrun_says_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    surroundings = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "TORCHELASTIC_RESTART_COUNT": 2}
    surroundings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in surroundings.items():
        monkeypatch.setenv(name, str(value))
    with distributed.group(10, device="cpu"):
        assert distributed.in_group()
        assert (distributed.rank(), distributed.world_size(), distributed.local_world_size()) == (0, 1, 1)
        assert distributed.from_first(lambda: "three") == "three"
        assert distributed.from_each(lambda: "three") == ["three"]
        with pytest.raises(UserError, match="A sentence"):
            distributed.from_first(wrong)
        assert distributed.all_mean(torch.tensor([1.0, 2.0])).tolist() == [1, 2]
    assert not distributed.in_group()


def test_tensors_are_gathered_in_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = (torch.randn(3, 5), torch.randn(3, 2, dtype=torch.float64), torch.arange(3) - 2**62)
    assert distributed.all_gather(*given) == given
    messages, send = [], dist.all_gather
    monkeypatch.setattr(dist, "all_gather", lambda *sent: messages.append(sent) or send(*sent))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    gathered = distributed.all_gather(*given)
    dist.destroy_process_group()
    assert len(messages) == 1
    for tensor, expected in zip(gathered, given, strict=True):
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)


@given(st.integers(0, 300), st.integers(1, 9), st.integers(1, 70))
def test_shares_are_everything_once_in_order_and_cut_at_units(count: int, processes: int, unit: int) -> None:
    shares = []
    for number in range(processes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "rank", lambda number=number: number)
            patch.setattr(distributed, "world_size", lambda: processes)
            shares.append(distributed.share(count, unit))
    assert [number for share in shares for number in share] == list(range(count))
    assert all(share.start % unit == 0 for share in shares if share)
    units = -(-count // unit)
    assert max(map(len, shares)) <= -(-units // processes) * unit


def test_seeds_follow_from_their_key_and_never_change() -> None:
    drawn = {}
    for key in ((42, 7, 0, 1), (42, 7, 1, 1), (42, 8, 0, 1), (43, 7, 0, 1), (42, 7, 0, 0)):
        distributed.seed(*key)
        drawn[key] = torch.initial_seed()
    assert len(set(drawn.values())) == len(drawn)
    assert drawn[42, 7, 0, 1] == 906115210282858308


def test_cores_that_the_system_keeps_for_others_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert distributed.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert distributed.cores() == 7
