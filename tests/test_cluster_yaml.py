"""cluster.yaml, put through Ray's own launcher against a simulated AWS, with SSH cut off.

No cluster starts: moto answers for EC2, and a recorder takes the place of ssh and rsync.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import click
import pytest
import yaml
from botocore.exceptions import ClientError
from jsonschema import ValidationError
from moto import mock_aws
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.aws.utils import resource_cache
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.ray_installer import RayInstaller
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
    CloudResourceMonitor,
)
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent
from ray.scripts.scripts import start as ray_start

from deploy.aws import WithFallbacks
from deploy.image import image_config

Config = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "cluster.yaml").read_text()
GUIDE = (ROOT / "docs" / "cluster.md").read_text()
SET_UP = (ROOT / "deploy" / "set_up.sh").read_text()
WORKERS = ("gpu_worker", "cpu_worker")
NODE_TYPES = ("head", *WORKERS)
MY_ADDRESS = "203.0.113.7/32"
THE_WORLD = {"0.0.0.0/0", "::/0"}


@pytest.fixture
def config() -> Config:
    loaded: Config = yaml.safe_load(TEXT)
    return loaded


def node_configs(config: Config) -> dict[str, Config]:
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def start_commands(config: Config) -> list[str]:
    return config["head_start_ray_commands"] + config["worker_start_ray_commands"]


# --- Ray's schema -----------------------------------------------------------------------------


def test_ray_accepts_the_file(config: Config) -> None:
    validate_config(prepare_config(config))


def _misspell_a_field(config: Config) -> None:
    config["idle_timeout"] = 10


def _misspell_a_node_type_field(config: Config) -> None:
    config["available_node_types"]["gpu_worker"]["min_worker"] = 0


def _forget_the_instance(config: Config) -> None:
    del config["available_node_types"]["cpu_worker"]["node_config"]


def _name_a_head_that_is_not_there(config: Config) -> None:
    config["head_node_type"] = "haed"


def _give_half_a_gpu(config: Config) -> None:
    config["available_node_types"]["gpu_worker"]["resources"]["GPU"] = 0.5


def _write_a_command_that_is_not_a_list(config: Config) -> None:
    config["setup_commands"] = "pip install segray"


@pytest.mark.parametrize(
    "break_it",
    [
        _misspell_a_field,
        _misspell_a_node_type_field,
        _forget_the_instance,
        _name_a_head_that_is_not_there,
        _give_half_a_gpu,
        _write_a_command_that_is_not_a_list,
    ],
)
def test_ray_refuses_a_broken_file(config: Config, break_it: Callable[[Config], None]) -> None:
    whole = prepare_config(config)
    validate_config(whole)
    break_it(whole)
    with pytest.raises((ValidationError, ValueError)):
        validate_config(whole)


# --- What the file says -----------------------------------------------------------------------


def test_there_is_one_head_and_workers_of_two_kinds(config: Config) -> None:
    assert tuple(config["available_node_types"]) == NODE_TYPES
    assert config["head_node_type"] == "head"
    assert config["available_node_types"]["gpu_worker"]["resources"]["GPU"] >= 1
    assert "GPU" not in config["available_node_types"]["cpu_worker"]["resources"]


def test_workers_scale_from_nothing_to_a_limit(config: Config) -> None:
    for name in WORKERS:
        kind = config["available_node_types"][name]
        assert kind["min_workers"] == 0
        assert 1 <= kind["max_workers"] <= config["max_workers"]
    assert config["idle_timeout_minutes"] > 0


def test_the_head_offers_no_cpu_to_tasks(config: Config) -> None:
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_workers_may_be_spot_and_the_head_never_is(config: Config) -> None:
    nodes = node_configs(config)
    assert "InstanceMarketOptions" not in nodes["head"]
    assert [nodes[name]["InstanceMarketOptions"] for name in WORKERS] == [
        {"MarketType": "spot"},
        {"MarketType": "spot"},
    ]


def test_every_node_gets_its_rights_from_an_instance_profile(config: Config) -> None:
    profiles = {name: node["IamInstanceProfile"] for name, node in node_configs(config).items()}
    assert profiles == {
        "head": {"Name": "segray-head"},
        "gpu_worker": {"Name": "segray-worker"},
        "cpu_worker": {"Name": "segray-worker"},
    }


SECRETS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # an AWS key's id
    r"|aws_secret_access_key|aws_access_key_id|aws_session_token|aws_credentials"
    r"|RAY_AUTH_TOKEN\b"
    r"|\b[0-9a-f]{32,}\b"  # Ray's token is 64 hex digits
    r"|PRIVATE KEY",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "planted",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key: x",
        "aws_credentials: {}",
        "export RAY_AUTH_TOKEN=x",
        "0123456789abcdef" * 4,
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_the_search_for_secrets_finds_one(planted: str) -> None:
    assert SECRETS.search(f"{TEXT}\n# {planted}\n")


def test_no_secret_is_in_the_file_or_the_guide() -> None:
    assert not SECRETS.search(TEXT)
    assert not SECRETS.search(GUIDE)


def test_every_start_command_turns_token_authentication_on_first(config: Config) -> None:
    for section in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert config[section], section
        for command in config[section]:
            before, found, _ = command.partition("ray start")
            assert found
            assert "export RAY_AUTH_MODE=token &&" in before, command


def test_the_head_finds_its_provider_and_a_stopped_job_has_time_for_its_locks(
    config: Config,
) -> None:
    (command,) = config["head_start_ray_commands"]
    before, _, _ = command.partition("ray start")
    folder = re.search(r"\bPYTHONPATH=(\S+)", before).group(1)
    module = config["provider"]["module"].rpartition(".")[0].replace(".", "/")
    mounted = config["file_mounts"][f"{folder}/{module.partition('/')[0]}"]
    assert (ROOT / mounted / f"{module.partition('/')[2]}.py").exists()
    assert int(re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", before).group(1)) >= 30


def test_ray_start_knows_every_option_it_is_given(config: Config) -> None:
    known = {option for parameter in ray_start.params for option in parameter.opts}
    used = [word for command in start_commands(config) for word in shlex.split(command)]
    options = {word.split("=")[0] for word in used if word.startswith("--")}
    assert options == {"--head", "--port", "--dashboard-host", "--autoscaling-config", "--address"}
    assert options <= known


def test_the_dashboard_listens_on_the_head_only(config: Config) -> None:
    (command,) = config["head_start_ray_commands"]
    assert "--dashboard-host=127.0.0.1" in command


def test_everything_that_is_copied_to_the_nodes_is_in_the_repository(config: Config) -> None:
    local = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert len(local) >= 4
    assert [path for path in local if not (ROOT / path).exists()] == []


def test_ray_will_not_start_without_the_token(tmp_path: Path) -> None:
    # The check that `ray start` makes first, with a home that has no token and then with one.
    check = (
        "from ray._private.authentication.authentication_token_setup import *;"
        "ensure_token_if_auth_enabled(None, create_token_if_missing=False)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}

    def start() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", check]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    without = start()
    assert without.returncode != 0
    assert "no authentication token was found" in without.stderr

    (remote,) = [path for path in yaml.safe_load(TEXT)["file_mounts"] if "token" in path]
    token = tmp_path / remote.removeprefix("~/")
    token.parent.mkdir()
    token.write_text("not-a-real-token")
    assert start().returncode == 0


# --- What Ray does with it --------------------------------------------------------------------


class SshRecorder:
    """Stands where Ray expects `subprocess`: writes down each command and runs none."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lines: list[str] = []

    def check_call(self, command: list[str], **_: Any) -> None:
        if command[0] == "rsync":
            source, target = command[-2:]
            self.lines.append(f"copy to {target.partition(':')[2]}")
            if target.endswith("ray_bootstrap_config.yaml"):
                # What the head reads to start workers; Ray deletes its own copy.
                shutil.copy(source, self.home / "ray_bootstrap_config.yaml")
        else:
            # The last word is a script, quoted for the shell at the other end.
            (script,) = shlex.split(command[-1])
            subprocess.run(["bash", "-n", "-c", script], check=True)
            self.lines.append(script)


