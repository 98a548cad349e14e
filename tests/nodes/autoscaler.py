"""A head whose autoscaler starts nodes on demand, by Ray's fake provider."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STORE = {"object_store_memory": 300_000_000}  # bytes


@dataclass(frozen=True)
class Autoscaler:
    """What such a head needs.

    Attributes:
        folder: that it has to see, at the same path.
        provider: a folder in it, and the one in whose place the head has to see it. Ray's wheel
            lacks a file that its provider reads.
        flag: of `ray start`.
        environment: likewise.
    """

    folder: Path
    provider: tuple[Path, str]
    flag: str
    environment: Mapping[str, str]

    @classmethod
    def prepare(
        cls, folder: Path, cpu_workers: int, gpu_workers: int, idle_minutes: float
    ) -> "Autoscaler":
        """Write the files, into a new folder; the numbers are those of `configure`."""
        import ray.autoscaler._private.fake_multi_node as provider
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        content = json.dumps(configure(cpu_workers, gpu_workers, idle_minutes, FAKE_HEAD_NODE_ID))
        [original] = provider.__path__
        shutil.copytree(original, folder / "provider")
        (folder / "provider" / "example.yaml").write_text(content)
        (folder / "configuration.yaml").write_text(content)
        environment = {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        flag = f"--autoscaling-config={folder / 'configuration.yaml'}"
        return cls(folder, (folder / "provider", original), flag, environment)


def configure(
    cpu_workers: int, gpu_workers: int, idle_minutes: float, head_id: str
) -> dict[str, Any]:
    """The configuration, as `ray start --autoscaling-config` takes it.

    Args:
        cpu_workers: how many nodes of 2 CPUs there may be.
        gpu_workers: how many nodes of 2 CPUs and a GPU there may be; the GPU is none.
        idle_minutes: after which a node that does nothing ends.
        head_id: the id of the head's node.
    """
    kinds = {
        "ray.head.default": _kind({"CPU": 0}, 0),
        "cpu_worker": _kind({"CPU": 2, **_STORE}, cpu_workers),
        "gpu_worker": _kind({"CPU": 2, "GPU": 1, **_STORE}, gpu_workers),
    }
    objects = ("auth", "docker", "file_mounts")
    lists = (
        *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands"),
        *("setup_commands", "head_setup_commands", "worker_setup_commands"),
        *("head_start_ray_commands", "worker_start_ray_commands"),
    )
    return {
        "cluster_name": "apart",
        "max_workers": cpu_workers + gpu_workers,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            "type": "fake_multinode",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": head_id,
        },
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "file_mounts_sync_continuously": False,
        **{name: {} for name in objects},
        **{name: [] for name in lists},
    }


def _kind(resources: dict[str, int], most: int) -> dict[str, Any]:
    return {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}
