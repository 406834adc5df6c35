"""Licences as SPDX expressions: whether one reads as such, and whether a policy allows it.

`packaging.licenses` knows the list of SPDX and the grammar; it is here anyway, for versions. What
it does not say is what an expression demands: `A OR B` is allowed where one of them is, `A AND B`
where both are. An exception (`WITH`) and a later version (`+`) only add permissions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

# The longest expression of a real package has some hundred characters.
_EXPRESSION_CHARS_MAX = 500
_DEPTH_MAX = 20
# `GPL-2.0` is what SPDX wrote before it told `-only` and `-or-later` apart.
_LATER = ("+", "-or-later", "-only")


def normal_licence(text: str) -> str:
    """The expression as SPDX writes it; empty for what is none."""
    if len(text) > _EXPRESSION_CHARS_MAX or text.count("(") > _DEPTH_MAX or not text.isascii():
        return ""
    # Every command reads the settings; few look at a licence.
    from packaging.licenses import (  # noqa: PLC0415
        InvalidLicenseExpression,
        canonicalize_license_expression,
    )

    try:
        return str(canonicalize_license_expression(text))
    except (InvalidLicenseExpression, SyntaxError, ValueError):
        return ""


def is_licence(text: str) -> bool:
    """Whether a text is one licence of SPDX, or a name of one's own (`LicenseRef-…`)."""
    found = normal_licence(text)
    return bool(found) and not set(found) & set(" ()")


def is_permitted(expression: str, allowed: Collection[str]) -> bool:
    """Whether an expression, normalised, leaves a choice of licences that all are allowed."""
    words = expression.replace("(", " ( ").replace(")", " ) ").split()
    plain = {normal_licence(each) for each in allowed}
    return _either(iter([*words, ")"]), plain)


def _either(words: Iterator[str], allowed: Collection[str]) -> bool:
    """One side of `OR` after the other, up to the closing parenthesis."""
    is_any, is_all = False, True
    is_exception = False
    for word in words:
        if word == ")":
            break
        if word == "OR":
            is_any, is_all = is_any or is_all, True
        elif word == "WITH":
            is_exception = True
        elif is_exception:
            is_exception = False
        elif word == "(":
            is_all &= _either(words, allowed)
        elif word != "AND":
            is_all &= _is_one_of(word, allowed)
    return is_any or is_all


def _is_one_of(licence: str, allowed: Collection[str]) -> bool:
    """Whether a licence is allowed, also as the least of several versions."""
    names = {licence, *(licence.removesuffix(each) for each in _LATER if licence.endswith(each))}
    return bool(names & set(allowed))
