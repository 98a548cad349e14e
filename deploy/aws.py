"""EC2 instances for cluster.yaml's workers, whichever of several kinds AWS has just now.

`ray up` and the head import this by the name that cluster.yaml gives, so the repository root has to
be on PYTHONPATH. It knows Ray's launcher and nothing of segray.
"""

from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.cli_logger import cli_logger
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

# EC2's codes for "not this kind of instance, not now". Anything else, such as a missing right,
# would fail in the same way with every kind.
NOT_TO_BE_HAD = frozenset(
    {
        "InstanceLimitExceeded",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "Unsupported",
        "VcpuLimitExceeded",
    }
)


class WithFallbacks(AWSNodeProvider):
    """Ray's own provider for AWS, with second choices.

    `provider.fallbacks` of the configuration has for a node type a list of changes to its
    `node_config`, each of which makes another choice; null removes a field. A launch tries the node
    type as it stands, then one choice after the other, in each of the subnets, until it has as many
    instances as were asked for.

    All choices of a node type have to have the same CPUs and GPUs: Ray plans with its `resources`.
    """

    def create_node(
        self, node_config: dict[str, Any], tags: dict[str, str], count: int
    ) -> dict[str, Any]:
        """Start up to `count` instances; give those that were started, by their ids.

        Raises:
            NodeLaunchException: no choice is to be had, or AWS refuses for another reason.
        """
        fallbacks = self.provider_config.get("fallbacks", {})
        choices = [{}, *fallbacks.get(tags.get(TAG_RAY_USER_NODE_TYPE), [])]
        started: dict[str, Any] = {}
        refusals: list[NodeLaunchException] = []
        for changes in choices:
            choice = {
                name: value
                for name, value in {**node_config, **changes}.items()
                if value is not None
            }
            try:
                started |= super().create_node(choice, dict(tags), count - len(started))
            except NodeLaunchException as refusal:
                if refusal.category not in NOT_TO_BE_HAD:
                    raise
                refusals.append(refusal)
                cli_logger.warning("{}: {}", _describe(choice), refusal.category)
            if len(started) >= count:
                break
        if not started and refusals:
            raise refusals[0]
        return started


def _describe(node_config: dict[str, Any]) -> str:
    market = "spot" if "InstanceMarketOptions" in node_config else "on demand"
    return f"{node_config['InstanceType']}, {market}"