@dataclass
class Launched:
    scripts: dict[str, list[str]] = field(default_factory=dict)
    instances: dict[str, Any] = field(default_factory=dict)
    resolved: Config = field(default_factory=dict)
    security_group: str = ""
    all_security_groups: list[Any] = field(default_factory=list)


def open_to_the_world(groups: list[Any]) -> list[int]:
    return [
        rule.get("FromPort", -1)
        for group in groups
        for rule in group.ip_permissions
        for source in (*rule["IpRanges"], *rule["Ipv6Ranges"])
        if (source.get("CidrIp") or source.get("CidrIpv6")) in THE_WORLD
    ]


def make_my_group(ec2: Any) -> str:
    """The security group that docs/cluster.md has the user make."""
    (vpc,) = ec2.vpcs.all()
    group = vpc.create_security_group(GroupName="segray", Description="segray")
    group.authorize_ingress(
        IpPermissions=[
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group.id}]},
            {
                "IpProtocol": "tcp",
                "FromPort": 22,
                "ToPort": 22,
                "IpRanges": [{"CidrIp": MY_ADDRESS}],
            },
        ]
    )
    return str(group.id)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A simulated AWS account, and a laptop to launch from. Gives the laptop's home."""
    home = tmp_path_factory.mktemp("home")
    project = tmp_path_factory.mktemp("project")
    for path in yaml.safe_load(TEXT)["file_mounts"].values():
        local = home / path[2:] if path.startswith("~") else project / path
        local.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            (local / "folder").mkdir(parents=True)
        else:
            local.write_text("stands in for the real file")
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("HOME", str(home))
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setattr(node_provider, "TAG_BATCH_DELAY", 0)
        patch.chdir(project)
        resource_cache.cache_clear()
        iam = boto3.client("iam")
        for profile in ("segray-head", "segray-worker"):
            iam.create_instance_profile(InstanceProfileName=profile)
        yield home
    resource_cache.cache_clear()


