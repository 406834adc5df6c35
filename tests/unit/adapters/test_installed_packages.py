"""Unit tests of adapters.installed_packages: what installers leave behind is read as it is."""

import json

import pytest

from modelkeep.adapters.installed_packages import installed_packages, interpreter
from modelkeep.scan.requirements import ELSEWHERE


@pytest.fixture
def install(tmp_path):
    """Leaves what an installer leaves of a package."""

    def leave(name, *lines, origin=None):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        head = ("Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0")
        (folder / "METADATA").write_text("\n".join((*head, *lines)) + "\n")
        if origin is not None:
            (folder / "direct_url.json").write_text(origin)

    return leave


@pytest.fixture
def found(tmp_path):
    def found(name):
        (package,) = [each for each in installed_packages([str(tmp_path)]) if each.name == name]
        return package

    return found


def test_a_package_has_its_normal_name_its_licence_and_what_it_needs(install, found):
    install("Acme_Odd", "License-Expression: MIT", "Requires-Dist: acme.other>=1",
            "Requires-Dist: msgspec; extra == 'fast'", "Requires-Dist: nowhere")  # fmt: skip
    install("acme.other", "License: of its own", "Requires-Dist: acme-odd; python_version > '3'")
    assert (found("acme-odd").version, found("acme-odd").licence) == ("1.0", "MIT")
    assert found("acme-odd").needs == ("acme-other",)
    assert found("acme-other").needs == ("acme-odd",)
    assert (found("acme-other").licence, found("acme-other").why_not) == ("of its own", "")


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License: UNKNOWN"], ""),
        (["License: first line", "        of a whole text"], ""),
        (["Classifier: License :: OSI Approved :: MIT License"], "MIT License"),
        (["Classifier: Programming Language :: Python"], ""),
    ],
)
def test_a_licence_is_a_line_or_a_classifier(install, found, lines, licence):
    install("acme", *lines)
    assert found("acme").licence == licence


@pytest.mark.parametrize(
    ("origin", "hashes"),
    [
        ({"url": "file:///x", "dir_info": {"editable": True}}, ()),
        ({"url": "x", "archive_info": {"hashes": {"sha256": "ab"}}}, ("sha256:ab",)),
        ({"url": "x", "archive_info": {"hash": "sha256=ab"}}, ("sha256:ab",)),
        ({"url": "x", "archive_info": []}, ()),
        ([], ()),
    ],
)
def test_what_came_from_elsewhere_is_not_of_the_index(install, found, origin, hashes):
    install("acme", origin=json.dumps(origin))
    assert (found("acme").why_not, found("acme").hashes) == (ELSEWHERE, hashes)


def test_what_has_no_name_or_a_broken_origin_is_read_as_far_as_it_goes(install, found):
    install("acme", origin="{")
    install("", "License: none")
    assert found("acme").why_not == ELSEWHERE
    assert interpreter()[1].startswith("3.")
