"""The harness itself: it must see a wrong word, a missing word, a word too many, and a breach of the handshake."""

from pathlib import Path

from tests.rtl.harness import Case, Words, pack, pack_words, simulate

BROKEN = Path(__file__).parent / "broken" / "bf_broken.sv"
WORDS = list(range(10, 60))


def _skid(name: str, expected: list[int], *, idle: int = 0, stall: int = 0) -> Case:
    return Case(name, {"": Words(8, WORDS)}, {"": Words(8, expected)}, {"Bits": 8}, idle=idle, stall=stall)


def test_every_fault_of_the_data_is_seen(tmp_path: Path) -> None:
    cases = [
        _skid("right", WORDS, idle=30, stall=30),
        _skid("corrupted", [*WORDS[:7], WORDS[7] ^ 1, *WORDS[8:]], idle=30, stall=30),
        _skid("one too few", [*WORDS, 0]),
        _skid("one too many", WORDS[:-1]),
    ]
    results = simulate("bf_skid", cases, tmp_path, cycles=2000)
    assert results["right"].passed
    corrupted = results["corrupted"]
    assert (corrupted.count, corrupted.mismatches, corrupted.passed) == (50, 1, False)
    assert corrupted.messages == ("MISMATCH case1 word 7: expected 10 got 11",)
    assert results["one too few"].count == 50
    assert not results["one too few"].passed
    assert results["one too many"].mismatches == 1
    assert results["one too many"].messages == ("MISMATCH case3 word 49: none expected got 3b",)


def test_a_breach_of_the_handshake_is_reported(tmp_path: Path) -> None:
    words = {"": Words(8, WORDS)}
    cases = [Case(f"drop {drop}", words, words, {"Bits": 8, "Drop": drop}, stall=50) for drop in (0, 1)]
    results = simulate("bf_broken", cases, tmp_path, sources=[BROKEN], cycles=2000)
    for drop, what in ((0, "data changed"), (1, "valid dropped")):
        result = results[f"drop {drop}"]
        assert result.mismatches > 0
        assert not result.passed
        assert any(line.startswith("PROTOCOL") and what in line for line in result.messages), result


def test_words_are_packed_lane_0_lowest() -> None:
    assert pack([1, -1, 2], 4) == 0x2F1
    assert pack_words([[1, -1], [0, 7]], 4) == Words(8, [0xF1, 0x70])
    assert Words(9, [-1, 3]).mem() == "1ff\n003\n"
