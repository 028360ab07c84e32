"""The words of --faults and --latency-ms."""

from __future__ import annotations

import pytest

from siorg_simulator.faults import Latency, parse_faults, parse_latency


def test_all_words_are_understood_and_the_draw_decides() -> None:
    words = "status=503:0.05, status=502:0.1,timeout=0.01,torn=0.01,garbage=0.01,429=0.02,empty=0,reset=0.1,error=1e-3"
    names = ["status=503", "status=502", "timeout", "torn", "garbage", "status=429", "empty", "reset", "error"]
    assert [fault.name for fault, _ in parse_faults(words).chances] == names
    faults = parse_faults("torn=0.25,empty=0.25")
    drawn = [fault.name if (fault := faults.choose(draw)) else None for draw in (0.0, 0.249, 0.25, 0.499, 0.5, 0.999)]
    assert drawn == ["torn", "torn", "empty", "empty", None, None]
    assert parse_faults("torn=1").choose(0.999999) is not None
    assert parse_faults(" ").choose(0.0) is None


def test_wrong_words_are_refused_with_what_is_allowed() -> None:
    allowed = r"not understood; allowed: status=CODE:P .*timeout=P, torn=P, garbage=P, empty=P, reset=P"
    for text in (
        "x", "torn", "torn=", "torn=x", "torn=-0.1", "torn=1.1", "torn=nan", "status=0.1", "status=200:0.1", "status=600:0.1",
        "status=50:0.1", "503=0.1", "torn:0.1", "torn=0.1;empty=0.1",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=allowed):
            pytest.fail(f"{text} was understood as {parse_faults(text)}")
    for text in ("", "x", "-1", "10:20", "nan", "inf", "10:-1", "10:x", "1:2:3"):
        with pytest.raises(ValueError, match="MEAN"):
            pytest.fail(f"{text} was understood as {parse_latency(text)}")
    # Chances add up to at most one, and come once.
    parse_faults("torn=0.7,empty=0.2,reset=0.1")
    with pytest.raises(ValueError, match="more than 1"):
        parse_faults("torn=0.6,empty=0.5")
    with pytest.raises(ValueError, match="twice"):
        parse_faults("429=0.1,status=429:0.1")


def test_latency_is_spread_around_its_mean() -> None:
    assert parse_latency("50:10") == Latency(50, 10)
    assert [round(Latency(50, 10).seconds(draw), 6) for draw in (0, 0.5, 0.9999999)] == [0.04, 0.05, 0.06]
    assert parse_latency("0").seconds(0.5) == 0
