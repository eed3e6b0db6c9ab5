"""Certificates of one test run, which the programs of a control plane show one another. Made by openssl."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.programs import run
from servers.kafka_jars import ServerUnavailable

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = """\
[req]
distinguished_name = subject
prompt = no
[subject]
CN = {name}
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[member]
subjectAltName = DNS:localhost,IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
extendedKeyUsage = serverAuth,clientAuth
"""
_NEW = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two files."""

    certificate: Path
    key: Path


def new_authority(folder: Path, name: str) -> Certificate:
    """One that signs others. Raises ServerUnavailable without openssl."""
    if shutil.which("openssl") is None:
        raise ServerUnavailable("no openssl on the PATH (Debian: openssl)")
    return _new(folder, name, "authority")


def new_member(folder: Path, name: str, authority: Certificate) -> Certificate:
    """One for a server on the loopback interface, and for a client called `name`."""
    return _new(folder, name, "member", "-CA", str(authority.certificate), "-CAkey", str(authority.key))


def _new(folder: Path, name: str, kind: str, *signed: str) -> Certificate:
    settings = folder / f"{name}.conf"
    settings.write_text(_SETTINGS.format(name=name))
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    files = ["-config", str(settings), "-extensions", kind, "-keyout", str(made.key), "-out", str(made.certificate)]
    run([*_NEW, *files, *signed])
    return made
