"""What is tried against every KMS: the promises that go beyond the contract of the port."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from stand_in import StandIn

from modelkeep.adapters.keysources import opened_source
from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.wrapped_key import label_of, wrapped_bytes
from modelkeep.ports.keysource import KeySource
from modelkeep.testing.keysource_contract import (
    KEY,
    RAW,
    SHOWN,
    KeySourceContract,
    everything_said,
)
from modelkeep.testing.memory import SeededEntropy


def source_of(reference: str) -> KeySource:
    """The source, opened as a keep opens it."""
    return opened_source(
        reference, passphrase=None, entropy=SeededEntropy(), argon2=Argon2Settings()
    )


def refused(work: Callable[[], object], error: type[KeepError] = RefusedError) -> str:
    """The code of a refusal that shows no secret."""
    with pytest.raises(error) as refusal:
        work()
    said = everything_said(refusal.value)
    assert b"canary" not in said
    assert not any(shown in said for shown in SHOWN)
    return refusal.value.code


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class KmsCases(KeySourceContract):
    """Inherit, and give `stand_in`, `foreign` and `wrong_credentials`."""

    step = 7
    wrong_credentials: dict[str, Any]

    def foreign(self, stand_in: Any, plain: bytes, *, bound: bool) -> bytes:
        """What the stand-in gives another program that uses the same key."""
        raise NotImplementedError

    @pytest.fixture
    def sources(self, stand_in: StandIn) -> Callable[..., KeySource]:
        held = {other: source_of(stand_in.reference(("keep", "other")[other])) for other in (0, 1)}
        return lambda *, other=False: held[other]

    @pytest.fixture
    def unavailable(self, stand_in: StandIn) -> Iterator[KeySource]:
        with closed_port() as port:
            yield source_of(stand_in.reference().replace(f":{stand_in.port}", f":{port}"))

    def test_a_missing_key_is_missing(self, stand_in: StandIn) -> None:
        source = source_of(stand_in.reference("none"))
        assert refused(lambda: source.wrap(KEY), MissingError) == "keysource.missing"

    def test_wrong_credentials_are_refused(self, stand_in: StandIn) -> None:
        source = source_of(stand_in.reference(**self.wrong_credentials))
        assert refused(lambda: source.wrap(KEY)) == "keysource.forbidden"

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_server_that_fails_and_quotes_the_request_gives_nothing_away(
        self, stand_in: StandIn, status: int
    ) -> None:
        source = source_of(stand_in.reference())
        wrapped = source.wrap(KEY)
        stand_in.down = status
        for work in (lambda: source.wrap(KEY), lambda: source.unwrap(wrapped)):
            assert refused(work, UnavailableError) == "keysource.unavailable"

    def test_it_is_not_led_to_another_host(self, stand_in: StandIn, tmp_path: Any) -> None:
        (tmp_path / "elsewhere").mkdir()
        elsewhere = type(stand_in)(tmp_path / "elsewhere", twin=stand_in)
        try:
            source = source_of(stand_in.reference())
            wrapped = source.wrap(KEY)  # signed in, where there is a sign-in
            stand_in.redirect = elsewhere.address
            for work in (lambda: source.wrap(KEY), lambda: source.unwrap(wrapped)):
                assert refused(work, KeepError)
            assert not elsewhere.asked
        finally:
            elsewhere.close()

    def test_a_certificate_of_another_authority_is_not_believed(
        self, stand_in: StandIn, tmp_path: Any
    ) -> None:
        (tmp_path / "stranger").mkdir()
        stranger = type(stand_in)(tmp_path / "stranger")
        stranger.close()
        reference = stand_in.reference().replace(str(stand_in.ca), str(stranger.ca))
        assert reference != stand_in.reference()
        source = source_of(reference)
        assert refused(lambda: source.wrap(KEY), UnavailableError) == "keysource.unavailable"
        assert not stand_in.asked

    def test_the_environment_changes_nothing(
        self, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closed_port() as port:
            nowhere = f"http://127.0.0.1:{port}"
            for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "AWS_ENDPOINT_URL"):
                monkeypatch.setenv(name, nowhere)
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            for name in ("VAULT_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "of-somebody-else")
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/dev/null")
            source = source_of(stand_in.reference())
            assert source.unwrap(source.wrap(KEY)) == KEY

    def test_what_another_program_wrapped_with_the_same_key_does_not_open(
        self, stand_in: StandIn
    ) -> None:
        source = source_of(stand_in.reference())
        label = label_of(source.kind)
        ours = wrapped_bytes(source.kind, self.foreign(stand_in, label + RAW, bound=True))
        assert source.unwrap(ours) == KEY
        for plain, bound in ((label + RAW, False), (b"x" * (len(label) + 32), True), (RAW, True)):
            raw = wrapped_bytes(source.kind, self.foreign(stand_in, plain, bound=bound))
            code = refused(lambda raw=raw: source.unwrap(raw), (RefusedError, IntegrityError))
            assert code in ("keys.source", "keysource.purpose")

    def test_no_secret_stands_in_a_repr(self, stand_in: StandIn) -> None:
        source = source_of(stand_in.reference())
        source.wrap(KEY)
        assert "canary" not in repr(source) + repr(vars(source))

    def test_nothing_is_asked_before_it_is_used(self, stand_in: StandIn) -> None:
        source_of(stand_in.reference())
        assert not stand_in.asked
