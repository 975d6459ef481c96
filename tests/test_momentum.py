"""The queue against a plain list, the teacher against its formula."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from albef.momentum import FeatureQueue, Keys, MomentumTeacher


def keys_of(first: int, count: int, width: int = 3) -> Keys:
    ids = torch.arange(first, first + count)
    features = ids[:, None].float().expand(-1, width)
    return Keys(features, -features, ids, ids + 1000)


@given(st.integers(0, 9), st.lists(st.integers(0, 14), max_size=6))
def test_the_queue_holds_the_last_pairs_whatever_the_batch_sizes(size: int, pushes: list[int]) -> None:
    queue, pushed = FeatureQueue(size, 3), 0
    for count in pushes:
        queue.push(keys_of(pushed, count))
        pushed += count
    real = ~queue.empty()
    expected = list(range(max(0, pushed - size), pushed))
    assert sorted(queue.image_id[real].tolist()) == expected
    assert int(real.sum()) == min(size, pushed)
    torch.testing.assert_close(queue.image[real][:, 0], queue.image_id[real].float())
    torch.testing.assert_close(queue.text, -queue.image)
    assert torch.equal(queue.caption_id[real], queue.image_id[real] + 1000)
    if size:
        assert int(queue.pointer) == pushed % size


def test_a_random_queue_counts_as_full_and_a_fresh_one_as_empty() -> None:
    assert FeatureQueue(5, 4).empty().all()
    random = FeatureQueue(5, 4, random=True)
    assert not random.empty().any()
    torch.testing.assert_close(random.image.norm(dim=1), torch.ones(5))


def test_the_teacher_is_a_moving_average_in_place() -> None:
    student = nn.Linear(2, 2)
    teacher = MomentumTeacher(student, momentum=0.9)
    before = [parameter.clone() for parameter in teacher.parameters()]
    addresses = [parameter.data_ptr() for parameter in teacher.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    teacher.update(student)
    for old, new, own in zip(before, teacher.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * own)
    assert addresses == [parameter.data_ptr() for parameter in teacher.parameters()]
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_teacher_has_dropout_only_if_told() -> None:
    student = nn.Sequential(nn.Dropout(0.5))
    assert not MomentumTeacher(student, 0.9).train().module.training
    assert MomentumTeacher(student, 0.9, dropout=True).train().module.training
    assert not MomentumTeacher(student, 0.9, dropout=True).eval().module.training


def test_a_new_teacher_has_no_dropout_unless_it_is_asked_for() -> None:
    student = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    assert not MomentumTeacher(student, 0.9).module.training
    assert MomentumTeacher(student, 0.9, dropout=True).module.training
