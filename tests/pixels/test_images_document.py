"""The table of docs/images.md says what becomes of every file of the corpus.

python -m tests.pixels.test_images_document    # writes the table anew
"""

from pathlib import Path

from segray.pixels.decoding import DecodeError, read_picture
from tests.corpus import corpus

DOCUMENT = Path(__file__).parents[2] / "docs" / "images.md"
MARK = "<!-- From here on written by: python -m tests.pixels.test_images_document -->\n"

TITLES = {
    "content": "Files that are no image, or of another format",
    "truncated": "Truncated files",
    "flipped": "Flipped bits",
    "suffix": "Wrong suffixes",
    "size": "Sizes",
    "mode": "Modes",
    "orientation": "Orientations",
    "frames": "Several pictures in a file",
    "jpeg": "JPEG",
    "png": "PNG",
    "tiff": "TIFF",
    "others": "BMP, GIF, WEBP",
    "bomb": "Small files that would take much memory or time",
    "key": "Keys",
}


def tables() -> str:
    """A table for each section of the corpus; files of one kind and verdict share a row."""
    rows: dict[str, dict[tuple[str, str, str], int]] = {section: {} for section in TITLES}
    for name, sample in corpus().items():
        try:
            picture = read_picture(sample.content, 32)
            verdict, message = f"segmented, {picture.width} x {picture.height}", ""
        except DecodeError as error:
            verdict, message = f"**{error.kind}**", str(error)
        section, kind = rows[name.split("/")[0]], sample.kind
        section[kind, verdict, message] = section.get((kind, verdict, message), 0) + 1
    lines = []
    for section, title in TITLES.items():
        lines += [
            f"### {title}",
            "",
            "| kind | files | verdict | message |",
            "| --- | --- | --- | --- |",
        ]
        for (kind, verdict, message), count in rows[section].items():
            escaped = message.replace("<", "&lt;").replace("|", "&#124;").replace("\\", "&#92;")
            lines.append(f"| {kind} | {count} | {verdict} | {escaped} |")
        lines.append("")
    return "\n".join(lines)


def test_the_table_says_what_becomes_of_every_file() -> None:
    assert DOCUMENT.read_text().partition(MARK)[2] == tables()


if __name__ == "__main__":
    DOCUMENT.write_text(DOCUMENT.read_text().partition(MARK)[0] + MARK + tables())
