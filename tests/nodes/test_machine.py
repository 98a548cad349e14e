"""What is missing on a machine is said in a line, and is no reason to pass."""

from pathlib import Path

import pytest

from tests.nodes import Cluster, find_obstacle


def test_missing_tools_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = (
        "a cluster of nodes that are apart needs ip, nsenter, setpriv, unshare: "
        "apt-get install iproute2 util-linux"
    )
    assert find_obstacle() == expected
    with pytest.raises(RuntimeError, match=expected), Cluster(tmp_path):
        pass


def test_an_ordinary_user_is_told_to_be_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in find_obstacle()
