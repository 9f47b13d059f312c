"""Room that all endpoints share."""

from hypothesis import given
from hypothesis import strategies as st

from chartwire.model.sharing import shared_room


@given(limit=st.integers(1, 1024), crowd=st.integers(1, 200))
def test_whoever_takes_more_than_two_leaves_a_quarter_and_as_much_as_it_holds(limit: int, crowd: int) -> None:
    busy, left = [0] * crowd, limit
    for _ in range(4):
        for number in range(crowd):
            taken = max(0, shared_room(limit, left, busy[number]))
            busy[number], left = busy[number] + taken, left - taken
            assert not taken or busy[number] <= 2 or left >= limit // 4 + busy[number]
    assert left == 0 or shared_room(limit, left, 0) > 0


def test_one_alone_may_have_most_of_it_and_each_of_many_two() -> None:
    assert shared_room(256, 256, 0) == 96
    assert [shared_room(256, left, 0) for left in (64, 2, 1, 0)] == [2, 2, 1, 0]
    assert shared_room(256, 64, 2) == 0
