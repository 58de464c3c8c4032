import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.tokens.shuffle import key_of, permute


def whole(n: int, key: int, epoch: int) -> list[int]:
    return permute(np.arange(n), n, key, np.full(n, epoch)).tolist()


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6))
def test_is_a_permutation(n: int, key: int, epoch: int) -> None:
    assert sorted(whole(n, key, epoch)) == list(range(n))


@given(
    n=st.integers(2**40, 2**60),
    places=st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=50, unique=True),
)
def test_large_ranges_stay_in_range_and_distinct(n: int, places: list[int]) -> None:
    found = permute(np.array(places), n, 7, np.zeros(len(places), np.int64))
    assert len(set(found.tolist())) == len(places)
    assert found.min() >= 0
    assert found.max() < n


def test_an_element_does_not_depend_on_its_company() -> None:
    n, epochs = 1000, np.arange(1000) % 3
    together = permute(np.arange(n), n, 5, epochs)
    alone = [permute(np.array([i]), n, 5, np.array([e]))[0] for i, e in enumerate(epochs.tolist())]
    assert together.tolist() == alone


def test_epochs_and_keys_are_unlike() -> None:
    n = 10_000
    orders = [np.array(whole(n, key, epoch)) for key in (1, 2) for epoch in (0, 1, 2)]
    for i, a in enumerate(orders):
        # Between random permutations a Spearman correlation has deviation 1 / sqrt(n).
        assert abs(np.corrcoef(a, np.arange(n))[0, 1]) < 0.05
        for b in orders[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
            assert (a == b).sum() < 12  # Poisson with mean 1


def test_neighbours_part() -> None:
    n = 1 << 14
    steps = np.diff(whole(n, 3, 0))
    # Two random places of n are n / 3 apart in the mean.
    assert 0.32 < np.abs(steps).mean() / n < 0.347
    assert (np.abs(steps) == 1).sum() < 15  # Poisson with mean 2


def test_images_are_uniform() -> None:
    # Where element 0 goes, over keys, in 16 cells: chi-squared with 15 degrees, 99.9 % below 37.7.
    n, keys = 1000, 4000
    cells = np.zeros(16)
    for key in range(keys):
        cells[int(permute(np.array([0]), n, key_of(key), np.array([0]))[0] * 16 // n)] += 1
    expected = np.diff(-(-np.arange(17) * n // 16)) / n * keys
    assert ((cells - expected) ** 2 / expected).sum() < 37.7


def test_orders_never_change() -> None:
    # A run that was begun with an earlier version goes on with the same examples.
    assert key_of(0, "shuffle", "a") == 717508653157109751
    assert whole(8, 1, 0) == [7, 4, 1, 3, 6, 0, 5, 2]
    assert key_of(1, "23") != key_of(12, "3")
