"""Print a configuration for `ray up` that sets up one node of cluster.yaml, to make an image of it.

    python deploy/image.py head > image.yaml         # for the head and the CPU workers
    python deploy/image.py gpu_worker > image.yaml

docs/cluster.md has the steps around it.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml


def image_config(config: dict[str, Any], node_type: str) -> dict[str, Any]:
    """Turn cluster.yaml's content into that of a cluster of one node, on which Ray does not start.

    Args:
        config: cluster.yaml, parsed; taken apart.
        node_type: one of its `available_node_types`.
    """
    kind = config["available_node_types"][node_type]
    set_up = kind.get("worker_setup_commands", config["setup_commands"])
    # Nothing that a stranger must not have may be in an image.
    secret = "~/.ray/auth_token"
    del config["file_mounts"][secret]
    node_config = kind["node_config"]
    node_config.pop("InstanceMarketOptions", None)  # not to be taken away halfway
    return config | {
        "cluster_name": f"segray-image-{node_type.replace('_', '-')}",
        "max_workers": 0,
        "provider": {
            "type": "aws",
            "region": config["provider"]["region"],
            "cache_stopped_nodes": False,
        },
        "setup_commands": [command for command in set_up if secret not in command],
        "head_setup_commands": [],
        # In place of Ray: away with what `ray up` copies to a head, the key to its SSH among it.
        "head_start_ray_commands": [
            "rm -f ~/ray_bootstrap_key.pem ~/ray_bootstrap_config.yaml && sync"
        ],
        "worker_start_ray_commands": [],
        "head_node_type": "node",
        "available_node_types": {"node": {"resources": {}, "node_config": node_config}},
    }


def main() -> None:
    config = yaml.safe_load(Path(__file__).parents[1].joinpath("cluster.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("node_type", choices=config["available_node_types"])
    node_type = parser.parse_args().node_type
    print(yaml.safe_dump(image_config(config, node_type), sort_keys=False), end="")


if __name__ == "__main__":
    main()
