"""deploy/: the RayJob against KubeRay's schema, and the versions that a node and an image have.

Nothing is built and no Kubernetes is asked.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from deploy import check_gpu
from segray import packages
from segray.flags import read_flags
from segray.training.config import TrainConfig

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
KUBERAY = ROOT / "deploy" / "kuberay.yaml"
SCHEMA = json.loads((ROOT / "tests" / "kuberay" / "rayjob-v1.7.0.json").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
IGNORE = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
SET_UP = (ROOT / "deploy" / "set_up.sh").read_text()
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)


@pytest.fixture
def documents() -> list[Document]:
    return list(yaml.safe_load_all(KUBERAY.read_text()))


@pytest.fixture
def job(documents: list[Document]) -> Document:
    (job,) = (each for each in documents if each["kind"] == "RayJob")
    return job


@pytest.fixture
def cluster(job: Document) -> Document:
    spec: Document = job["spec"]["rayClusterSpec"]
    return spec


def groups(cluster: Document) -> dict[str, Document]:
    workers = {each["groupName"].replace("-", "_"): each for each in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"], **workers}


def pods(cluster: Document) -> dict[str, Document]:
    return {name: group["template"]["spec"] for name, group in groups(cluster).items()}


# --- KubeRay's schema -------------------------------------------------------------------------


def faults(job: Document) -> list[str]:
    errors = Draft202012Validator(SCHEMA).iter_errors(job)
    return [f"{error.json_path}: {error.message}" for error in errors]


def test_kuberay_knows_every_field_of_the_job(job: Document) -> None:
    assert job["apiVersion"] == "ray.io/v1"
    assert faults(job) == []


def _misspell_a_field_of_the_job(job: Document) -> None:
    job["spec"]["backOffLimit"] = 2


def _misspell_a_field_of_the_cluster(job: Document) -> None:
    job["spec"]["rayClusterSpec"]["enableInTreeAutoscaler"] = True


def _misspell_a_field_of_a_group(job: Document) -> None:
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 4


def _misspell_a_field_of_a_pod(job: Document) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["serviceAccount_name"] = "x"


def _misspell_a_field_of_a_container(job: Document) -> None:
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    group["template"]["spec"]["containers"][0]["resource"] = {}


def _give_a_number_as_a_start_parameter(job: Document) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _invent_an_authentication(job: Document) -> None:
    job["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "password"


def _invent_an_autoscaler(job: Document) -> None:
    job["spec"]["rayClusterSpec"]["autoscalerOptions"]["version"] = "v3"


def _forget_the_head(job: Document) -> None:
    del job["spec"]["rayClusterSpec"]["headGroupSpec"]


def _write_a_quantity_that_is_none(job: Document) -> None:
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "56 GB"


@pytest.mark.parametrize(
    "break_it",
    [
        _misspell_a_field_of_the_job,
        _misspell_a_field_of_the_cluster,
        _misspell_a_field_of_a_group,
        _misspell_a_field_of_a_pod,
        _misspell_a_field_of_a_container,
        _give_a_number_as_a_start_parameter,
        _invent_an_authentication,
        _invent_an_autoscaler,
        _forget_the_head,
        _write_a_quantity_that_is_none,
    ],
)
def test_the_schema_refuses_a_broken_job(
    job: Document, break_it: Callable[[Document], None]
) -> None:
    broken = deepcopy(job)  # an alias of the file is one object otherwise
    break_it(broken)
    assert len(faults(broken)) == 1


# --- What the job says ------------------------------------------------------------------------


def test_the_groups_are_cluster_yamls(cluster: Document) -> None:
    there = groups(cluster)
    types = CLUSTER["available_node_types"]
    assert there.keys() == types.keys()
    assert there["head"]["rayStartParams"] == {"num-cpus": "0"}
    for name in ("gpu_worker", "cpu_worker"):
        group = there[name]
        assert group["minReplicas"] == group["replicas"] == types[name]["min_workers"] == 0
        assert group["maxReplicas"] == types[name]["max_workers"]
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        resources = types[name]["resources"]
        assert int(limits.get("nvidia.com/gpu", 0)) == resources.get("GPU", 0)
        # Kubernetes keeps a part of a node to itself.
        assert 0.8 * resources["CPU"] < int(limits["cpu"]) < resources["CPU"]


def test_the_cluster_grows_and_shrinks_as_on_aws(cluster: Document) -> None:
    assert cluster["enableInTreeAutoscaling"] is True
    options = cluster["autoscalerOptions"]
    assert options["version"] == "v2"
    assert options["idleTimeoutSeconds"] == 60 * CLUSTER["idle_timeout_minutes"]


def test_a_stopped_job_has_time_for_its_locks(cluster: Document) -> None:
    (container,) = pods(cluster)["head"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_ray_refuses_calls_without_a_token(cluster: Document) -> None:
    assert cluster["authOptions"] == {"mode": "token"}


def test_nothing_is_left_of_a_job_but_its_output(job: Document) -> None:
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["backoffLimit"] > 0


def test_each_pod_has_its_role_from_its_own_service_account(
    documents: list[Document], cluster: Document
) -> None:
    accounts = {
        each["metadata"]["name"]: each for each in documents if each["kind"] == "ServiceAccount"
    }
    used = {name: pod["serviceAccountName"] for name, pod in pods(cluster).items()}
    assert used == {
        "head": "segray-head",
        "gpu_worker": "segray-worker",
        "cpu_worker": "segray-worker",
    }
    assert accounts.keys() == set(used.values())
    for account in accounts.values():
        role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        assert role == "arn:aws:iam::ACCOUNT:role/segray-pod"
    # KubeRay lets the head's account start pods; a worker gets no token for Kubernetes.
    assert accounts["segray-worker"]["automountServiceAccountToken"] is False


def test_no_container_is_root(cluster: Document) -> None:
    for pod in pods(cluster).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        user = f"--uid {pod['securityContext']['runAsUser']} "
        assert user in DOCKERFILE
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert re.search(r"^USER segray$", DOCKERFILE, re.MULTILINE)


def test_only_a_gpu_worker_has_the_gpu_image_and_it_checks_its_gpu_first(cluster: Document) -> None:
    there = pods(cluster)
    images = {name: pod["containers"][0]["image"] for name, pod in there.items()}
    assert images == {
        "head": "REGISTRY/segray:cpu",
        "gpu_worker": "REGISTRY/segray:gpu",
        "cpu_worker": "REGISTRY/segray:cpu",
    }
    (check,) = there["gpu_worker"]["initContainers"]
    assert check["image"] == images["gpu_worker"]
    assert check["command"][-1] == "/opt/segray/deploy/check_gpu.py"
    assert check["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_head_is_not_put_on_spot(cluster: Document) -> None:
    affinity = pods(cluster)["head"]["affinity"]["nodeAffinity"]
    required = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (term,) = required
    assert {(e["key"], e["operator"], *e["values"]) for e in term["matchExpressions"]} == {
        ("karpenter.sh/capacity-type", "NotIn", "spot"),
        ("eks.amazonaws.com/capacityType", "NotIn", "SPOT"),
    }


def test_a_request_is_no_more_than_its_limit(cluster: Document) -> None:
    units = {"Gi": Decimal(2**30), "Mi": Decimal(2**20), "m": Decimal("0.001"), "": Decimal(1)}

    def amount(text: str) -> Decimal:
        number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()
        return Decimal(number) * units[unit]

    for pod in pods(cluster).values():
        for container in pod["containers"]:
            limits = container["resources"]["limits"]
            for name, request in container["resources"]["requests"].items():
                assert amount(request) <= amount(limits.get(name, request))


def test_the_job_runs_a_script_that_is_in_the_image(job: Document) -> None:
    scripts = re.findall(r"/opt/segray/(jobs/\w+\.py)", KUBERAY.read_text())
    assert set(scripts) == {"jobs/train.py", "jobs/segment.py"}
    assert all((ROOT / script).exists() for script in scripts)
    assert job["spec"]["entrypoint"].startswith("python /opt/segray/jobs/train.py ")
    command = [sys.executable, *job["spec"]["entrypoint"].split()[1:2], "--help"]
    command[1] = command[1].replace("/opt/segray", str(ROOT))
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    flags = re.findall(r"--[\w-]+", job["spec"]["entrypoint"])
    assert flags == ["--images", "--masks", "--classes", "--output", "--use-gpu", "--workers"]
    assert all(flag in shown for flag in flags)
    config = read_flags(TrainConfig, arguments=job["spec"]["entrypoint"].split()[2:])
    assert config.use_gpu
    assert config.most_workers > 1


def test_what_is_to_be_filled_in_is_marked() -> None:
    placeholders = re.compile(r"\b(ACCOUNT|BUCKET|REGISTRY)\b")
    lines = KUBERAY.read_text().splitlines()
    code = [at for at, line in enumerate(lines) if placeholders.search(line.partition("#")[0])]
    assert code
    for at in code:
        assert any("FILL IN" in line for line in lines[max(0, at - 6) : at + 1]), lines[at]


# --- Versions ---------------------------------------------------------------------------------


def test_the_version_of_ray_is_the_one_that_is_tested(cluster: Document) -> None:
    assert cluster["rayVersion"] == PINNED["ray"]


def test_an_image_and_a_node_have_the_same_python_and_uv() -> None:
    def values(text: str) -> dict[str, str]:
        return {
            name.lower(): value
            for name, value in re.findall(r"^(?:ARG )?(python|uv)=(.+)$", text, re.M | re.I)
        }

    assert values(DOCKERFILE) == values(SET_UP)
    assert values(SET_UP).keys() == {"python", "uv"}
    assert values(SET_UP)["python"].startswith("3.11.")


def test_onnx_runtime_has_tensorflows_cuda() -> None:
    # Two of CUDA's major versions do not fit into one environment: the cuDNN of both goes into the
    # same folder. TensorFlow names its CUDA in its packages' names; onnxruntime-gpu has CUDA 12 up
    # to 1.26.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    gpu = project["optional-dependencies"]["gpu"]
    assert "onnxruntime-gpu>=1.26,<1.27" in gpu
    assert PINNED["onnxruntime-gpu"].startswith("1.26.")
    nvidia = [name for name in PINNED if name.startswith("nvidia-")]
    assert "nvidia-cudnn-cu12" in nvidia
    assert all(name.endswith("-cu12") for name in nvidia)


def test_onnxruntime_is_kept_from_beside_onnxruntime_gpu() -> None:
    path = ROOT / "deploy" / "overrides-gpu.txt"
    (override,) = (line for line in path.read_text().splitlines() if not line.startswith("#"))
    assert override == "onnxruntime ; python_version < '3'"
    assert f"--override {path.relative_to(ROOT)}" in SET_UP
    assert "--override deploy/overrides-$EXTRA.txt" in DOCKERFILE


def test_a_record_names_onnx_runtimes_version_on_a_gpu_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise PackageNotFoundError(name)
        return "1.26.0"

    monkeypatch.setattr(packages, "version", version)
    assert packages.package_versions("onnxruntime")["onnxruntime"] == "1.26.0"
    with pytest.raises(PackageNotFoundError):
        packages.package_versions("no-such-package")


# --- The image --------------------------------------------------------------------------------


def test_what_the_image_copies_is_there_and_is_sent_to_docker() -> None:
    sources = [
        source.rstrip("/")
        for copied in re.findall(r"^COPY --chown=segray (.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in copied.split()
    ]
    assert {"segray", "jobs", "pyproject.toml", "constraints.txt"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    assert IGNORE[1] == "*"
    assert {line[1:] for line in IGNORE if line.startswith("!")} == set(sources)


# --- The check of a GPU -----------------------------------------------------------------------


def test_without_a_gpu_the_check_fails_with_a_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])
    assert check_gpu.main() == 1
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert first.startswith("error: TensorFlow sees no GPU")
    assert second.startswith("error: ONNX Runtime")
    assert "package for CPUs" in second


def test_a_missing_cuda_library_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # ONNX Runtime goes on with the CPU then, and raises nothing.
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    cpu = onnxruntime.InferenceSession(check_gpu._convolution(), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: cpu)
    fault = check_gpu.onnx_runtime_fault()
    assert fault is not None
    assert "works on the CPU only" in fault