@pytest.fixture(scope="module")
def launched(aws: Path) -> Launched:
    """`ray up`, and then what the head does to start one worker of each kind."""
    result = Launched()
    ec2 = boto3.resource("ec2")
    config = yaml.safe_load(TEXT)
    region = config["provider"]["region"]
    assert region == "us-east-1", "the simulated account is set up in this region"
    result.security_group = make_my_group(ec2)
    for node in node_configs(config).values():
        node["SecurityGroupIds"] = [result.security_group]

    result.resolved = commands._bootstrap_config(config, no_config_cache=True)
    ssh = SshRecorder(aws)
    commands.get_or_create_head_node(
        deepcopy(result.resolved), "cluster.yaml", False, False, True, None, _runner=ssh
    )
    result.scripts["head"] = ssh.lines
    (result.instances["head"],) = ec2.instances.all()

    # Now the head: it has received the files, and reads its own copy of the configuration.
    shutil.copytree(Path.cwd(), aws / "segray")
    on_head = FileConfigReader(
        str(aws / "ray_bootstrap_config.yaml")
    ).get_cached_autoscaling_config()
    provider = WithFallbacks(on_head.get_provider_config(), "segray")
    for kind in WORKERS:
        tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: kind}
        provider.create_node(on_head.get_cloud_node_config(kind), tags, 1)
        (node_id,) = provider.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: kind})
        ssh = SshRecorder(aws)
        instance = Instance(instance_id=kind, instance_type=kind, cloud_instance_id=node_id)
        RayInstaller(provider, on_head, process_runner=ssh).install_ray(instance, "10.0.0.1")
        result.scripts[kind] = ssh.lines
        result.instances[kind] = ec2.Instance(node_id)
    result.all_security_groups = list(ec2.security_groups.all())
    return result


