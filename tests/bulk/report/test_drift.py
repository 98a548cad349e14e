"""The drift in a report: what it says and shows."""

import re

from tests.bulk.report.outputs import Output, text_of


def section_of(page: str) -> str:
    return page.partition('<h2 id="drift">')[2].partition("</section>")[0]


def test_what_moved_is_said_and_shown(output: Output) -> None:
    for n in range(40):
        output.add(f"/nowhere/{n}.jpg", n)
    reference = output.reference()
    for row in output.results:
        row["brightness"] = 0.75
    output.write()
    page = output.report(reference=reference)
    text = text_of(page)
    assert (
        "drifted from the training images: brightness (distance 1.00, mean 0.75 instead of" in text
    )
    assert "drift 1.00 1 of 12 features moved" in text
    assert "features that have not moved: 11" in text
    section = section_of(page)
    assert len(re.findall("<img", section)) == 12
    assert "100% here, 0% in training" in section


def test_the_images_most_unlike_those_of_the_training_are_shown(output: Output) -> None:
    for n in range(40):
        output.add(f"/nowhere/{n:02}.jpg", n)
    reference = output.reference()
    odd = [3, 17]
    for n in odd:
        output.results[n] |= {"brightness": 0.9, "contrast": 0.4, "saturation": 0.9}
    output.write()
    section = section_of(output.report(reference=reference))
    shown = re.findall(r'alt="image /nowhere/(\d+).jpg"', section)
    assert len(shown) == 12
    assert {"03", "17"} <= set(shown)


def test_images_like_those_of_the_training_have_not_moved(output: Output) -> None:
    for n in range(40):
        output.add(f"/nowhere/{n}.jpg", n)
    output.write()
    text = text_of(output.report(reference=output.reference()))
    assert "No drift of the images from the training images was found; there are too few" in text
    assert "features that have not moved: 12" in text


def test_without_a_reference_the_drift_is_not_known(output: Output) -> None:
    output.add("/nowhere/1.jpg", 1)
    output.write()
    assert "is not known" in text_of(section_of(output.report()).join(["<body>", "<script>"]))
