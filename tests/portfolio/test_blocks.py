import subprocess
import sys
import threading

import numpy as np
import pytest

from palm import threads
from palm.portfolio import GibbsOracle, blocks
from palm.simplex import sample_simplex


@pytest.fixture
def many(random_tensor):
    """An oracle and weights that make several tasks for threads."""
    oracle = GibbsOracle(random_tensor(3, 3, prompts=150, candidates=40), 0.1)
    return oracle, sample_simplex(300, 3, np.random.default_rng(0))


@pytest.mark.parametrize("call", ["solve", "optimum", "diagnostics"])
def test_threads_change_no_digit(many, monkeypatch, call):
    oracle, weights = many
    monkeypatch.setattr(blocks, "_WORTH_THREADS", 1)
    monkeypatch.setattr(blocks, "_BLOCK", 2**14)
    seen, tilt = [], blocks.tilt
    monkeypatch.setattr("palm.portfolio.gibbs.tilt", lambda *given: (seen.append(threading.get_ident()), tilt(*given)))
    found = []
    for count in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", count)
        seen.clear()
        result = getattr(oracle, call)(weights)
        found.append([result] if call == "optimum" else list(vars(result).values()))
        assert (set(seen) == {threading.get_ident()}) == (count == "1")
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


def test_results_come_in_order_and_cover_every_weight_and_prompt_once(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(blocks, "_WORTH_THREADS", 1)
    monkeypatch.setattr(blocks, "_BLOCK", 600)
    monkeypatch.setattr(blocks, "_AHEAD", 3)
    count = np.zeros((333, 17), dtype=int)
    places = []
    for rows, prompts, shape in blocks.each_block(
        lambda _rows, _prompts, room: room.shape, weights=333, prompts=17, candidates=2, bases=3
    ):
        count[rows, prompts] += 1
        places.append((rows.start, prompts.start))
        assert shape == (prompts.stop - prompts.start, 2, rows.stop - rows.start)
    assert (count == 1).all()
    assert places == sorted(places)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(blocks, "_WORTH_THREADS", 1)

    def work(rows, prompts, room):
        raise MemoryError("room")

    with pytest.raises(MemoryError, match="room"):
        list(blocks.each_block(work, weights=500, prompts=100, candidates=64, bases=3))


def test_no_weights_make_no_block():
    assert list(blocks.each_block(lambda *_: 1, weights=0, prompts=5, candidates=4, bases=2)) == []


@pytest.mark.parametrize(("asked", "count"), [("1", 1), ("7", 7), ("0", 1)])
def test_omp_num_threads_says_how_many(monkeypatch, asked, count):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads.threads_allowed() == count


@pytest.mark.parametrize("asked", [None, "", "many", "-1"])
def test_else_all_processors_are_used(monkeypatch, asked):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads.threads_allowed() == threads._processors() >= 1


@pytest.mark.parametrize("vectorised", [True, False])
def test_either_exponential_is_right(monkeypatch, vectorised):
    monkeypatch.setattr(blocks, "_numpy_is_vectorised", lambda: vectorised)
    numbers = np.random.default_rng(0).uniform(-300, 300, (101, 33))
    expected = np.exp(numbers)
    blocks.fastest_exponential(200, prompts=1000, candidates=64, bases=5)(numbers)
    np.testing.assert_allclose(numbers, expected, rtol=1e-15)


def test_torch_is_imported_for_large_calls_of_many_bases_only():
    code = """
import sys, numpy as np
from palm.portfolio import GibbsOracle, blocks
blocks._numpy_is_vectorised = lambda: False
few, many = (GibbsOracle(np.random.default_rng(0).random((300, 64, bases)), 0.1) for bases in (4, 6))
few.optimum(np.full((400, 4), 1 / 4))
many.optimum(np.full((100, 6), 1 / 6))
assert "torch" not in sys.modules
many.optimum(np.full((400, 6), 1 / 6))
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("bases", "candidates", "count"), [(2, 64, 128), (40, 64, 100), (5, 1000, 32), (3, 5, 1)])
def test_no_piece_is_so_large_that_libraries_start_threads_of_their_own(bases, candidates, count):
    rng = np.random.default_rng(0)
    centred, directions = rng.random((30, candidates, bases)), rng.random((bases, count))
    room, sizes = np.empty((30, candidates, count)), []

    def exp(chunk):
        sizes.append(chunk.size)
        np.exp(chunk, out=chunk)

    blocks.tilt(centred, directions, room, exp)
    np.testing.assert_allclose(room, np.exp(centred @ directions), rtol=1e-13)
    assert max(sizes) < 2**15
    assert max(sizes) * bases <= 2**18
    assert max(sizes) > min(2**14, 2**17 // bases, room.size // 2)  # nor needlessly small


@pytest.mark.parametrize(
    ("level", "fast"), [("AVX512_SKX", True), ("X86_V4", True), ("X86_V3", False), ("baseline(X86_V2)", False)]
)
def test_numpy_is_trusted_with_exponentials_where_it_has_vectors_for_them(monkeypatch, level, fast):
    monkeypatch.setattr(blocks, "opt_func_info", lambda **_: {"exp": {"dd": {"current": level, "available": "X86_V4"}}})
    assert blocks._numpy_is_vectorised() == fast
    monkeypatch.setattr(blocks, "opt_func_info", lambda **_: {})
    assert not blocks._numpy_is_vectorised()