@pytest.mark.parametrize("kind", NODE_TYPES)
def test_a_node_has_the_token_before_ray_starts_on_it(launched: Launched, kind: str) -> None:
    lines = launched.scripts[kind]
    (started,) = [at for at, line in enumerate(lines) if "ray start" in line]
    assert lines.index("copy to ~/.ray/auth_token") < started
    assert lines.index("copy to ~/segray/segray/") < started
    assert lines.index("copy to ~/segray/deploy/") < started
    assert started == len(lines) - 1
    command = lines[started]
    assert command.index("RAY_AUTH_MODE=token") < command.index("ray start")
    if kind != "head":
        assert "RAY_HEAD_IP=10.0.0.1" in command


@pytest.mark.parametrize(
    ("kind", "what"), [("head", "cpu"), ("gpu_worker", "gpu"), ("cpu_worker", "cpu")]
)
def test_a_node_is_set_up_before_ray_starts_on_it(launched: Launched, kind: str, what: str) -> None:
    lines = launched.scripts[kind]
    set_up = [at for at, line in enumerate(lines) if "set_up.sh" in line]
    assert set_up
    assert all(f"bash ~/segray/deploy/set_up.sh {what}" in lines[at] for at in set_up)
    assert lines.index("copy to ~/segray/deploy/") < set_up[0]
    (started,) = [at for at, line in enumerate(lines) if "ray start" in line]
    assert set_up[-1] < started


@pytest.mark.parametrize("kind", NODE_TYPES)
def test_the_instances_are_what_the_file_says(launched: Launched, kind: str) -> None:
    instance = launched.instances[kind]
    profile = "segray-head" if kind == "head" else "segray-worker"
    assert instance.instance_lifecycle == (None if kind == "head" else "spot")
    assert instance.iam_instance_profile["Arn"].endswith(f"/{profile}")
    assert instance.metadata_options["HttpTokens"] == "required"
    (group,) = instance.security_groups
    assert group["GroupId"] == launched.security_group


def test_the_stated_resources_are_the_instance_types(aws: Path, config: Config) -> None:
    stated = deepcopy(config["available_node_types"])
    for kind in config["available_node_types"].values():
        kind["resources"] = {}
    looked_up = WithFallbacks.fillout_available_node_types_resources(config)
    for name in WORKERS:
        found = looked_up["available_node_types"][name]["resources"]
        assert found["CPU"] > 0
        assert stated[name]["resources"] == {k: found[k] for k in ("CPU", "GPU") if k in found}


def test_ray_opens_nothing_to_the_world(launched: Launched) -> None:
    names = {group.group_name for group in launched.all_security_groups}
    assert names == {"default", "segray"}  # Ray made none of its own
    assert open_to_the_world(launched.all_security_groups) == []


def test_ray_makes_no_role_of_its_own(launched: Launched) -> None:
    assert boto3.client("iam").list_roles()["Roles"] == []


@pytest.mark.parametrize("rules", [None, [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}]])
def test_without_the_group_ray_would_open_ssh_to_the_world(
    aws: Path, config: Config, rules: list[Config] | None
) -> None:
    # Why the file names a group, and why rules under `provider` would not do instead.
    config["cluster_name"] = name = f"careless-{rules is None}".lower()
    for node in node_configs(config).values():
        del node["SecurityGroupIds"]
    if rules:
        rules = [{**rule, "IpRanges": [{"CidrIp": MY_ADDRESS}]} for rule in rules]
        config["provider"]["security_group"] = {"GroupName": name, "IpPermissions": rules}
    commands._bootstrap_config(config, no_config_cache=True)
    groups = list(boto3.resource("ec2").security_groups.all())
    careless = [group for group in groups if name in group.group_name]
    assert len(careless) == 1
    assert open_to_the_world(careless) == [22]


def test_ray_up_stops_until_the_group_is_filled_in(aws: Path, config: Config) -> None:
    assert "[sg-FILL-IN]" in TEXT
    before = {instance.id for instance in boto3.resource("ec2").instances.all()}
    with pytest.raises((AssertionError, click.ClickException)):
        commands._bootstrap_config(config, no_config_cache=True)
    assert {instance.id for instance in boto3.resource("ec2").instances.all()} == before


