"""Write the schema of a RayJob that the tests use, from KubeRay's published definition of it.

    python tests/kuberay/condense.py ray.io_rayjobs.yaml v1.7.0

The definition is helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml of a release of
https://github.com/ray-project/kuberay (Apache-2.0). It has 25,000 lines, three copies of a pod's
template among them. Kept are all fields of v1's `spec`, with types, limits and allowed values. Left
out are descriptions and `status`, and what stands there several times is written once.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

# What a schema says that a check can use. An `x-kubernetes-validations` rule is written in CEL.
KEPT = (
    "additionalProperties",
    "anyOf",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)
SHORT = 200  # characters: a smaller piece is repeated where it stands


def condense(definition: dict[str, Any], version: str) -> dict[str, Any]:
    (v1,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    whole = _strip(v1["schema"]["openAPIV3Schema"])
    del whole["properties"]["status"]
    counts: Counter[str] = Counter()
    _count(whole, counts)
    shared: dict[str, str] = {}
    definitions: dict[str, Any] = {}
    root = {name: _share(each, counts, shared, definitions) for name, each in whole.items()}
    return {
        "$comment": (
            f"Condensed by condense.py from KubeRay {version}, helm-chart/kuberay-operator/crds/"
            "ray.io_rayjobs.yaml, https://github.com/ray-project/kuberay, Apache-2.0."
        ),
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _strip(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name in KEPT:
        if name not in schema:
            continue
        value = schema[name]
        if name == "properties":
            value = {field: _strip(each) for field, each in value.items()}
        elif name == "items" or (name == "additionalProperties" and isinstance(value, dict)):
            value = _strip(value)
        elif name == "anyOf":
            value = [_strip(each) for each in value]
        kept[name] = value
    # The API server drops a field that is not in the schema without a word; here it is an error.
    if "properties" in kept and not kept.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    return kept


def _count(node: Any, counts: Counter[str]) -> None:
    if isinstance(node, dict):
        if "type" in node:
            counts[json.dumps(node, sort_keys=True)] += 1
        for each in node.values():
            _count(each, counts)
    elif isinstance(node, list):
        for each in node:
            _count(each, counts)


def _share(
    node: Any, counts: Counter[str], shared: dict[str, str], definitions: dict[str, Any]
) -> Any:
    if isinstance(node, list):
        return [_share(each, counts, shared, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    text = json.dumps(node, sort_keys=True)
    if "type" in node and counts[text] > 1 and len(text) >= SHORT:
        if text not in shared:
            name = shared[text] = f"d{len(shared):03}"
            definitions[name] = {
                key: _share(each, counts, shared, definitions) for key, each in node.items()
            }
        return {"$ref": f"#/$defs/{shared[text]}"}
    return {key: _share(each, counts, shared, definitions) for key, each in node.items()}


def main() -> None:
    path, version = sys.argv[1:]
    schema = condense(yaml.safe_load(Path(path).read_text()), version)
    definitions = schema.pop("$defs")
    lines = [f"{json.dumps(name)}:{json.dumps(each)}" for name, each in schema.items()]
    inner = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(each)}" for name, each in definitions.items()
    )
    lines.append(f'"$defs":{{\n{inner}\n}}')
    target = Path(__file__).with_name(f"rayjob-{version}.json")
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
