"""Every odd and broken file of the corpus through the job itself, in one bucket."""

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest

from tests.corpus import Sample, corpus

ROOT = Path(__file__).parent.parent.parent
PREFIX = "in/"

# The job, and then the most memory that its process has had.
JOB = """
import pathlib, runpy, sys
sys.argv.pop(0)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(pathlib.Path("/proc/self/status").read_text())
"""

# The S3 server of the tests does not find an object again whose key has one.
UNKNOWN_TO_THE_SERVER = ("\n",)


@pytest.fixture(scope="module")
def samples() -> dict[str, Sample]:
    """The corpus by its keys."""
    found = {sample.key: sample for sample in corpus().values()}
    return {key: s for key, s in found.items() if not set(key) & set(UNKNOWN_TO_THE_SERVER)}


def test_each_file_is_segmented_or_has_its_reason(
    s3: Callable[[str], str], samples: dict[str, Sample], bundle_uri: str, tmp_path: Path
) -> None:
    bucket, client = s3("corpus"), boto3.client("s3")

    def put(sample: Sample) -> None:
        client.put_object(Bucket="corpus", Key=PREFIX + sample.key, Body=sample.content)

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(put, samples.values()))
    output = tmp_path / "out"
    flags = ["--suffixes", "", "--workers", "0", "--max-error-rate", "1"]
    done = subprocess.run(
        [
            *(sys.executable, "-c", JOB, "jobs/segment.py", "--model", bundle_uri, *flags),
            *("--images", f"{bucket}/{PREFIX}", "--output", str(output)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert "Traceback" not in done.stderr

    start = len(f"{bucket}/{PREFIX}")
    results = pq.read_table(output / "results", columns=["uri", "width", "height"]).to_pylist()
    errors = pq.read_table(output / "errors").to_pylist()
    found = {row["uri"][start:]: (row["width"], row["height"]) for row in results}
    reasons = {row["uri"][start:]: row for row in errors}
    assert len(found) + len(reasons) == len(results) + len(errors) == len(samples)
    for key, sample in samples.items():
        if sample.verdict.size:
            assert found.get(key) == sample.verdict.size, (key, reasons.get(key))
        else:
            assert reasons[key]["stage"] == "decode", key
            assert reasons[key]["error"] == sample.verdict.error, key
            assert sample.verdict.message in reasons[key]["message"], key
    print(f"\n{len(found)} segmented, {len(reasons)} refused; peak: {int(peak) // 1024} MB")
    assert int(peak) < 1_500_000