# --- Where AWS has no such instance ---------------------------------------------------------------

Attempt = tuple[str, str]  # the type of instance, "spot" or "on demand"


@dataclass
class Shortage:
    """EC2 in short supply: refuses each kind of instance that is not `in_stock`."""

    in_stock: dict[Attempt, int]
    code: str = "InsufficientInstanceCapacity"
    asked: list[Attempt] = field(default_factory=list)

    def create_instances(self, **wanted: Any) -> list[Any]:
        market = "spot" if "InstanceMarketOptions" in wanted else "on demand"
        kind = (wanted["InstanceType"], market)
        if kind not in self.asked:
            self.asked.append(kind)
        available = min(self.in_stock.get(kind, 0), wanted["MaxCount"])
        if not available:
            error = {"Error": {"Code": self.code, "Message": "There is none."}}
            raise ClientError(error, "RunInstances")
        counts = {"MinCount": available, "MaxCount": available}
        return list(boto3.resource("ec2").create_instances(**{**wanted, **counts}))


def launch(
    kind: str, count: int, launched: Launched, shortage: Shortage, fallbacks: Any = None
) -> list[Attempt]:
    """What the head does to start `count` workers. Gives what was started."""
    config = deepcopy(launched.resolved)
    if fallbacks is not None:
        config["provider"]["fallbacks"] = fallbacks
    provider = WithFallbacks(config["provider"], "short")
    provider.ec2_fail_fast = shortage
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: kind}
    started = provider.create_node(node_configs(config)[kind], tags, count)
    return sorted(
        (each.instance_type, each.instance_lifecycle or "on demand") for each in started.values()
    )


def test_spot_comes_first_then_other_instances_then_on_demand(launched: Launched) -> None:
    shortage = Shortage({("g6.2xlarge", "on demand"): 1})
    assert launch("gpu_worker", 1, launched, shortage) == [("g6.2xlarge", "on demand")]
    assert shortage.asked == [
        ("g6.2xlarge", "spot"),
        ("g5.2xlarge", "spot"),
        ("g6e.2xlarge", "spot"),
        ("g6.2xlarge", "on demand"),
    ]


def test_what_is_to_be_had_is_taken_and_the_rest_is_of_another_kind(launched: Launched) -> None:
    shortage = Shortage({("m7i.4xlarge", "spot"): 2, ("m6i.4xlarge", "spot"): 9})
    assert launch("cpu_worker", 3, launched, shortage) == [
        ("m6i.4xlarge", "spot"),
        ("m7i.4xlarge", "spot"),
        ("m7i.4xlarge", "spot"),
    ]


def test_where_nothing_is_to_be_had_ray_is_told_so(launched: Launched) -> None:
    shortage = Shortage({})
    with pytest.raises(NodeLaunchException, match="InsufficientInstanceCapacity"):
        launch("cpu_worker", 1, launched, shortage)
    assert len(shortage.asked) == 5


def test_a_missing_right_is_not_tried_with_every_kind(launched: Launched) -> None:
    shortage = Shortage({}, code="UnauthorizedOperation")
    with pytest.raises(NodeLaunchException, match="UnauthorizedOperation"):
        launch("cpu_worker", 1, launched, shortage)
    assert shortage.asked == [("m7i.4xlarge", "spot")]


def test_without_fallbacks_a_worker_is_what_the_file_says_or_nothing(launched: Launched) -> None:
    shortage = Shortage({("g5.2xlarge", "spot"): 1})
    with pytest.raises(NodeLaunchException):
        launch("gpu_worker", 1, launched, shortage, fallbacks={})
    assert shortage.asked == [("g6.2xlarge", "spot")]


