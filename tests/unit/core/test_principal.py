"""A principal may do what it was given, and nothing follows from nothing."""

import pytest

from modelkeep.core.principal import Principal, is_permitted


@pytest.mark.parametrize(
    ("scopes", "scope", "permitted"),
    [
        ((), "infer:digits", False),
        ((), "metrics", False),
        (("infer:digits",), "infer:digits", True),
        (("infer:digits",), "infer:digits2", False),
        (("infer:digits",), "infer:*", False),
        (("infer:*",), "infer:anything", True),
        (("infer:*",), "metrics", False),
        (("metrics",), "metrics", True),
        (("metrics",), "infer:metrics", False),
        (("*",), "infer:digits", False),
        (("infer",), "infer:digits", False),
        (("",), "infer:digits", False),
    ],
)
def test_a_scope_is_held_by_itself_or_by_its_family(scopes, scope, permitted):
    principal = Principal(name="alice", tenant="default", scopes=scopes)
    assert is_permitted(principal, scope) is permitted
