"""Whom to trust, and as whom to come: Docker's `certs.d`."""

from __future__ import annotations

import ssl
from pathlib import Path

from firkin.errors import RegistryError

__all__ = ["context"]


def context(folder: Path | None) -> ssl.SSLContext:
    """The system's authorities, and those of `folder` (`*.crt`) with its client certificates (`*.cert`, `*.key`).

    Raises `RegistryError` for files that are none.
    """
    made = ssl.create_default_context()
    if folder is None:
        return made
    try:
        for authority in sorted(folder.glob("*.crt")):
            made.load_verify_locations(authority)
        for certificate in sorted(folder.glob("*.cert")):
            made.load_cert_chain(certificate, certificate.with_suffix(".key"))
    except (OSError, ssl.SSLError) as error:
        raise RegistryError(f"the certificates in {folder} can't be used: {error}") from error
    return made
