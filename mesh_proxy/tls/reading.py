"""New versions of secrets from their files, looked at before anybody uses them.

`python -m mesh_proxy.tls.reading PATH DIRECTORY NAME` is a process for the secrets whose file holds a DiscoveryResponse: it
writes the secret as a pickle, or what is wrong with it. So the supervisor needs neither YAML nor protobuf.
"""

from __future__ import annotations

import os
import pickle
import ssl
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh_proxy.config.model.tls import SecretConfig, SecretSourceConfig
from mesh_proxy.tls.certificate import certificates_in
from mesh_proxy.tls.context import load_pair, load_trust

Signature = tuple[tuple[int, int, int] | None, ...]


def signature(source: SecretSourceConfig) -> Signature:
    """Of all files of a secret; another one means that one of them may be new. None for a file that is not there."""
    paths = [source.sds_path] if source.sds_path else []
    return tuple(_stat(path) for path in (*paths, *(path for _, path in source.files)))


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def read_files(secret: SecretConfig) -> SecretConfig:
    """The secret with what is in its files now. Raises ValueError."""
    assert secret.source is not None
    changed: dict[str, Any] = {}
    for field, path in secret.source.files:
        try:
            changed[field] = Path(path).read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if secret.certificate is not None:
        return replace(secret, certificate=replace(secret.certificate, **changed))
    assert secret.validation is not None
    return replace(secret, validation=replace(secret.validation, **changed))


def check_secret(secret: SecretConfig, now: float | None = None) -> None:
    """Raises ValueError for what new handshakes could not use: half a file, another's key, what has expired or is empty."""
    now = time.time() if now is None else now
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if secret.certificate is not None:
        chain = certificates_in(secret.certificate.chain)
        if not chain:
            raise ValueError("the certificate chain holds no certificate in PEM")
        if chain[0].not_after < now:
            raise ValueError("the certificate has expired")
        if chain[0].not_before > now:
            raise ValueError("the certificate is not valid yet")
        load_pair(context, secret.certificate)
    if secret.validation is not None:
        validation = secret.validation
        for bundle in (validation.trusted_ca, *(bundle for _, bundle in validation.trust_domains)):
            if bundle and not certificates_in(bundle):
                raise ValueError("the trust bundle holds no certificate in PEM")
            if bundle.count(b"-----BEGIN ") != bundle.count(b"-----END "):
                raise ValueError("the trust bundle breaks off")
        if (
            secret.source is not None
            and any(field == "trusted_ca" for field, _ in secret.source.files)
            and not validation.trusted_ca
        ):
            raise ValueError("the trust bundle is empty")
        load_trust(context, validation)


def main(arguments: list[str]) -> int:
    """Read one secret from a file of SDS; 0 whatever the outcome, which is on standard output."""
    from mesh_proxy.config.errors import ConfigError
    from mesh_proxy.config.translate.secrets import read_sds_file

    path, directory, name = arguments
    outcome: SecretConfig | str
    try:
        outcome = read_sds_file(path, directory, name)
    except (ConfigError, ValueError) as error:
        outcome = str(error)
    sys.stdout.buffer.write(pickle.dumps(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
