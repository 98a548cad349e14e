"""A corpus of bad and odd image files, and what is to become of each.

Pure functions: `corpus` makes every file anew, always with the same bytes. Most show one scene of
four quarters, so that a turn, a swap of channels or a lost half is seen in the colours.
"""

import base64
import io
import struct
import unicodedata
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.crafted import (
    GIF_PICTURE,
    PNG_MAGIC,
    adam7,
    bmp,
    claim_in_jpeg,
    lines,
    loop,
    part,
    png,
    tiff,
    webp,
)
from tests.support import encode

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 60, 40

#: Upper left, upper right, lower left, lower right.
COLOURS: tuple[Colour, ...] = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
GREYS: tuple[Colour, ...] = ((0, 0, 0), (90, 90, 90), (170, 170, 170), (255, 255, 255))
BLACK_AND_WHITE: tuple[Colour, ...] = (GREYS[0], GREYS[3], GREYS[3], GREYS[0])


@dataclass(frozen=True)
class Verdict:
    """What is to become of an image.

    Attributes:
        size: of a segmented image, its upright width and height in pixels; else None.
        colours: of a segmented image whose colours can be known, those of its quarters.
        error: of a refused image, the kind of reason.
        message: words that the reason holds.
    """

    size: tuple[int, int] | None = None
    colours: tuple[Colour, ...] | None = None
    error: str = ""
    message: str = ""


@dataclass(frozen=True)
class Sample:
    """A file of the corpus.

    Attributes:
        kind: what is odd about it; several files may be of one kind.
        key: the object's key below the corpus' own prefix. Those of `odd_keys` may begin with a
            slash, or have parts that no local file may be called.
        content: the file's bytes.
        verdict: what is to become of it.
    """

    kind: str
    key: str
    content: bytes
    verdict: Verdict


def corpus() -> dict[str, Sample]:
    """Every file by a name of its own, such as ``truncated/7 of 10.jpg``."""
    sections = {
        "content": no_images() | other_formats(),
        "truncated": truncated(),
        "flipped": flipped_bits(),
        "suffix": wrong_suffixes(),
        "size": odd_sizes(),
        "mode": modes(),
        "orientation": orientations(),
        "frames": frames(),
        "jpeg": odd_jpegs(),
        "png": odd_pngs(),
        "tiff": odd_tiffs(),
        "others": odd_bmps_gifs_and_webps(),
        "bomb": bombs(),
        "key": odd_keys(),
    }
    samples = {}
    for section, files in sections.items():
        for name, (kind, content, verdict) in files.items():
            key = name if section == "key" else f"{section}/{name}"
            samples[f"{section}/{name}"] = Sample(kind, key, content, verdict)
    return samples


Files = dict[str, tuple[str, bytes, Verdict]]


