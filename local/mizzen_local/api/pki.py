"""The cluster's own certificate authority, the server's certificate, and the key that signs ServiceAccount tokens."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS = 10
_RENEW_BEFORE = timedelta(days=30)
_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True)
class Pki:
    """Where the files are; all of them are readable by their owner only."""

    ca: Path
    certificate: Path
    key: Path
    signing_key: ec.EllipticCurvePrivateKey

    @property
    def ca_pem(self) -> str:
        return self.ca.read_text()


def ensure(directory: Path, addresses: list[str]) -> Pki:
    """Load what the directory has and make what it lacks; the server's certificate is renewed when it must be."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key, ca = _authority(directory)
    certificate, key = directory / "server.crt", directory / "server.key"
    if not _serves(certificate, addresses):
        _issue(certificate, key, ca, ca_key, addresses)
    return Pki(directory / "ca.crt", certificate, key, _key(directory / "sa.key"))


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        found = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(found, ec.EllipticCurvePrivateKey)
        return found
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, _pem(key))
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _authority(directory: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key, path = _key(directory / "ca.key"), directory / "ca.crt"
    if path.exists():
        return key, x509.load_pem_x509_certificate(path.read_bytes())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mizzen-local-ca")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(path, certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
    )


def _serves(path: Path, addresses: list[str]) -> bool:
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    have = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return set(addresses) <= have and certificate.not_valid_after_utc > datetime.now(UTC) + _RENEW_BEFORE


def _issue(
    path: Path, key_path: Path, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, addresses: list[str]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in _NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _builder(subject, ca.subject, key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(key_path, _pem(key))
    write_private(path, certificate.public_bytes(serialization.Encoding.PEM))
