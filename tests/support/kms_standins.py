"""Stand-ins for Vault, AWS KMS, Google Cloud KMS and Azure Key Vault: small servers over TLS.

They speak the services' own protocols, check who asks (Vault's token, AWS's signature, Google's
signed token, Azure's sign-in) and really encrypt, with AES-GCM and RSA. They are written from the
services' public documentation by the same people as the clients: they prove that a client does
what the documentation says, not that the service does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from stand_in import HOST, Asked, Refusal, StandIn

from modelkeep.kernels.crc32c import crc32c

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256().digest_size)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# ---- Vault: transit --------------------------------------------------------------------------


class VaultStandIn(StandIn):
    """`POST /v1/transit/encrypt/NAME` and `decrypt`; keys have versions."""

    token = "hvs.canary-token-of-vault"  # noqa: S105 - of a server that lives for one test

    def start(self) -> None:
        self.keys = {name: [os.urandom(32)] for name in ("keep", "other")}
        self.oldest = 1

    def reference(self, key: str = "keep", *, token: str = "") -> str:
        where = self.secret("token", (token or self.token) + "\n")
        return f"kms:vault:{self.address}/transit/keys/{key}?token={where}&ca={self.ca}"

    def rotate(self, key: str) -> None:
        self.keys[key].append(os.urandom(32))

    def answer(self, asked: Asked) -> Any:
        if asked.headers.get("x-vault-token") != self.token:
            raise Refusal(403, {"errors": ["permission denied"]})
        if asked.headers.get("x-vault-request") != "true":
            raise Refusal(400, {"errors": ["missing X-Vault-Request header"]})
        found = re.fullmatch(r"/v1/transit/(encrypt|decrypt)/([a-z]+)", asked.path)
        if asked.method not in ("POST", "PUT") or found is None:
            raise Refusal(404, {"errors": ["no handler for route"]})
        versions = self.keys.get(found[2])
        if versions is None:
            raise Refusal(400, {"errors": ["encryption key not found"]})
        bound = unb64(asked.json.get("associated_data", ""))
        work = self.encrypted if found[1] == "encrypt" else self._decrypted
        return {"data": work(versions, asked.json, bound)}

    def encrypted(self, versions: list[bytes], facts: Any, bound: bytes) -> Any:
        nonce = os.urandom(12)
        sealed = AESGCM(versions[-1]).encrypt(nonce, unb64(facts["plaintext"]), bound)
        return {"ciphertext": f"vault:v{len(versions)}:{b64(nonce + sealed)}"}

    def _decrypted(self, versions: list[bytes], facts: Any, bound: bytes) -> Any:
        found = re.fullmatch(r"vault:v(\d+):(.+)", facts["ciphertext"])
        version = int(found[1]) if found else 0
        if found is None or not self.oldest <= version <= len(versions):
            raise Refusal(400, {"errors": ["invalid ciphertext: version is too old or new"]})
        raw = unb64(found[2])
        try:
            plain = AESGCM(versions[version - 1]).decrypt(raw[:12], raw[12:], bound)
        except (InvalidTag, ValueError):
            errors = ["cipher: message authentication failed"]
            raise Refusal(400, {"errors": errors}) from None
        return {"plaintext": b64(plain)}


# ---- AWS KMS ---------------------------------------------------------------------------------


class AwsStandIn(StandIn):
    """`TrentService.Encrypt` and `Decrypt` in JSON 1.1; Signature Version 4 is verified."""

    content_type = "application/x-amz-json-1.1"
    access_key = "AKIACANARYCANARY0001"
    secret_key = "canary/secret/key/of/aws/0000000000000000"  # noqa: S105 - as above

    def start(self) -> None:
        self.keys = {self.arn(name): os.urandom(32) for name in ("keep", "other")}

    @staticmethod
    def arn(name: str) -> str:
        return f"arn:aws:kms:eu-central-1:111122223333:key/{name}"

    def reference(self, key: str = "keep", *, secret_key: str = "") -> str:
        held = {
            "Version": 1,
            "AccessKeyId": self.access_key,
            "SecretAccessKey": secret_key or self.secret_key,
        }
        where = self.secret("credentials.json", json.dumps(held, indent=1))
        more = f"credentials={where}&endpoint={self.address}&ca={self.ca}"
        return f"kms:aws:{self.arn(key)}?{more}"

    def answer(self, asked: Asked) -> Any:
        if not self._is_signed(asked):
            raise Refusal(400, {"__type": "InvalidSignatureException", "message": "no"})
        facts = asked.json
        held = self.keys.get(facts["KeyId"])
        if held is None:
            raise Refusal(400, {"__type": "NotFoundException", "message": "no key"})
        bound = json.dumps(facts.get("EncryptionContext", {}), sort_keys=True).encode()
        verb = asked.headers["x-amz-target"].removeprefix("TrentService.")
        known = {"KeyId": facts["KeyId"], "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
        if verb == "Encrypt":
            box = self.encrypted(facts["KeyId"], unb64(facts["Plaintext"]), bound)
            return known | {"CiphertextBlob": b64(box)}
        return known | {"Plaintext": b64(self._decrypted(facts, bound))}

    def encrypted(self, key: str, plain: bytes, bound: bytes) -> bytes:
        nonce, name = os.urandom(12), hashlib.sha256(key.encode()).digest()
        return name + nonce + AESGCM(self.keys[key]).encrypt(nonce, plain, bound)

    def _decrypted(self, facts: Any, bound: bytes) -> bytes:
        raw = unb64(facts["CiphertextBlob"])
        name, nonce, sealed = raw[:32], raw[32:44], raw[44:]
        owners = [key for key in self.keys if hashlib.sha256(key.encode()).digest() == name]
        if owners != [facts["KeyId"]]:
            wrong = "IncorrectKeyException" if owners else "InvalidCiphertextException"
            raise Refusal(400, {"__type": wrong, "message": "no"})
        try:
            return AESGCM(self.keys[facts["KeyId"]]).decrypt(nonce, sealed, bound)
        except (InvalidTag, ValueError):
            raise Refusal(400, {"__type": "InvalidCiphertextException"}) from None

    def _is_signed(self, asked: Asked) -> bool:
        """Signature Version 4, as the documentation computes it."""
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d+)/([a-z0-9-]+)/kms/aws4_request, "
            r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
            asked.headers.get("authorization", ""),
        )
        if found is None or found[1] != self.access_key or "host" not in found[4].split(";"):
            return False
        lines = [f"{name}:{asked.headers[name].strip()}\n" for name in found[4].split(";")]
        digest = hashlib.sha256(asked.body).hexdigest()
        canonical = f"{asked.method}\n{asked.path}\n\n{''.join(lines)}\n{found[4]}\n{digest}"
        scope = f"{found[2]}/{found[3]}/kms/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{asked.headers['x-amz-date']}\n{scope}\n{hashed}"
        key = b"AWS4" + self.secret_key.encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.compare_digest(hmac.new(key, text.encode(), "sha256").hexdigest(), found[5])


# ---- Google Cloud KMS ------------------------------------------------------------------------


class GcpStandIn(StandIn):
    """`POST /v1/KEY:encrypt` and `:decrypt`; the caller's RS256 token is verified."""

    account = "keeper@project.iam.gserviceaccount.com"

    def start(self) -> None:
        self.keys = {self.name(each): [os.urandom(32)] for each in ("keep", "other")}
        self._signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @staticmethod
    def name(key: str) -> str:
        return f"projects/project/locations/global/keyRings/ring/cryptoKeys/{key}"

    def rotate(self, key: str) -> None:
        self.keys[self.name(key)].append(os.urandom(32))

    def reference(self, key: str = "keep", *, signer: rsa.RSAPrivateKey | None = None) -> str:
        form = (
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        held = {
            "type": "service_account",
            "client_email": self.account,
            "private_key_id": "canary-id",
            "private_key": (signer or self._signer).private_bytes(*form).decode(),
            "token_uri": f"{self.address}/token",
        }
        where = self.secret("account.json", json.dumps(held, indent=1))
        more = f"credentials={where}&endpoint={self.address}&ca={self.ca}"
        return f"kms:gcp:{self.name(key)}?{more}"

    def answer(self, asked: Asked) -> Any:
        if not self._is_signed(asked):
            raise Refusal(401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}})
        key, _, verb = asked.path.removeprefix("/v1/").partition(":")
        versions, facts = self.keys.get(key), asked.json
        if versions is None:
            raise Refusal(404, {"error": {"code": 404, "status": "NOT_FOUND"}})
        label = "additionalAuthenticatedData"
        bound = self._field(facts, label)
        if verb == "encrypt":
            box = self.encrypted(versions, self._field(facts, "plaintext"), bound)
            return {
                "name": f"{key}/cryptoKeyVersions/{len(versions)}",
                **self._fields("ciphertext", box),
                "verifiedPlaintextCrc32c": True,
                "verifiedAdditionalAuthenticatedDataCrc32c": True,
            }
        return self._fields("plaintext", self._decrypted(versions, facts, bound))

    @staticmethod
    def _field(facts: Any, name: str) -> bytes:
        raw = unb64(facts[name])
        if int(facts[f"{name}Crc32c"]) != crc32c(raw):
            raise Refusal(400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}})
        return raw

    @staticmethod
    def _fields(name: str, raw: bytes) -> dict[str, str]:
        return {name: b64(raw), f"{name}Crc32c": str(crc32c(raw))}

    @staticmethod
    def encrypted(versions: list[bytes], plain: bytes, bound: bytes) -> bytes:
        nonce = os.urandom(12)
        sealed = AESGCM(versions[-1]).encrypt(nonce, plain, bound)
        return len(versions).to_bytes(2, "big") + nonce + sealed

    def _decrypted(self, versions: list[bytes], facts: Any, bound: bytes) -> bytes:
        raw = self._field(facts, "ciphertext")
        try:
            held = dict(enumerate(versions, 1))[int.from_bytes(raw[:2], "big")]
            return AESGCM(held).decrypt(raw[2:14], raw[14:], bound)
        except (InvalidTag, ValueError, KeyError):
            raise Refusal(400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}) from None

    def _is_signed(self, asked: Asked) -> bool:
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        signed, _, signature = token.rpartition(".")
        try:
            claims = json.loads(unb64url(signed.partition(".")[2]))
            self._signer.public_key().verify(
                unb64url(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, ValueError):
            return False
        return (
            scheme == "Bearer"
            and claims["iss"] == claims["sub"] == self.account
            and claims["aud"] == "https://cloudkms.googleapis.com/"
            and claims["iat"] - 60 <= time.time() < claims["exp"] <= claims["iat"] + 3600
        )


# ---- Azure Key Vault -------------------------------------------------------------------------


class AzureStandIn(StandIn):
    """`/keys/NAME/VERSION/wrapkey`, `unwrapkey`, `sign`, `verify`; a service principal signs in."""

    tenant = "00000000-0000-4000-8000-000000000001"
    client = "00000000-0000-4000-8000-000000000002"
    client_secret = "canary~secret-of-azure"  # noqa: S105 - as above
    access = "canary-access-token"

    def start(self) -> None:
        self.keys = {
            name: rsa.generate_private_key(public_exponent=65537, key_size=2048)
            for name in ("keep/" + "a" * 32, "other/" + "b" * 32)
        }
        self.may_read_keys = True

    def reference(self, key: str = "keep", *, secret: str = "") -> str:
        name = next((each for each in self.keys if each.startswith(key)), f"{key}/{'c' * 32}")
        where = self.secret("client-secret", secret or self.client_secret)
        more = f"tenant={self.tenant}&client={self.client}&secret={where}&authority={self.address}"
        return f"kms:azure:{self.address}/keys/{name}?{more}&ca={self.ca}"

    def answer(self, asked: Asked) -> Any:
        path = urlsplit(asked.path).path
        if path.startswith(f"/{self.tenant}/"):
            return self._signed_in(path, asked)
        if asked.headers.get("authorization") != f"Bearer {self.access}":
            # The client insists that its host lies below the resource: `127.` below `0.0.1`.
            challenge = (
                f'Bearer authorization="{self.address}/{self.tenant}", '
                f'resource="https://{HOST.partition(".")[2]}:{self.port}"'
            )
            raise Refusal(401, {"error": {"code": "Unauthorized"}}, WWW_Authenticate=challenge)
        found = re.fullmatch(r"/keys/([^/]+/[^/]+)(?:/(wrapkey|unwrapkey|sign|verify))?", path)
        key = self.keys.get(found[1]) if found else None
        if found is None or key is None:
            raise Refusal(404, {"error": {"code": "KeyNotFound", "message": "no such key"}})
        if found[2] is None:
            return self._public(found[1], key)
        wanted = "RSA-OAEP-256" if found[2].endswith("wrapkey") else "PS256"
        if asked.json["alg"] != wanted:
            raise Refusal(400, {"error": {"code": "BadParameter", "message": "algorithm"}})
        if found[2] == "verify":
            digest, signature = (unb64url(asked.json[name]) for name in ("digest", "value"))
            return {"value": self._is_signed(key, digest, signature)}
        work = {"wrapkey": self.wrapped, "unwrapkey": self._unwrapped, "sign": self.signature}
        value = work[found[2]](key, unb64url(asked.json["value"]))
        return {"kid": f"{self.address}/keys/{found[1]}", "value": b64url(value)}

    def _signed_in(self, path: str, asked: Asked) -> Any:
        base = f"{self.address}/{self.tenant}"
        if path.endswith("/.well-known/openid-configuration"):
            return {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if form.get("client_id") != self.client or form.get("client_secret") != self.client_secret:
            raise Refusal(401, {"error": "invalid_client", "error_description": "AADSTS7000215"})
        return {"token_type": "Bearer", "expires_in": 3599, "access_token": self.access}

    def _public(self, name: str, key: rsa.RSAPrivateKey) -> Any:
        if not self.may_read_keys:
            raise Refusal(403, {"error": {"code": "Forbidden", "message": "no get permission"}})
        numbers = key.public_key().public_numbers()
        jwk = {
            "kid": f"{self.address}/keys/{name}",
            "kty": "RSA",
            "key_ops": ["wrapKey", "unwrapKey", "sign", "verify"],
            "n": b64url(numbers.n.to_bytes(256, "big")),
            "e": b64url(numbers.e.to_bytes(3, "big")),
        }
        return {"key": jwk, "attributes": {"enabled": True}}

    @staticmethod
    def _oaep() -> padding.OAEP:
        return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)

    def wrapped(self, key: rsa.RSAPrivateKey, value: bytes) -> bytes:
        return key.public_key().encrypt(value, self._oaep())

    def _unwrapped(self, key: rsa.RSAPrivateKey, value: bytes) -> bytes:
        try:
            return key.decrypt(value, self._oaep())
        except ValueError:
            raise Refusal(400, {"error": {"code": "BadParameter", "message": "wrong"}}) from None

    @staticmethod
    def signature(key: rsa.RSAPrivateKey, digest: bytes) -> bytes:
        return key.sign(digest, _PSS, utils.Prehashed(hashes.SHA256()))

    @staticmethod
    def _is_signed(key: rsa.RSAPrivateKey, digest: bytes, signature: bytes) -> bool:
        try:
            key.public_key().verify(signature, digest, _PSS, utils.Prehashed(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True
