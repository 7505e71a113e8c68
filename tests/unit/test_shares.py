"""How a rebuild divides its partitions among processes, and when it starts any."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readmodels.shares import divide
from readmodels.spreading import RECORDS_WORTH_A_PROCESS, cores, processes_for

LEFT = st.dictionaries(
    st.tuples(st.sampled_from(["orders", "users"]), st.integers(0, 20)),
    st.integers(1, 10**7),
    min_size=1,
)


@given(left=LEFT, wanted=st.integers(1, 8))
def test_each_partition_is_one_process_s_and_no_process_has_none(
    left: dict[tuple[str, int], int], wanted: int
) -> None:
    count = processes_for(left, wanted)
    shares = divide(left, count)
    assert sorted(part for share in shares for part in share) == sorted(left)
    assert len(shares) == count
    assert all(shares)


@given(left=LEFT, count=st.integers(1, 8))
def test_no_process_has_more_than_another_and_one_partition_beside(
    left: dict[tuple[str, int], int], count: int
) -> None:
    shares = divide(left, min(count, len(left)))
    loads = [sum(left[part] for part in share) for share in shares]
    for share, load in zip(shares, loads, strict=True):
        assert load - min(left[part] for part in share) <= min(loads)


def test_a_process_is_started_where_there_is_enough_to_read_for_it() -> None:
    most = cores()
    enough = 10 * most * RECORDS_WORTH_A_PROCESS
    assert processes_for({}, None) == 1
    assert processes_for({}, 4) == 1
    assert processes_for({("t", n): 10 for n in range(8)}, None) == 1
    assert processes_for({("t", n): enough for n in range(8 * most)}, None) == most
    assert processes_for({("t", 0): enough}, None) == 1
    assert processes_for({("t", n): 1 for n in range(8)}, 3) == 3