def test_a_fallback_has_the_size_of_what_it_stands_in_for(
    launched: Launched, config: Config
) -> None:
    # Ray plans with the node type's `resources`, whatever was started in the end.
    client = boto3.client("ec2")

    def size(name: str) -> tuple[int, int, int]:
        (kind,) = client.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
        gpus = kind.get("GpuInfo", {}).get("Gpus", [])
        memory = kind["MemoryInfo"]["SizeInMiB"]
        return kind["VCpuInfo"]["DefaultVCpus"], sum(gpu["Count"] for gpu in gpus), memory

    for name, choices in config["provider"]["fallbacks"].items():
        first = size(node_configs(config)[name]["InstanceType"])
        for choice in choices:
            if "InstanceType" in choice:
                cpus, gpus, memory = size(choice["InstanceType"])
                assert (cpus, gpus) == first[:2], choice
                assert memory >= first[2], choice


def test_ray_itself_forgets_that_aws_refused_a_node_type() -> None:
    # Why the file has a provider of its own, and not several node types of one size: the autoscaler
    # prefers another type only after an instance that came but did not start.
    monitor = CloudResourceMonitor()

    def notify(status: int) -> dict[str, float]:
        event = InstanceUpdateEvent(instance_type="gpu_worker", new_instance_status=status)
        monitor.notify([event])
        scores: dict[str, float] = monitor.get_recoverable_resource_availabilities()
        return scores

    assert notify(Instance.ALLOCATION_FAILED) == {}
    assert notify(Instance.ALLOCATION_TIMEOUT) == {"gpu_worker": 0.0}


# --- An image with everything installed -----------------------------------------------------------


@pytest.mark.parametrize(("kind", "what"), [("head", "cpu"), ("gpu_worker", "gpu")])
def test_an_image_is_set_up_as_a_node_is_and_keeps_no_secret(
    launched: Launched, aws: Path, kind: str, what: str
) -> None:
    config = yaml.safe_load(TEXT)
    for node in node_configs(config).values():
        node["SecurityGroupIds"] = [launched.security_group]
    config = image_config(config, kind)
    validate_config(prepare_config(deepcopy(config)))
    name = config["cluster_name"]
    resolved = commands._bootstrap_config(config, no_config_cache=True)
    ssh = SshRecorder(aws)
    commands.get_or_create_head_node(resolved, "image.yaml", False, False, True, None, _runner=ssh)

    mine = {"Name": "tag:ray-cluster-name", "Values": [name]}
    (instance,) = boto3.resource("ec2").instances.filter(Filters=[mine])
    wanted = yaml.safe_load(TEXT)["available_node_types"][kind]["node_config"]
    assert instance.instance_type == wanted["InstanceType"]
    assert instance.instance_lifecycle is None  # spot may be taken away while the image is made
    (set_up,) = [line for line in ssh.lines if "set_up.sh" in line]
    assert f"bash ~/segray/deploy/set_up.sh {what}" in set_up
    assert not any("auth_token" in line or "ray start" in line for line in ssh.lines)
    # The key and the configuration that Ray copies to a head are deleted last.
    assert "rm -f ~/ray_bootstrap_key.pem ~/ray_bootstrap_config.yaml" in ssh.lines[-1]


# --- Setting up a node ----------------------------------------------------------------------------


