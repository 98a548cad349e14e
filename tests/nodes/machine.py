"""What a machine has to have for nodes that are apart."""

import os
import shutil
import subprocess

_TOOLS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}


def find_obstacle() -> str:
    """Why no node can be started here, in a line; empty if nothing is in the way."""
    if os.geteuid() != 0:
        return "a cluster of nodes that are apart needs root: run these tests as root"
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        packages = sorted({_TOOLS[tool] for tool in missing})
        return (
            f"a cluster of nodes that are apart needs {', '.join(missing)}: "
            f"apt-get install {' '.join(packages)}"
        )
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True).returncode:
        return (
            "a cluster of nodes that are apart needs namespaces, and this machine allows none: "
            "give a container the capability SYS_ADMIN (docker run --privileged)"
        )
    return ""
