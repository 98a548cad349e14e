"""What `ray job submit --working-dir .` sends to a cluster."""

import shutil
import zipfile
from pathlib import Path

from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).parent.parent


def test_the_jobs_the_package_and_tables_are_sent_and_images_are_not(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("jobs", "segray"):
        shutil.copytree(ROOT / name, checkout / name)
    for name in (".rayignore", ".gitignore", "README.md"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "photos").mkdir()
    (checkout / "photos" / "a.jpg").write_bytes(b"an image")
    (checkout / "pairs.csv").write_text("image,mask\n")
    package = tmp_path / "package.zip"

    create_package(str(checkout), package, include_gitignore=True)

    with zipfile.ZipFile(package) as file:
        sent = {name for name in file.namelist() if not name.endswith("/")}
    code = [path for name in ("jobs", "segray") for path in (ROOT / name).rglob("*")]
    assert sent == {
        "pairs.csv",
        *(
            str(path.relative_to(ROOT))
            for path in code
            if path.is_file() and "__pycache__" not in path.parts
        ),
    }
