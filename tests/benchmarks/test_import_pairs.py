"""The benchmark of the import, at its smallest."""

from pathlib import Path

import pytest

from tests.benchmarks import run_benchmark


@pytest.mark.slow
def test_the_tables_have_a_line_for_each_mode_and_process(tmp_path: Path) -> None:
    flags = ["--pairs", "200", "--image-size", "32"]
    output = run_benchmark("import_pairs.py", *flags, folder=tmp_path)
    lines = output.splitlines()
    assert any(" cores; " in line and "200 pairs of 64x48" in line for line in lines)
    for mode in ("kept", "streamed"):
        seconds, *memory = (line.split()[1:] for line in lines if line.startswith(f"{mode} "))
        assert len(seconds) == 5
        assert float(seconds[0]) > 0
        assert int(seconds[1]) > 0
        held = {" ".join(words[:-3]): [int(word) for word in words[-3:]] for words in memory}
        for process in ("driver, decoding", "driver, reading", "reading worker"):
            rss, pss, own = held[process]
            assert rss >= pss >= own > 10
        assert any("task workers, decoding" in process for process in held)
