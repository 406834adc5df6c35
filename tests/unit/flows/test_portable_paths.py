"""A part of a model that is written elsewhere leads nowhere that the whole did not."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import RefusedError
from modelkeep.flows.portable_paths import links_below

PARTS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)
SAYS = st.lists(st.sampled_from(["..", "a", "b", "."]), min_size=1, max_size=5)


def is_below(path, says):
    return not posixpath.normpath(posixpath.join(posixpath.dirname(path), says)).startswith("..")


@given(PARTS, PARTS, st.integers(0, 5), SAYS)
def test_no_link_of_a_part_leads_out_of_it_that_stayed_in_the_whole(above, below, ups, says):
    whole, name = "/".join([*above, *below]), "/".join(below)
    target = "/".join([".."] * ups + [each for each in says if each != ".."]) or "."
    if is_below(whole, target) and not is_below(name, target):
        with pytest.raises(RefusedError) as refused:
            links_below([(whole, target)], "/".join(above))
        assert refused.value.code == "restore.link"
    else:
        assert links_below([(whole, target)], "/".join(above)) == [(name, target)]


@pytest.mark.parametrize("says", ["/etc/passwd", "x/../../y", "../../.."])
def test_a_link_that_never_stayed_inside_is_its_owners_own(says):
    assert links_below([("a/b", says)], "a") == [("b", says)]


def test_all_of_it_and_what_lies_beside_a_part_stay_as_they_are():
    links = [("a/up", "../x"), ("ab", "x"), ("b/up", "../x")]
    assert links_below(links, "") == links
    assert links_below([*links[1:], ("a/in", "b")], "a") == [("in", "b")]
    assert links_below(links, "c") == []
