import random

import numpy as np
import pytest
import torch

from palm.seeds import derive_seed, isolated_rng


def test_seeds_are_the_same_on_every_machine():
    """SHA-256 of the tuple as Python writes it, first four bytes, without the last bit."""
    import hashlib

    expected = int(hashlib.sha256(b"(7, 'member', '3')").hexdigest()[:8], 16) // 2
    assert derive_seed(7, "member", 3) == expected
    assert derive_seed(np.int64(7), "member", 3) == expected


def test_purposes_and_seeds_do_not_share_seeds():
    seeds = {derive_seed(seed, purpose, n) for seed in range(20) for purpose in ("member", "split", "größe") for n in range(20)}
    assert len(seeds) == 20 * 3 * 20
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(0, "a/b") != derive_seed(0, "a", "b")


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed: expected an integer of at least 0, got {seed!r}"):
        derive_seed(seed, "member")


def draws():
    return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002


def seed_all():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)  # noqa: NPY002


def test_draws_inside_are_seeded_and_leave_no_trace_outside():
    seed_all()
    expected = draws()
    seed_all()
    with isolated_rng(5):
        inside = draws()
    assert draws() == expected
    with isolated_rng(5):
        assert draws() == inside
    with isolated_rng(6):
        assert all(one != other for one, other in zip(draws(), inside, strict=True))


def test_an_exception_inside_restores_the_callers_state_too():
    seed_all()
    expected = draws()
    seed_all()

    def fail_after_drawing():
        draws()
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"), isolated_rng(5):
        fail_after_drawing()
    assert draws() == expected


def test_fences_can_be_nested():
    with isolated_rng(1):
        first = draws()
        second = draws()
    with isolated_rng(1):
        assert draws() == first
        with isolated_rng(2):
            draws()
        assert draws() == second
