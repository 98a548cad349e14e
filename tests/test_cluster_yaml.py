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
from jsonschema import ValidationError
from moto import mock_aws
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.aws.utils import resource_cache
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.ray_installer import RayInstaller
from ray.core.generated.instance_manager_pb2 import Instance
from ray.scripts.scripts import start as ray_start

Config = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "cluster.yaml").read_text()
GUIDE = (ROOT / "docs" / "cluster.md").read_text()
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
        if local.name == "segray":
            (local / "storage").mkdir(parents=True)
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

    resolved = commands._bootstrap_config(config, no_config_cache=True)
    ssh = SshRecorder(aws)
    commands.get_or_create_head_node(
        resolved, "cluster.yaml", False, False, True, None, _runner=ssh
    )
    result.scripts["head"] = ssh.lines
    (result.instances["head"],) = ec2.instances.all()

    # Now the head: it has received the files, and reads its own copy of the configuration.
    shutil.copytree(Path.cwd(), aws / "segray")
    on_head = FileConfigReader(
        str(aws / "ray_bootstrap_config.yaml")
    ).get_cached_autoscaling_config()
    provider = node_provider.AWSNodeProvider(on_head.get_provider_config(), "segray")
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
    assert started == len(lines) - 1
    command = lines[started]
    assert command.index("RAY_AUTH_MODE=token") < command.index("ray start")
    if kind != "head":
        assert "RAY_HEAD_IP=10.0.0.1" in command


@pytest.mark.parametrize(
    ("kind", "extra"), [("head", "-e ."), ("gpu_worker", "-e '.[gpu]'"), ("cpu_worker", "-e .")]
)
def test_a_node_installs_the_pinned_dependencies_once(
    launched: Launched, kind: str, extra: str
) -> None:
    (install,) = [line for line in launched.scripts[kind] if "pip install" in line]
    assert f"-c constraints.txt {extra} 'ray[default]'" in install
    # Ray repeats the common steps on some workers; each has to stand that.
    for step in launched.scripts[kind]:
        if "curl" in step or "uv venv" in step or ">> ~/.bashrc" in step:
            assert "||" in step


def test_every_node_runs_one_and_the_same_python(launched: Launched) -> None:
    versions = {
        re.search(r"--python (3\.11\.\d+) ", line).group(1)
        for lines in launched.scripts.values()
        for line in lines
        if "uv venv" in line
    }
    assert len(versions) == 1
    assert all(any("uv venv" in line for line in lines) for lines in launched.scripts.values())


def test_a_gpu_worker_checks_its_driver_first(launched: Launched) -> None:
    setup = [line for line in launched.scripts["gpu_worker"] if "RAY_HEAD_IP" in line]
    assert "nvidia-smi" in setup[0]
    assert not any("nvidia-smi" in line for line in launched.scripts["cpu_worker"])


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
    looked_up = node_provider.AWSNodeProvider.fillout_available_node_types_resources(config)
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