def fine(
    colours: tuple[Colour, ...] | None = COLOURS, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Verdict:
    return Verdict(size, colours)


def refused(error: str, message: str) -> Verdict:
    return Verdict(error=error, message=message)


def quarters(colours: tuple[Colour, ...] = COLOURS) -> Pixels:
    """The scene, uint8 [HEIGHT, WIDTH, 3]."""
    scene = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, colour in enumerate(colours):
        top, left = HEIGHT // 2 * (number // 2), WIDTH // 2 * (number % 2)
        scene[top : top + HEIGHT // 2, left : left + WIDTH // 2] = colour
    return scene


def grain() -> Pixels:
    """Noise, which no codec makes small: a cut or a flipped bit hits pixels."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour_scene() -> Image.Image:
    return Image.fromarray(quarters())


def grey_scene() -> Image.Image:
    return Image.fromarray(quarters(GREYS)).convert("L")


def jpeg(pixels: Pixels | None = None, **options: Any) -> bytes:
    options = {"quality": 95, "subsampling": 0} | options
    return encode(quarters() if pixels is None else pixels, "JPEG", **options)


def no_images() -> Files:
    text = b"This is not a picture.\n"
    page = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"
    answer = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    noise = bytes(np.random.default_rng(1).integers(128, 256, 5000, dtype=np.uint8))
    return {
        "empty.jpg": ("an empty file", b"", refused("empty", "the file is empty")),
        "one_byte.jpg": ("one byte", b"\xff", refused("unsupported", "a file of an unknown kind")),
        "magic.jpg": ("a JPEG's first three bytes", b"\xff\xd8\xff", refused("damaged", "JPEG")),
        "magic.png": ("a PNG's first eight bytes", PNG_MAGIC, refused("truncated", "PNG")),
        "text.jpg": ("a text", text, refused("unsupported", "text that begins 'This is not")),
        "blanks.jpg": ("blanks", b" \n" * 99, refused("unsupported", "a file of an unknown kind")),
        "page.jpg": ("a web page", page, refused("unsupported", "a web page")),
        "answer.jpg": (
            "a store's answer in XML",
            answer,
            refused("unsupported", "text that begins"),
        ),
        "pointer.jpg": ("a pointer of Git LFS", pointer, refused("unsupported", "Git LFS")),
        "zeros.jpg": ("zeros only", bytes(5000), refused("damaged", "nothing but zeros")),
        "noise.jpg": ("noise", noise, refused("unsupported", "a file of an unknown kind")),
        "bmw.bmp": ("a text that begins like a BMP", b"BMW, VW", refused("unsupported", "'BMW")),
    }


def other_formats() -> Files:
    image = colour_scene()
    brand = b"\0\0\0\x18ftyp%s\0\0\0\0" + bytes(40)
    named = {
        "j.jp2": ("JPEG 2000", save(image, "JPEG2000"), "a JPEG 2000 image"),
        "a.avif": ("AVIF", save(image, "AVIF"), "an AVIF image"),
        "h.heic": ("HEIC", brand % b"heic", "a HEIC image"),
        "x.jxl": ("JPEG XL", b"\xff\x0a" + bytes(40), "a JPEG XL image"),
        "i.ico": ("ICO", save(image, "ICO"), "an icon"),
        "p.ppm": ("PPM", save(image, "PPM"), "a PPM image"),
        "p.psd": ("Photoshop", b"8BPS\0\1" + bytes(40), "a Photoshop image"),
        "e.eps": ("EPS", save(image, "EPS"), "an EPS or PostScript document"),
        "p.pdf": ("PDF", b"%PDF-1.7\n" + bytes(40), "a PDF document"),
        "s.svg": ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        "s2.svg": ("SVG", b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>", "an SVG drawing"),
        "r.cr3": ("a raw photograph", brand % b"crx ", "a raw photograph"),
        "v.mp4": ("a video", brand % b"isom", "a video"),
        "z.zip": ("a ZIP archive", b"PK\3\4" + bytes(40), "a ZIP archive"),
        "g.jpg.gz": ("a compressed JPEG", b"\x1f\x8b\x08" + bytes(40), "a gzip archive"),
    }
    # Under an image's suffix, or no listing would take them.
    return {
        f"{name}.jpg": (f"{kind}, named .jpg", content, refused("unsupported", message))
        for name, (kind, content, message) in named.items()
    }


def truncated() -> Files:
    files: Files = {}
    intact = {
        "jpg": ("JPEG", encode(grain(), "JPEG")),
        "png": ("PNG", encode(grain(), "PNG")),
    }
    for suffix, (name, content) in intact.items():
        for place in range(1, 11):
            part = content[: len(content) * place // 11]
            files[f"{place} of 10.{suffix}"] = (
                f"a {name} truncated at ten places",
                part,
                refused("truncated", f"the {name} is truncated"),
            )
        files[f"last byte.{suffix}"] = (
            f"a {name} without its last byte",
            content[:-1],
            refused("truncated", f"the {name} is truncated"),
        )
    files["header.jpg"] = (
        "a JPEG truncated in its header",
        intact["jpg"][1][:300],
        refused("truncated", "the JPEG is truncated"),
    )
    for name, options in OTHERS.items():
        content = encode(grain(), name, **options)
        files[f"half.{name.lower()}"] = (
            f"a {name} cut in half",
            content[: len(content) // 2],
            refused("truncated", f"the {name} is truncated"),
        )
    return files


OTHERS: dict[str, dict[str, Any]] = {
    "WEBP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "GIF": {},
}


def flip(content: bytes, place: int, bit: int = 4) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def flipped_bits() -> Files:
    png, photograph = encode(grain(), "PNG"), encode(grain(), "JPEG")
    pixels = png.index(b"IDAT")
    frame = photograph.index(b"\xff\xc0")
    damaged = refused("damaged", "the PNG is damaged: wrong checksum of its part I")
    return {
        "magic.png": (
            "a bit flipped in a PNG's first bytes",
            flip(png, 1),
            refused("unsupported", "a file of an unknown kind"),
        ),
        "header.png": ("a bit flipped in a PNG's header", flip(png, 19), damaged),
        "header_sum.png": (
            "a bit flipped in the checksum of a PNG's header",
            flip(png, 30),
            damaged,
        ),
        "pixels.png": ("a bit flipped in a PNG's pixels", flip(png, pixels + 1000), damaged),
        "pixels_sum.png": (
            "a bit flipped in the checksum of a PNG's pixels",
            flip(png, len(png) - 14),
            damaged,
        ),
        "magic.jpg": (
            "a bit flipped in a JPEG's first bytes",
            flip(photograph, 0),
            refused("unsupported", "a file of an unknown kind"),
        ),
        "width.jpg": (
            "a bit flipped in a JPEG's width",
            flip(photograph, frame + 8, 0),
            fine(None, (WIDTH + 1, HEIGHT)),
        ),
        "precision.jpg": (
            "a bit flipped in a JPEG's precision",
            flip(photograph, frame + 4, 2),
            refused("unsupported", "12-bit layers"),
        ),
        # JPEG has no checksums: what it decodes to is taken.
        "pixels.jpg": (
            "a bit flipped in a JPEG's pixels",
            flip(photograph, len(photograph) // 2),
            fine(None),
        ),
    }


def wrong_suffixes() -> Files:
    names = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]
    content = {name: encode(quarters(), name) for name in names} | {"JPEG": jpeg()}
    return {
        f"{name.lower()}.{other.lower().replace('jpeg', 'jpg')}": (
            "the suffix of another format",
            content[name],
            fine(),
        )
        for name in names
        for other in names
        if name != other
    }


def odd_sizes() -> Files:
    def plain(width: int, height: int, name: str) -> bytes:
        return encode(np.full((height, width, 3), (200, 100, 50), dtype=np.uint8), name)

    def verdict(width: int, height: int) -> Verdict:
        return fine(((200, 100, 50),) * 4, (width, height))

    files: Files = {}
    for width, height in ((1, 1), (1, 20_000), (20_000, 1)):
        for name in ("PNG", "JPEG", "TIFF"):
            kind = f"{width:,} x {height:,} pixels"
            key = f"{width}x{height}.{name.lower()}"
            files[key] = (kind, plain(width, height, name), verdict(width, height))
    side = 60_000
    claims = {
        "png": png(side, side, b"\0" * 100),
        "jpg": claim_in_jpeg(jpeg(), side, side),
        "tiff": tiff(
            {256: side, 257: side, 258: (8, 8, 8), 259: 5, 262: 2, 273: 8, 277: 3, 279: 9}
        ),
        "gif": b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + GIF_PICTURE,
        "bmp": bmp(b"\0" * 100, side, side, 24),
        "webp": webp(side, side),
    }
    for suffix, content in claims.items():
        message = "over the limit" if suffix != "webp" else "which is the limit"
        files[f"claims.{suffix}"] = (
            "a header that claims 60,000 x 60,000 pixels",
            content,
            refused("too large", message),
        )
    header_only = {
        "png": png(0, 5, b""),
        "jpg": claim_in_jpeg(jpeg(), 0, 5),
        "gif": b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + GIF_PICTURE[:5] + bytes(7),
        "bmp": bmp(b"", 0, 5, 24),
        "tiff": tiff({256: 0, 257: 5, 258: 8, 259: 1, 262: 1, 273: 8, 279: 1}),
    }
    for suffix, content in header_only.items():
        files[f"none.{suffix}"] = (
            "a header that claims no pixels",
            content,
            refused("damaged", "its header makes no sense"),
        )
    return files


def modes() -> Files:
    colour, grey = colour_scene(), grey_scene()
    palette = colour.quantize(4)
    wide_grey = np.asarray(grey).astype(np.uint16) * 257
    wide_colour = quarters().astype(">u2") * 257
    alpha = np.tile(np.linspace(0, 255, WIDTH, dtype=np.uint8), (HEIGHT, 1))
    with_alpha = Image.fromarray(np.dstack([quarters(), alpha]))
    grey_alpha = Image.merge("LA", (grey, Image.fromarray(alpha)))
    two = Image.fromarray(quarters(BLACK_AND_WHITE)).convert("1")
    ink = colour.convert("CMYK")
    files: Files = {
        "1.png": ("mode 1 (PNG)", save(two, "PNG"), fine(BLACK_AND_WHITE)),
        "l.png": ("mode L (PNG)", save(grey, "PNG"), fine(GREYS)),
        "l.jpg": ("mode L (JPEG)", save(grey, "JPEG", quality=95), fine(GREYS)),
        "l2.png": (
            "grey of 2 bits (PNG)",
            png(*packed(2, (0, 1, 2, 3)), bits=2, colour=0),
            fine(((0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255))),
        ),
        "l4.png": (
            "grey of 4 bits (PNG)",
            png(*packed(4, (0, 5, 10, 15)), bits=4, colour=0),
            fine(((0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255))),
        ),
        "la.png": ("mode LA (PNG)", save(grey_alpha, "PNG"), fine(GREYS)),
        "p.png": ("mode P (PNG)", save(palette, "PNG"), fine()),
        "p.gif": ("mode P (GIF)", save(palette, "GIF"), fine()),
        "p.tiff": ("mode P (TIFF)", save(palette, "TIFF"), fine()),
        "p.bmp": ("mode P (BMP)", save(palette, "BMP"), fine()),
        "p_one.png": (
            "mode P, one colour transparent (PNG)",
            save(palette, "PNG", transparency=1),
            fine(),
        ),
        "p_all.png": (
            "mode P, every colour half transparent (PNG)",
            save(palette, "PNG", transparency=b"\x00\x80\xff\x40"),
            fine(),
        ),
        "p_one.gif": (
            "mode P, one colour transparent (GIF)",
            save(palette, "GIF", transparency=1),
            fine(),
        ),
        "rgb.png": ("mode RGB (PNG)", save(colour, "PNG"), fine()),
        "rgb_one.png": (
            "mode RGB, one colour transparent (PNG)",
            save(colour, "PNG", transparency=(255, 0, 0)),
            fine(),
        ),
        "rgba.png": ("mode RGBA (PNG)", save(with_alpha, "PNG"), fine()),
        "rgba.webp": (
            "mode RGBA (WEBP)",
            save(with_alpha, "WEBP", lossless=True, exact=True),
            fine(),
        ),
        "rgba.tiff": ("mode RGBA (TIFF)", save(with_alpha, "TIFF"), fine()),
        "rgba.bmp": ("mode RGBA (BMP)", save(with_alpha, "BMP"), fine()),
        "cmyk.jpg": ("mode CMYK (JPEG)", save(ink, "JPEG", quality=95), fine()),
        "cmyk.tiff": ("mode CMYK (TIFF)", save(ink, "TIFF"), fine()),
        "ycck.jpg": ("YCCK, Adobe's (JPEG)", ycck(), fine()),
        "ycbcr.tiff": ("mode YCbCr (TIFF)", save(colour.convert("YCbCr"), "TIFF"), fine()),
        "lab.tiff": ("mode LAB (TIFF)", save(to_lab(colour), "TIFF"), fine()),
        "i16.png": ("grey of 16 bits (PNG)", encode(wide_grey, "PNG"), fine(GREYS)),
        "i16.tiff": (
            "grey of 16 bits, little endian (TIFF)",
            encode(wide_grey, "TIFF"),
            fine(GREYS),
        ),
        "i16b.tiff": (
            "grey of 16 bits, big endian (TIFF)",
            save(Image.frombytes("I;16B", grey.size, wide_grey.astype(">u2").tobytes()), "TIFF"),
            fine(GREYS),
        ),
        "i.tiff": (
            "grey of 32 bits, values to 65535 (TIFF)",
            encode(wide_grey.astype(np.int32), "TIFF"),
            fine(GREYS),
        ),
        "i16_low.png": (
            "grey of 16 bits, no value over 255 (PNG)",
            encode(np.asarray(grey).astype(np.uint16), "PNG"),
            fine(GREYS),
        ),
        "i_low.tiff": (
            "grey of 32 bits, no value over 255 (TIFF)",
            encode(np.asarray(grey).astype(np.int32), "TIFF"),
            fine(GREYS),
        ),
        "i_high.tiff": (
            "grey of 32 bits, values over 65535 (TIFF)",
            encode(np.asarray(grey).astype(np.int32) * 65536, "TIFF"),
            refused("unsupported", "outside 0 to 65535"),
        ),
        "i_negative.tiff": (
            "grey of 32 bits, values below 0 (TIFF)",
            encode(np.asarray(grey).astype(np.int32) - 1, "TIFF"),
            refused("unsupported", "outside 0 to 65535"),
        ),
        "f.tiff": (
            "floating-point numbers (TIFF)",
            encode(np.asarray(grey).astype(np.float32), "TIFF"),
            refused("unsupported", "floating-point"),
        ),
        "rgb16.png": (
            "RGB of 16 bits (PNG)",
            png(WIDTH, HEIGHT, lines(wide_colour), bits=16),
            fine(),
        ),
        "rgba16.png": (
            "RGBA of 16 bits (PNG)",
            png(
                WIDTH,
                HEIGHT,
                lines(np.dstack([wide_colour, wide_colour[..., :1]]).astype(">u2")),
                bits=16,
                colour=6,
            ),
            fine(),
        ),
        "la16.png": (
            "grey and alpha of 16 bits (PNG)",
            png(
                WIDTH,
                HEIGHT,
                lines(np.dstack([wide_grey, wide_grey]).astype(">u2")),
                bits=16,
                colour=4,
            ),
            fine(GREYS),
        ),
        "p1.png": (
            "a palette of 1 bit (PNG)",
            save(
                Image.fromarray(quarters((COLOURS[0], COLOURS[1]) * 2)).quantize(2), "PNG", bits=1
            ),
            fine((COLOURS[0], COLOURS[1]) * 2),
        ),
    }
    return files


def orientations() -> Files:
    files: Files = {}
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "PNG": {},
        "WEBP": {"lossless": True},
        "TIFF": {},
    }
    for name, settings in options.items():
        for orientation, turn in STORED.items():
            content = encode(turn(quarters()), name, exif=oriented(orientation), **settings)
            kind = f"the EXIF orientations 1 to 8 ({name})"
            files[f"{orientation}.{name.lower()}"] = (kind, content, fine())
    damaged = {
        "random": b"Exif\0\0" + bytes(np.random.default_rng(2).integers(0, 256, 90, np.uint8)),
        "endless": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "cut": oriented(6).tobytes()[:20],
        "text": b"Exif\0\0" + b"upper left",
        "nine": oriented(9).tobytes(),
        "zero": oriented(0).tobytes(),
    }
    for name, exif in damaged.items():
        files[f"{name}.jpg"] = (
            "EXIF that is damaged, or says nothing (JPEG)",
            jpeg(exif=exif),
            fine(),
        )
        files[f"{name}.png"] = (
            "EXIF that is damaged, or says nothing (PNG)",
            encode(quarters(), "PNG", exif=exif),
            fine(),
        )
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6"/>')
    content = encode(STORED[6](quarters()), "PNG", pnginfo=info)
    files["xmp.png"] = ("an orientation in XMP (PNG)", content, fine())
    return files


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


# For each EXIF orientation, what a camera held that way does to the upright scene (EXIF 2.32).
STORED: dict[int, Any] = {
    1: lambda scene: scene,
    2: lambda scene: scene[:, ::-1],
    3: lambda scene: scene[::-1, ::-1],
    4: lambda scene: scene[::-1],
    5: lambda scene: np.swapaxes(scene, 0, 1),
    6: lambda scene: np.rot90(scene, 1),
    7: lambda scene: np.swapaxes(scene[::-1, ::-1], 0, 1),
    8: lambda scene: np.rot90(scene, -1),
}


def frames() -> Files:
    first, second = colour_scene(), Image.new("RGB", (WIDTH, HEIGHT), "black")
    both: dict[str, Any] = {"save_all": True, "append_images": [second]}
    return {
        "animated.gif": ("an animated GIF: the first picture", save(first, "GIF", **both), fine()),
        "animated.webp": (
            "an animated WEBP: the first picture",
            save(first, "WEBP", lossless=True, **both),
            fine(),
        ),
        "animated.png": ("an animated PNG: the first picture", save(first, "PNG", **both), fine()),
        "default.png": (
            "an animated PNG with a default image: the default image",
            save(first, "PNG", default_image=True, **both),
            fine(),
        ),
        "pages.tiff": (
            "a TIFF of several pages: the first page",
            save(first, "TIFF", **both),
            fine(),
        ),
        "several.mpo.jpg": (
            "a JPEG of several pictures (MPO): the first",
            save(first, "MPO", quality=95, **both),
            fine(),
        ),
        "two.jpg": ("two JPEG files in one: the first", jpeg() + jpeg(grain()), fine()),
        "two.png": (
            "two PNG files in one: the first",
            encode(quarters(), "PNG") + encode(grain(), "PNG"),
            fine(),
        ),
        "tail.jpg": ("garbage behind a JPEG", jpeg() + b"\xff\xda garbage" * 99, fine()),
        "tail.png": ("garbage behind a PNG", encode(quarters(), "PNG") + b"garbage" * 99, fine()),
        "tail.webp": (
            "garbage behind a WEBP",
            encode(quarters(), "WEBP", lossless=True) + b"garbage" * 99,
            fine(),
        ),
        "tail.gif": (
            "garbage behind a GIF",
            save(first.quantize(4), "GIF") + b"garbage" * 99,
            fine(),
        ),
    }


def odd_jpegs() -> Files:
    plain = jpeg()
    profile = b"not a profile" * 250_000
    thumbnail = oriented(1).tobytes() + jpeg(grain())
    return {
        "progressive.jpg": ("a progressive JPEG", jpeg(progressive=True), fine()),
        "restarts.jpg": ("a JPEG with restart markers", jpeg(restart_marker_rows=1), fine()),
        "arithmetic.jpg": ("an arithmetic-coded JPEG", base64.b85decode(ARITHMETIC), fine()),
        "subsampled.jpg": (
            "a JPEG with colours at half the resolution",
            jpeg(subsampling=2),
            fine(),
        ),
        "profile.jpg": ("a JPEG with a colour profile of 3 MB", jpeg(icc_profile=profile), fine()),
        "thumbnail.jpg": ("a JPEG within a JPEG's EXIF", jpeg(exif=thumbnail), fine()),
        "comment.jpg": (
            "a JPEG with a comment of 60 kB",
            jpeg(comment=b"\xff\xd9" * 30_000),
            fine(),
        ),
        "junk.jpg": (
            "a JPEG with junk between its segments",
            plain[:20] + b"\0" * 99 + plain[20:],
            fine(),
        ),
        "padded.jpg": (
            "a JPEG with padded markers",
            plain[:20] + b"\xff" * 99 + plain[20:],
            fine(),
        ),
        "lossless.jpg": (
            "a JPEG that says it is lossless and is not",
            plain.replace(b"\xff\xc0", b"\xff\xc3"),
            refused("damaged", "the JPEG is damaged"),
        ),
        "12_bits.jpg": (
            "a JPEG of 12 bits",
            flip(plain, plain.index(b"\xff\xc0") + 4, 2),
            refused("unsupported", "12-bit layers"),
        ),
        "two_channels.jpg": (
            "a JPEG of two channels",
            flip(plain, plain.index(b"\xff\xc0") + 9, 0),
            refused("unsupported", "2-layer"),
        ),
        "no_frame.jpg": ("a JPEG without a frame", b"\xff\xd8\xff\xd9", refused("damaged", "JPEG")),
        "no_tables.jpg": (
            "a JPEG without Huffman tables, as in Motion JPEG",
            plain.replace(b"\xff\xc4", b"\xff\xec"),
            fine(),
        ),
        "no_quantization.jpg": (
            "a JPEG without its quantisation tables",
            plain.replace(b"\xff\xdb", b"\xff\xec"),
            refused("damaged", "JPEG"),
        ),
    }


def odd_pngs() -> Files:
    plain = encode(quarters(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    text = part(b"tEXt", b"Title\0quarters")
    pieces = [b"".join(part(b"IDAT", bytes([byte])) for byte in zlib.compress(lines(quarters())))]
    palette = save(colour_scene().quantize(4), "PNG")
    at = palette.index(b"PLTE") - 4
    no_palette = palette[:at] + palette[at + 12 + int.from_bytes(palette[at : at + 4], "big") :]
    return {
        "interlaced.png": (
            "an interlaced PNG",
            png(WIDTH, HEIGHT, adam7(quarters()), interlaced=1),
            fine(),
        ),
        "text_sum.png": (
            "a PNG whose text has a wrong checksum",
            plain[:33] + flip(text, len(text) - 1) + plain[33:],
            fine(),
        ),
        "pieces.png": (
            "a PNG whose pixels come byte by byte",
            plain[:33] + pieces[0] + plain[-12:],
            fine(),
        ),
        "no_end.png": ("a PNG without its end", plain[:-12], fine()),
        "no_pixels.png": (
            "a PNG without pixels",
            plain[:pixels] + plain[-12:],
            refused("damaged", "no pixels"),
        ),
        "no_palette.png": (
            "a PNG of a palette without the palette",
            no_palette,
            refused("damaged", "no palette"),
        ),
        "half_pixels.png": (
            "a PNG whose pixels end early, checksums right",
            png(WIDTH, HEIGHT, lines(quarters())[: HEIGHT * WIDTH]),
            refused("truncated", "PNG"),
        ),
        "too_many_pixels.png": (
            "a PNG with more pixels than it claims",
            png(WIDTH, HEIGHT, lines(quarters()) * 3),
            fine(),
        ),
        "no_zlib.png": (
            "a PNG whose pixels are not compressed",
            PNG_MAGIC
            + part(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
            + part(b"IDAT", b"pixels" * 99)
            + part(b"IEND", b""),
            refused("damaged", "PNG"),
        ),
        "depth.png": (
            "a PNG of 3 bits",
            png(9, 9, b"\0" * 999, bits=3),
            refused("damaged", "its header makes no sense"),
        ),
        "unknown_part.png": (
            "a PNG with a part of an unknown kind",
            plain[:33] + part(b"abCd", b"?") + plain[33:],
            fine(),
        ),
        "apple.png": (
            "a PNG in Apple's variant (CgBI)",
            PNG_MAGIC
            + part(b"CgBI", b"\x50\0\x20\2")
            + part(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 6, 0, 0, 0))
            + part(b"IDAT", zlib.compress(b"\0" * 999)[2:-4])
            + part(b"IEND", b""),
            refused("damaged", "PNG"),
        ),
        "bad_animation.png": (
            "a PNG whose animation is damaged",
            plain[:33] + part(b"acTL", struct.pack(">II", 0, 0)) * 2 + plain[33:],
            fine(),
        ),
        "profile.png": (
            "a PNG with a colour profile of 2 MB",
            plain[:33] + part(b"iCCP", b"p\0\0" + zlib.compress(bytes(2 << 20))) + plain[33:],
            fine(),
        ),
    }


def odd_tiffs() -> Files:
    image = colour_scene()
    plain = save(image, "TIFF")
    rows = quarters().tobytes()
    planes = np.moveaxis(quarters(), -1, 0).tobytes()
    size, plane = len(rows), WIDTH * HEIGHT
    usual = {256: WIDTH, 257: HEIGHT, 258: (8, 8, 8), 259: 1, 262: 2, 277: 3}
    tiles = np.zeros((48, 64, 3), dtype=np.uint8)
    tiles[:HEIGHT, :WIDTH] = quarters()
    squares = b"".join(
        tiles[top : top + 16, left : left + 16].tobytes()
        for top in range(0, 48, 16)
        for left in range(0, 64, 16)
    )
    places = tuple(range(8, 8 + len(squares), 768))
    tiled = {**usual, 322: 16, 323: 16, 324: places, 325: (768,) * len(places)}
    two = Image.fromarray(quarters(BLACK_AND_WHITE)).convert("1")
    files: Files = {
        "lzw.tiff": ("a TIFF with LZW", save(image, "TIFF", compression="tiff_lzw"), fine()),
        "deflate.tiff": (
            "a TIFF with deflate",
            save(image, "TIFF", compression="tiff_adobe_deflate"),
            fine(),
        ),
        "packbits.tiff": (
            "a TIFF with PackBits",
            save(image, "TIFF", compression="packbits"),
            fine(),
        ),
        "jpeg.tiff": (
            "JPEG within a TIFF",
            save(image, "TIFF", compression="jpeg", quality=95),
            fine(),
        ),
        "group4.tiff": (
            "a fax in a TIFF (1 bit, group 4)",
            save(two, "TIFF", compression="group4"),
            fine(BLACK_AND_WHITE),
        ),
        "1.tiff": ("mode 1 (TIFF)", save(two, "TIFF"), fine(BLACK_AND_WHITE)),
        "big.tiff": ("a BigTIFF", save(image, "TIFF", big_tiff=True), fine()),
        "tiled.tiff": ("a TIFF of tiles", tiff(tiled, squares), fine()),
        "planes.tiff": (
            "a TIFF whose channels come one after the other",
            tiff(
                {
                    **usual,
                    273: (8, 8 + plane, 8 + 2 * plane),
                    278: HEIGHT,
                    279: (plane,) * 3,
                    284: 2,
                },
                planes,
            ),
            fine(),
        ),
        "rgb16.tiff": (
            "RGB of 16 bits (TIFF)",
            tiff(
                {**usual, 258: (16, 16, 16), 273: 8, 279: 2 * size},
                (quarters().astype("<u2") * 257).tobytes(),
            ),
            fine(),
        ),
        "planes16.tiff": (
            "RGB of 16 bits whose channels come one after the other (TIFF)",
            tiff(
                {
                    **{**usual, 258: (16, 16, 16)},
                    273: (8, 8 + 2 * plane, 8 + 4 * plane),
                    278: HEIGHT,
                    279: (2 * plane,) * 3,
                    284: 2,
                },
                np.repeat(np.frombuffer(planes, np.uint8), 2).tobytes(),
            ),
            fine(),
        ),
        "no_pixels.tiff": (
            "a TIFF that ends before its pixels",
            tiff({**usual, 273: 10_000, 279: size}),
            refused("truncated", "TIFF"),
        ),
        "no_size.tiff": (
            "a TIFF without a width",
            tiff({k: v for k, v in {**usual, 273: 8, 279: size}.items() if k != 256}, rows),
            refused("damaged", "TIFF"),
        ),
        "no_strips.tiff": (
            "a TIFF without strips",
            tiff(usual, rows),
            refused("unsupported", "TIFF"),
        ),
        "compression.tiff": (
            "a TIFF of an unknown compression",
            tiff({**usual, 259: 999, 273: 8, 279: size}, rows),
            refused("unsupported", "unknown code 999"),
        ),
        "samples.tiff": (
            "a TIFF of nine channels",
            tiff({**usual, 258: (8,) * 9, 277: 9, 273: 8, 279: size}, rows),
            refused("unsupported", "TIFF"),
        ),
        **unknown_pixels(usual),
        "beyond.tiff": (
            "a TIFF whose directory lies behind its end",
            plain[:4] + b"\xff\xff\xff\x7f" + plain[8:],
            refused("truncated", "the TIFF is truncated"),
        ),
        "loop.tiff": (
            "a TIFF whose page is followed by itself",
            loop(tiff({**usual, 273: 8, 279: size}, rows)),
            fine(),
        ),
        "long_tag.tiff": (
            "a TIFF with metadata beyond its end",
            tiff({**usual, 273: 8, 279: size, 34675: (7,) * 9}, rows).replace(
                struct.pack("<HHL", 34675, 4, 9), struct.pack("<HHL", 34675, 4, 1 << 30)
            ),
            fine(),
        ),
    }
    return files


def unknown_pixels(usual: dict[int, Any]) -> Files:
    """TIFFs of pixels that Pillow has no mode for, as remote sensing and microscopes write them."""

    def make(bits: int, bands: int, meaning: int, kind: int = 1) -> bytes:
        size = WIDTH * HEIGHT * bands * bits // 8
        tags = {258: (bits,) * bands, 262: meaning, 277: bands, 339: (kind,) * bands}
        return tiff({**usual, **tags, 273: 8, 279: size}, bytes(size))

    floats = refused("unsupported", "has floating-point pixels: save it with 8 or 16 bits")
    return {
        "bands5.tiff": (
            "a TIFF of five bands",
            make(8, 5, 2),
            refused("unsupported", "has 5 bands of 8 bits: save it with 1, 3 or 4"),
        ),
        "bands2.tiff": (
            "a TIFF of two bands of 16 bits",
            make(16, 2, 1),
            refused("unsupported", "has 2 bands of 16 bits: save it with 1, 3 or 4"),
        ),
        "bands4.tiff": (
            "a TIFF of four bands that are not called colours",
            make(8, 4, 1),
            refused("unsupported", "has 4 band(s) of 8 bits with the photometric"),
        ),
        "float_rgb.tiff": ("floating-point RGB (TIFF)", make(32, 3, 2, 3), floats),
        "float_bands5.tiff": ("five floating-point bands (TIFF)", make(32, 5, 1, 3), floats),
        "float64.tiff": ("floating-point numbers of 64 bits (TIFF)", make(64, 1, 1, 3), floats),
        "int16.tiff": (
            "signed 16 bits, white is zero (TIFF)",
            make(16, 1, 0, 2),
            refused("unsupported", "has signed 16-bit pixels"),
        ),
        "int16_rgb.tiff": (
            "RGB of signed 16 bits (TIFF)",
            make(16, 3, 2, 2),
            refused("unsupported", "has signed 16-bit pixels"),
        ),
    }


def odd_bmps_gifs_and_webps() -> Files:
    rows = quarters()
    flat = np.pad(rows[::-1, :, ::-1], ((0, 0), (0, -WIDTH * 3 % 4), (0, 0))).tobytes()
    blue_first = rows[..., ::-1]
    run = b"".join(
        bytes([30, 0, 30, 1, 0, 0]) if row < 20 else bytes([30, 2, 30, 3, 0, 0])
        for row in range(HEIGHT)[::-1]
    )
    table = b"".join(bytes([*colour[::-1], 0]) for colour in COLOURS)
    gif = save(colour_scene().quantize(4), "GIF", interlace=1)
    code_size = gif.index(b",") + 10
    return {
        "32.bmp": (
            "a BMP of 32 bits",
            bmp(np.dstack([blue_first, blue_first[..., :1]])[::-1].tobytes(), WIDTH, HEIGHT, 32),
            fine(),
        ),
        "top_down.bmp": (
            "a BMP from top to bottom",
            bmp(blue_first.tobytes(), WIDTH, -HEIGHT, 24),
            fine(),
        ),
        "24.bmp": ("a BMP of 24 bits", bmp(flat, WIDTH, HEIGHT, 24), fine()),
        "rle.bmp": ("a BMP of run lengths", bmp(run, WIDTH, HEIGHT, 8, 1, table), fine()),
        "header.bmp": (
            "a BMP whose header is overwritten",
            b"BM" + bytes(12) + struct.pack("<I", 40) + b"\xff" * 36,
            refused("unsupported", "Unsupported BMP pixel depth"),
        ),
        "jpeg.bmp": (
            "JPEG within a BMP",
            bmp(jpeg(), WIDTH, HEIGHT, 24, 4),
            refused("unsupported", "Unsupported BMP compression"),
        ),
        "interlaced.gif": ("an interlaced GIF", gif, fine()),
        "grey.gif": ("a GIF without a palette", save(grey_scene(), "GIF"), fine(GREYS)),
        "no_picture.gif": (
            "a GIF without a picture",
            b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b";",
            refused("truncated", "GIF"),
        ),
        "large_picture.gif": (
            "a GIF whose picture is larger than its screen",
            gif[:6] + struct.pack("<HH", 5, 5) + gif[10:],
            fine(),
        ),
        "code_size.gif": (
            "a GIF of an impossible code size",
            gif[:code_size] + b"\x0d" + gif[code_size + 1 :],
            refused("damaged", "GIF"),
        ),
        "lossless.webp": ("a lossless WEBP", encode(rows, "WEBP", lossless=True), fine()),
        "lossy.webp": ("a lossy WEBP", encode(rows, "WEBP", quality=95), fine()),
        "header.webp": (
            "a WEBP of a header alone",
            webp(WIDTH, HEIGHT),
            refused("damaged", "WEBP"),
        ),
    }


def bombs() -> Files:
    zeros = zlib.compress(bytes(64 << 20), 9)
    plain = encode(quarters(), "PNG")

    def beside(kind: bytes, body: bytes) -> bytes:
        return plain[:33] + part(kind, body) + plain[33:]

    progressive = jpeg(progressive=True)
    last = progressive.rindex(b"\xff\xda")
    scans = progressive[:-2] + progressive[last : last + 10] * 1000 + b"\xff\xd9"
    exif = b"\xff\xe1\0\x10Exif\0\0" + bytes(8)
    one_bit = {256: 1000, 257: 1000, 258: 1, 259: 1, 262: 1, 277: 1, 278: 999}
    overlapping = {**one_bit, 273: (8,) * 20_000, 279: (125_000,) * 20_000}
    tile = {
        256: 16,
        257: 16,
        258: (8, 8, 8),
        259: 8,
        262: 2,
        277: 3,
        322: 32_768,
        323: 32_768,
        324: 8,
        325: 99,
    }
    gif = save(grey_scene(), "GIF")
    picture = gif.index(b",")
    return {
        "zeros.png": (
            "a PNG of 13,000 x 13,000 zeros (160 kB)",
            png(13_000, 13_000, b"", compressed=zlib.compress(bytes(1 << 20))),
            refused("too large", "13000 x 13000"),
        ),
        "ztxt.png": ("64 MB in a PNG's compressed text", beside(b"zTXt", b"a\0\0" + zeros), fine()),
        "itxt.png": (
            "64 MB in a PNG's international text",
            beside(b"iTXt", b"a\0\1\0\0\0" + zeros),
            fine(),
        ),
        "iccp.png": ("64 MB in a PNG's colour profile", beside(b"iCCP", b"a\0\0" + zeros), fine()),
        "scans.jpg": (
            "a progressive JPEG of 1,010 scans",
            scans,
            refused("too large", "over 100 scans"),
        ),
        "exif.jpg": (
            "a JPEG of 1,000 parts of EXIF",
            jpeg()[:2] + exif * 1000 + jpeg()[2:],
            refused("too large", "over 100 parts of EXIF"),
        ),
        "segments.jpg": (
            "a JPEG of 20,000 comments",
            jpeg()[:2] + b"\xff\xfe\0\3x" * 20_000 + jpeg()[2:],
            refused("too large", "over 10000 parts"),
        ),
        "junk.jpg": (
            "a JPEG with 100 kB of junk between its segments",
            jpeg()[:20] + bytes(100_000) + jpeg()[20:],
            refused("too large", "over 65536 bytes"),
        ),
        "strips.tiff": (
            "a TIFF with 20,000 strips in one place",
            tiff(overlapping, bytes(125_000)),
            refused("damaged", "overlap"),
        ),
        "tile.tiff": (
            "a TIFF of 16 x 16 pixels in a tile of 32,768 x 32,768",
            tiff(tile, zeros[:99]),
            refused("too large", "takes 4096 MiB"),
        ),
        "run_lengths.bmp": (
            "a BMP of 9,000 x 9,000 pixels in run lengths (36 kB)",
            bmp(b"\1\5\0\0" * 9000, 9000, 9000, 8, 1, bytes(1024)),
            refused("too large", "run lengths"),
        ),
        "blocks.gif": (
            "a GIF of 300,000 blocks before its picture",
            gif[:picture] + b"!\xfe" + b"\1x" * 300_000 + b"\0" + gif[picture:],
            refused("too large", "over 262144 blocks"),
        ),
        "canvas.webp": (
            "a WEBP of 9,000 x 9,000 pixels (60 bytes)",
            webp(9000, 9000, lossless=True),
            refused("too large", "takes 1235 MiB"),
        ),
    }


def odd_keys() -> Files:
    content = jpeg()
    keys = {
        "spaces within": "with spaces in it.jpg",
        "blanks around": " blank first and last .jpg ",
        "composed Unicode": "composed \u00e9.jpg",
        "decomposed Unicode": unicodedata.normalize("NFD", "composed \u00e9.jpg"),
        "Chinese": "\u5c71\u5ddd/\u732b.jpg",
        "Hebrew": "\u05d7\u05ea\u05d5\u05dc.jpg",
        "an emoji of three characters": "emoji \U0001f408\u200d\u2b1b.jpg",
        "two dots within": "dots..inside.jpg",
        "two dots as a folder": "up/../down.jpg",
        "two dots first": "../above.jpg",
        "one dot first": "./here.jpg",
        "an escaped slash": "percent%2Fslash.jpg",
        "a percent sign alone": "percent%.jpg",
        "a question mark": "question?mark=1.jpg",
        "a hash": "hash#tag.jpg",
        "plus, ampersand, equals": "plus+and&equals=.jpg",
        "a newline": "new\nline.jpg",
        "a tab": "tab\tulator.jpg",
        "quotes": "'single' and \"double\" quotes.jpg",
        "a backslash": "back\\slash.jpg",
        "a glob": "star*[0-9]{a,b}~$HOME.jpg",
        "semicolon, colon, comma": "semi;colon:comma,.jpg",
        "angle brackets and a pipe": "less<than>pipe|.jpg",
        "a leading slash": "/leading slash.jpg",
        "two leading slashes": "//two leading slashes.jpg",
        "a double slash": "double//slash.jpg",
        "a capital": "Case.jpg",
        "no capital": "case.jpg",
        "capitals, and in the suffix": "CASE.JPG",
        "a leading dash": "-dash first.jpg",
        "many dots": "many.dots.in.a.name.jpg",
        "a name of 204 characters": "a" * 200 + ".jpg",
        "a kilobyte": "/".join(["kilobyte" * 12] * 9) + "/" + "k" * 100 + ".jpg",
    }
    return {key: (f"a key: {what}", content, fine()) for what, key in keys.items()}


def ycck() -> bytes:
    """A JPEG in Adobe's YCCK, which Pillow reads and does not write."""
    # What is stored is inverted: of ink, and of the numbers.
    stored = Image.fromarray(255 - quarters()).convert("YCbCr")
    black = Image.new("L", stored.size, 255)
    channels = [
        Image.eval(channel, lambda value: 255 - value) for channel in (*stored.split(), black)
    ]
    content = save(Image.merge("CMYK", channels), "JPEG", quality=95)
    transform = content.index(b"Adobe") + 11
    return content[:transform] + b"\2" + content[transform + 1 :]


def to_lab(image: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def packed(bits: int, values: tuple[int, ...]) -> tuple[int, int, bytes]:
    """The scene in values of a few bits: width, height and rows of a PNG."""
    scene = np.empty((HEIGHT, WIDTH), dtype=np.uint8)
    for number, value in enumerate(values):
        top, left = HEIGHT // 2 * (number // 2), WIDTH // 2 * (number % 2)
        scene[top : top + HEIGHT // 2, left : left + WIDTH // 2] = value
    each = np.unpackbits(scene[..., None], axis=-1)[..., 8 - bits :]
    return WIDTH, HEIGHT, lines(np.packbits(each.reshape(HEIGHT, -1), axis=-1))


# The scene, written by libjpeg with `arith_code`, which Pillow cannot set.
ARITHMETIC = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6"
    "ModmpQ&KWMT47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%z"
    "Pft%zPft%zPft%zPf!2J01*fPC;&VI0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0244p%cQF26?9KU"
    "XsCE`NFDIR8KxgGXW}-"
    "Pn;OB*T5JdQ9Ak4@jy(MDf2w?3z(9~`qSXbcjl;54KfuquftN?MWJvq!1RGyDz7D)#As(Qo?=bgAU^DNMK@|~KD^1G"
    "f$3{q=g@?@q<;3TfFx*Y8Zq&<hq%${!fr0LXf*~nkKZ7Vz{w0n#n1V)3e(+~$W7#x50pj2XG|<i0I8pRIKihg77cVZ"
    "xa+Tyi<Re|gl)I0>);Vkc0Kpb~F+rM9*|c~T8c&PoW&||W3`!lZ<Q}DxDSX}EVv8062N$yc*#"
)
