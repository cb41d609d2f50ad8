"""`mesh-proxy certs`."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from mesh_proxy.cli.main import main
from mesh_proxy.tls.certificate import certificates_in


def test_an_authority_and_workloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "certs"
    assert main(["certs", "web", "shop=ns/a/sa/shop", "-d", str(folder), "--dns", "localhost", "--days", "2"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["root.pem", "shop.key", "shop.pem", "web.key", "web.pem"]
    (shop,) = certificates_in((folder / "shop.pem").read_bytes())
    assert shop.uri_san == ("spiffe://mesh.local/ns/a/sa/shop",)
    assert shop.dns_san == ("localhost",)
    assert stat.S_IMODE((folder / "web.key").stat().st_mode) & 0o077 == 0
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))
    context.load_cert_chain(folder / "web.pem", folder / "web.key")
    assert "spiffe://mesh.local/web" in capsys.readouterr().out


def test_a_place_for_the_revocation_list(tmp_path: Path) -> None:
    url = "http://127.0.0.1:8080/root.crl"
    assert main(["certs", "web", "-d", str(tmp_path), "--crl-url", url]) == 0
    made = x509.load_pem_x509_certificate((tmp_path / "web.pem").read_bytes())
    (point,) = made.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier(url)]
    root = x509.load_pem_x509_certificate((tmp_path / "root.pem").read_bytes())
    for found in (
        x509.load_der_x509_crl((tmp_path / "root.crl").read_bytes()),
        x509.load_pem_x509_crl((tmp_path / "root.crl.pem").read_bytes()),
    ):
        assert found.is_signature_valid(root.public_key())  # type: ignore[arg-type]
        assert list(found) == []
    context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
    context.load_verify_locations(tmp_path / "root.crl.pem")
    assert context.cert_store_stats()["crl"] == 1


def test_without_one(tmp_path: Path) -> None:
    assert main(["certs", "web", "-d", str(tmp_path)]) == 0
    made = x509.load_pem_x509_certificate((tmp_path / "web.pem").read_bytes())
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.CRLDistributionPoints)


def test_a_name_that_is_a_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "../x", "-d", str(tmp_path)]) == 1
    assert "no name" in capsys.readouterr().err


def test_a_directory_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["certs", "web", "-d", str(tmp_path / "file" / "x")]) == 1
    assert "file" in capsys.readouterr().err
