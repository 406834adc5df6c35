"""Loads a model that a peer encrypted, once for each line on stdin; says what it took.

`load.py make NAME PLAIN ENCRYPTED` encrypts a safetensors file; `load.py load NAME ENCRYPTED` then
answers each line with one of JSON: seconds, how much the peak of resident memory rose, and a
SHA-256 over the tensors by name (outside of the time).
"""

import base64
import hashlib
import json
import sys
import time
from pathlib import Path

import cryptotensors
import cryptotensors.torch
import tensorizer
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import load_file

KEY = hashlib.sha256(b"a key for a benchmark").digest()


def main() -> None:
    """Encrypt, or load again and again."""
    verb, name, *paths = sys.argv[1:]
    if verb == "make":
        MAKERS[name](*paths)
        return
    if name == "cryptotensors":
        cryptotensors.register_direct_key_provider(keys=list(jwks()))
    torch.zeros(1).sum()  # starts what torch starts once
    print("ready", flush=True)
    for _ in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_bytes()
        started = time.perf_counter()
        tensors = LOADERS[name](*paths)
        seconds = time.perf_counter() - started
        rose = peak_bytes() - before
        said = {"seconds": seconds, "rose": rose, "digest": digest(tensors)}
        del tensors
        print(json.dumps(said), flush=True)


def jwks() -> tuple[dict[str, str], dict[str, str]]:
    """The keys that encrypt and sign, as CryptoTensors takes them."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(KEY).digest())
    own = {"kty": "okp", "crv": "Ed25519", "kid": "sign", "alg": "ed25519", "use": "sig"}
    own["x"] = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    own["d"] = base64.b64encode(private.private_bytes_raw()).decode()
    key = base64.b64encode(KEY).decode()
    return {"kty": "oct", "kid": "enc", "alg": "aes256gcm", "use": "enc", "k": key}, own


def make_cryptotensors(plain: str, encrypted: str) -> None:
    """Encrypt, and sign."""
    enc, sign = jwks()
    config = {"enc_key": enc, "sign_key": sign}
    cryptotensors.torch.save_file(load_file(plain), encrypted, config=config)


def load_cryptotensors(encrypted: str) -> dict[str, torch.Tensor]:
    """All tensors."""
    return cryptotensors.torch.load_file(encrypted)


def make_tensorizer(plain: str, encrypted: str) -> None:
    """Encrypt."""
    encryption = tensorizer.EncryptionParams(key=KEY)
    writer = tensorizer.TensorSerializer(encrypted, encryption=encryption)
    writer.write_state_dict(load_file(plain))
    writer.close()


def load_tensorizer(encrypted: str) -> dict[str, torch.Tensor]:
    """All tensors, by two readers."""
    encryption = tensorizer.DecryptionParams.from_key(KEY)
    with tensorizer.TensorDeserializer(
        encrypted, device="cpu", encryption=encryption, num_readers=2
    ) as found:
        return {name: found[name] for name in found}


def peak_bytes() -> int:
    """VmHWM: the highest resident memory since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of names and bytes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        flat = tensors[name].detach().contiguous().view(torch.uint8).reshape(-1)
        found.update(name.encode())
        found.update(flat.numpy().data)
    return found.hexdigest()


MAKERS = {"cryptotensors": make_cryptotensors, "tensorizer": make_tensorizer}
LOADERS = {"cryptotensors": load_cryptotensors, "tensorizer": load_tensorizer}

if __name__ == "__main__":
    main()
