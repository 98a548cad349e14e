"""Stores and buckets as people have them: what each verb does with each kind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from segray.errors import InputError
from segray.evaluation.config import EvaluateConfig
from segray.evaluation.plan import prepare_evaluation
from segray.evaluation.run import evaluate
from segray.export.config import ExportConfig
from segray.export.run import export
from segray.storage.files import child_names, read_bytes, write_bytes
from segray.storage.lock import LOCK
from segray.training.plan import prepare_training
from segray.training.run import train
from tests.endpoints import PeculiarStore
from tests.endpoints.stores import asking
from tests.support import draw_picture, encode, write_shapes
from tests.training.runs import settings

ROOT = Path(__file__).parent.parent

# What a user says to a store of each kind.
KINDS = [
    (["no_conditions"], {}, False),
    (["conditions_ignored"], {}, False),
    (["no_checksums"], {}, True),
    (["encryption"], {"s3_sse": "AES256"}, True),
    (["requester_pays"], {"s3_requester_pays": True}, True),
    (["unsigned"], {"s3_unsigned": True}, True),
]


@pytest.fixture(scope="module")
def bucket(aws_environment: None, bundle_uri: str) -> str:
    """A bucket with a model, pictures, and shapes to learn."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="stores")
    for path in Path(bundle_uri).iterdir():
        write_bytes(f"s3://stores/model/{path.name}", path.read_bytes())
    for number in range(3):
        picture = draw_picture(40, 50, number)
        write_bytes(f"s3://stores/pets/images/{number}.png", encode(picture, "PNG"))
        mask = encode(picture[..., 0] % 3 + 1, "PNG")
        write_bytes(f"s3://stores/pets/masks/{number}.png", mask)
    write_shapes("s3://stores/shapes", 12)
    return "s3://stores"


def segment_into(output: str, bucket: str, lock: bool) -> int:
    config = SegmentConfig(
        model=f"{bucket}/model", images=f"{bucket}/pets/images", output=output, lock=lock
    )
    with make_plan(config) as plan:
        return segment(plan, on_ray=False).census.segmented


def export_into(output: str, results: str, form: str, lock: bool) -> int:
    config = ExportConfig(results=results, output=output, format=form, workers=0, lock=lock)
    return export(config, lambda: None).written


@pytest.mark.parametrize(("ways", "access", "lock"), KINDS, ids=[kind[0][0] for kind in KINDS])
def test_a_bucket_is_segmented_and_exported(
    bucket: str, s3_endpoint: str, ways: list[str], access: dict[str, object], lock: bool
) -> None:
    output = f"{bucket}/{ways[0]}"
    with PeculiarStore(s3_endpoint, *ways) as store:
        with asking(store.url, **access):
            assert segment_into(f"{output}/masks", bucket, lock) == 3
            for form in ("png", "rle"):
                assert export_into(f"{output}/{form}", f"{output}/masks", form, lock) == 3
        assert store.refused == []
    masks = [f"{number}.png.png" for number in range(3)]
    assert [name for name in child_names(f"{output}/png") if name.endswith("png")] == masks
    assert len(json.loads(read_bytes(f"{output}/rle/annotations.json"))["images"]) == 3


@pytest.mark.parametrize("way", ["no_conditions", "conditions_ignored"])
def test_no_verb_goes_on_without_a_lock_unless_it_is_told_to(
    bucket: str, s3_endpoint: str, way: str
) -> None:
    masks = f"{bucket}/{way}-masks"
    segment_into(masks, bucket, lock=True)

    def train_into(output: str) -> None:
        train(prepare_training(settings(f"{bucket}/shapes", output, "none")))

    def evaluate_into(output: str) -> None:
        images, truth = f"{bucket}/pets/images", f"{bucket}/pets/masks"
        config = EvaluateConfig(model=f"{bucket}/model", images=images, masks=truth, output=output)
        evaluate(prepare_evaluation(config))

    verbs: list[Callable[[str], object]] = [
        lambda output: segment_into(output, bucket, True),
        lambda output: export_into(output, masks, "png", True),
        train_into,
        evaluate_into,
    ]
    with PeculiarStore(s3_endpoint, way) as store, asking(store.url):
        for number, verb in enumerate(verbs):
            output = f"{bucket}/{way}-refused-{number}"
            with pytest.raises(InputError, match=r"conditional writes.*--no-lock"):
                verb(output)
            assert LOCK not in child_names(output)


@pytest.mark.slow
def test_a_model_is_trained_and_scored_where_all_is_demanded_at_once(
    bucket: str, s3_endpoint: str
) -> None:
    """On Ray, by flags alone: they reach its processes too."""
    flags = ["--s3-requester-pays", "--s3-sse", "aws:kms", "--no-lock"]
    shapes = ["--images", f"{bucket}/shapes/images", "--masks", f"{bucket}/shapes/masks"]
    recipe = ["--classes", "box=10", "ground=20", "--encoder-weights", "none", "--batch-size", "4"]
    run, scores = f"{bucket}/run", f"{bucket}/scores"
    ways = ("requester_pays", "encryption", "no_checksums", "conditions_ignored")
    with PeculiarStore(s3_endpoint, *ways) as store:
        for script, *others in (
            ["train.py", "--output", run, "--image-size", "32", "--epochs", "1", *recipe],
            ["evaluate.py", "--output", scores, "--model", f"{run}/model"],
        ):
            done = subprocess.run(
                [sys.executable, str(ROOT / "jobs" / script), *shapes, *flags, *others],
                env={**os.environ, "AWS_ENDPOINT_URL": store.url, "RAY_ADDRESS": "local"},
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert done.returncode == 0, done.stderr
            assert "--no-lock: nothing prevents a second run" in done.stdout
        # Of s3fs, which looks for the bucket before Ray Train's folder, and then asks otherwise.
        of_bucket = {"HEAD /stores AccessDenied", "GET /stores?location AccessDenied"}
        assert set(store.refused) <= of_bucket
    assert json.loads(read_bytes(f"{scores}/metrics.json"))["counts"]["evaluated"] == 12
    assert LOCK not in child_names(run)