class Node:
    """A home folder on which set_up.sh runs, with stand-ins for what it calls."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.calls = home / "calls"
        self.project = home / "segray"
        shutil.copytree(ROOT / "deploy", self.project / "deploy")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.project)
        self.stand_in("nvidia-smi", "exit 0")
        self.stand_in("curl", "exit 1")
        (wanted,) = re.findall("^uv=(.*)$", SET_UP, re.MULTILINE)
        self.install_uv(wanted)

    def install_uv(self, version: str) -> None:
        # `uv venv … PATH` makes a python that answers check_gpu.py.
        made = """
            case $1 in venv)
                environment=${!#}; rm -rf $environment; mkdir -p $environment/bin
                printf '#!/bin/sh\\necho python "$@" >> %s\\nexit $GPU_FAULT\\n' CALLS \\
                    > $environment/bin/python
                chmod +x $environment/bin/python
            esac
            exit $UV_FAULT"""
        asked = f'[ "$1" = --version ] && echo "uv {version} (made here)" && exit 0'
        self.stand_in("uv", made.replace("CALLS", str(self.calls)), before=asked)

    def stand_in(self, name: str, answer: str, before: str = "") -> None:
        """Let `name` note its call and answer. What `before` answers is not noted."""
        path = self.home / ".local" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noted = f'echo {name} "$@" >> {self.calls}'
        path.write_text("\n".join(("#!/bin/bash", before, noted, answer, "")))
        path.chmod(0o755)

    def set_up(self, what: str, gpu_fault: int = 0, uv_fault: int = 0) -> tuple[int, list[str]]:
        """Run the script. Gives its exit status and what it called."""
        self.calls.write_text("")
        script = self.project / "deploy" / "set_up.sh"
        path = f"{self.home}/.local/bin:{os.environ['PATH']}"
        environment = {"HOME": str(self.home), "PATH": path}
        environment |= {"GPU_FAULT": str(gpu_fault), "UV_FAULT": str(uv_fault)}
        done = subprocess.run(
            ["bash", script, what], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, self.calls.read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_bare_node_gets_its_environment_once(node: Node) -> None:
    status, calls = node.set_up("cpu")
    assert status == 0
    assert [call.split()[:2] for call in calls] == [["uv", "venv"], ["uv", "pip"]]
    assert "-c constraints.txt -e .[mlflow] boto3 ray[default]" in calls[1]
    assert node.set_up("cpu") == (0, [])
    assert (node.home / ".bashrc").read_text().count("activate") == 1


@pytest.mark.parametrize("changed", ["constraints.txt", "pyproject.toml", "deploy/set_up.sh"])
def test_an_image_of_other_versions_is_set_up_afresh(node: Node, changed: str) -> None:
    node.set_up("cpu")
    with (node.project / changed).open("a") as file:
        file.write("# another version\n")
    status, calls = node.set_up("cpu")
    assert status == 0
    assert "venv --clear" in calls[0]


@pytest.mark.parametrize("version", ["0.13.8", "0.13.99"])
def test_another_uv_is_replaced_by_the_one_that_is_pinned(node: Node, version: str) -> None:
    node.install_uv(version)
    assert node.set_up("cpu")[1] == ["curl -LsSf https://astral.sh/uv/0.13.9/install.sh"]


def test_an_installation_that_failed_is_not_taken_for_one(node: Node) -> None:
    assert node.set_up("cpu", uv_fault=1)[0] != 0
    assert len(node.set_up("cpu")[1]) == 2


def test_a_gpu_node_shows_each_time_that_its_gpu_is_used(node: Node) -> None:
    for calls_for_the_environment in (2, 0):
        status, calls = node.set_up("gpu")
        assert status == 0
        assert calls[calls_for_the_environment:] == [
            "nvidia-smi --list-gpus",
            "python deploy/check_gpu.py",
        ]
    assert node.set_up("gpu", gpu_fault=1)[0] != 0
    node.stand_in("nvidia-smi", "exit 9")
    assert node.set_up("gpu")[0] != 0


def test_a_gpu_node_gets_onnx_runtime_once(node: Node) -> None:
    _, calls = node.set_up("gpu")
    assert "-e .[gpu,mlflow] --override deploy/overrides-gpu.txt ray[default]" in calls[1]


# --- The guide --------------------------------------------------------------------------------


def test_the_guide_grants_the_bucket_four_actions_and_no_other() -> None:
    policies = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)]
    statements = [each for policy in policies for each in policy["Statement"]]
    allowed = {
        (action, each["Resource"])
        for each in statements
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
        if action.startswith("s3:")
    }
    assert allowed == {
        ("s3:ListBucket", "arn:aws:s3:::BUCKET"),
        ("s3:GetObject", "arn:aws:s3:::BUCKET/*"),
        ("s3:PutObject", "arn:aws:s3:::BUCKET/*"),
        ("s3:DeleteObject", "arn:aws:s3:::BUCKET/*"),
    }
    assert not any("*" in str(each["Action"]) for each in statements)


def test_the_guide_opens_nothing_to_the_world() -> None:
    assert "authorize-security-group-ingress" in GUIDE
    assert not any(cidr in GUIDE for cidr in THE_WORLD)
