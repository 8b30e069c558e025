"""Signed pictures: who says that this file is theirs, and whether it was changed since.

A manifest after the open standard C2PA is written into a PNG file and signed; whoever changes the
file afterwards breaks the seal, and whoever saves the picture anew leaves the manifest behind. The
certificates are made here, for learning: real ones come from an authority that checks who asks.

Chapter: book/detect/living.md
"""

from __future__ import annotations

import datetime
import importlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from course_lib.detection.processing import check_images

if TYPE_CHECKING:
    from types import ModuleType

_FORMAT = "image/png"
#: What a picture may be said to come from: the words of the IPTC's list of digital source types.
SOURCES = {
    "camera": "digitalCapture",
    "generated": "trainedAlgorithmicMedia",
    "composite": "compositeWithTrainedAlgorithmicMedia",
}
_UNTRUSTED = "signingCredential.untrusted"
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
#: What may have been done to a picture that was signed before: the standard's names of actions.
EDITS = ("cropped", "resized", "color_adjustments", "filtered", "redacted", "edited")


@dataclass(frozen=True)
class Authority:
    """Who vouches for others' names: a name, a certificate (PEM) and the private key behind it."""

    name: str
    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Signer:
    """Who signs: a name, the chain of certificates up to an authority (PEM), and the private key."""

    name: str
    chain: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Verdict:
    """What a file says about itself, and whether that holds.

    ``state``: "absent" (no manifest, which proves nothing), "invalid" (changed since it was signed, or
    never signed in order), "valid" (unchanged, by a signer whom none of the trusted authorities knows)
    or "trusted" (unchanged, and one of them vouches for the name). ``signer``: the name, None if there
    is none. ``history``: what each manifest declares, the oldest first, "NAME: ACTION", with a line where
    a signer worked from a file whose seal was broken. ``problems``: the standard's names of what is
    wrong with this file. Nothing in it says that what the picture shows is true.
    """

    state: Literal["absent", "invalid", "valid", "trusted"]
    signer: str | None = None
    history: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def authority(name: str) -> Authority:
    """Make a certificate authority of one's own, good for a year.

    Raises ``ValueError`` for an empty name, ``ImportError`` without the extra "provenance".
    """
    certificate, key = _certificate(name, issuer=None)
    return Authority(name, certificate, key)


def certify(by: Authority, name: str) -> Signer:
    """Let an authority vouch that whoever holds the new key is ``name``.

    Raises ``ValueError`` for an empty name, ``ImportError`` without the extra "provenance".
    """
    certificate, key = _certificate(name, issuer=by)
    return Signer(name, certificate + by.certificate, key)


def sign(
    image: Tensor,
    by: Signer,
    *,
    source: str = "camera",
    edit: str | None = None,
    parent: bytes | None = None,
) -> bytes:
    """Write ``image`` (C, H, W) in [0, 1] into a PNG file whose manifest ``by`` signs.

    ``source``: what the signer declares the picture to be, one of ``SOURCES``; or, for a picture made
    from the signed file ``parent``, ``edit``: what was done to it, one of ``EDITS``; the parent's
    manifest is kept in the new one. No time server is asked, so that the file carries no proof of when.

    Raises ``ValueError`` for another shape or range, an unknown source or edit, and an edit without a
    parent or a parent without an edit; ``ImportError`` without the extra "provenance".
    Source: C2PA, "Content Credentials: C2PA Technical Specification", version 2.
    """
    if image.ndim != 3:
        raise ValueError(f"image: expected shape (C, H, W), got {tuple(image.shape)}")
    check_images(image.unsqueeze(0), "image")
    if source not in SOURCES:
        raise ValueError(f"source: expected one of {', '.join(SOURCES)}; got {source!r}")
    if edit is not None and edit not in EDITS:
        raise ValueError(f"edit: expected one of {', '.join(EDITS)}; got {edit!r}")
    if (edit is None) != (parent is None):
        raise ValueError("edit, parent: expected both or neither")
    c2pa = _c2pa()
    if edit is None:
        actions: list[dict[str, Any]] = [
            {"action": "c2pa.created", "digitalSourceType": _IPTC + SOURCES[source]}
        ]
    else:
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
        actions = [opened, {"action": f"c2pa.{edit}"}]
    manifest = {
        "claim_generator_info": [{"name": "course_lib"}],
        "format": _FORMAT,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
    settings = {"builder": {"thumbnail": {"enabled": False}}}
    with (
        c2pa.Context.from_dict(settings) as context,
        c2pa.Builder(json.dumps(manifest), context=context) as builder,
        c2pa.Signer.from_info(
            c2pa.C2paSignerInfo(b"es256", by.chain.encode(), by.key.encode(), None)
        ) as signer,
    ):
        if parent is not None:
            relation = {"relationship": "parentOf", "instance_id": "parent", "label": "parent"}
            builder.add_ingredient(json.dumps(relation), _FORMAT, io.BytesIO(parent))
        file = io.BytesIO()
        builder.sign(signer, _FORMAT, io.BytesIO(png(image)), file)
    return file.getvalue()


def verify(file: bytes, *, trusted: Sequence[Authority] = ()) -> Verdict:
    """Read a PNG file's manifest and check it; ``trusted``: the authorities whose word is taken.

    Raises ``ValueError`` for an empty file, ``ImportError`` without the extra "provenance".
    """
    if not file:
        raise ValueError("file: expected the bytes of a PNG file, got none")
    c2pa = _c2pa()
    anchors = "".join(authority.certificate for authority in trusted)
    settings: dict[str, Any] = {"verify": {"verify_trust": True}}
    if anchors:
        settings["trust"] = {"trust_anchors": anchors}
    with c2pa.Context.from_dict(settings) as context:
        try:
            reader = c2pa.Reader(_FORMAT, io.BytesIO(file), context=context)
        except c2pa.C2paError.ManifestNotFound:
            return Verdict("absent")
        except c2pa.C2paError as error:  # a manifest so broken that it cannot be read
            return Verdict("invalid", problems=(str(error),))
        with reader:
            found = json.loads(reader.json())
            state = str(reader.get_validation_state()).lower()
    active = found["manifests"][found["active_manifest"]]
    problems = {
        problem["code"]
        for problem in found.get("validation_results", {})
        .get("activeManifest", {})
        .get("failure", [])
    }
    assert state in ("invalid", "valid", "trusted")
    return Verdict(
        state,  # type: ignore[arg-type]
        _name(active),
        tuple(_history(found["manifests"], active)),
        tuple(sorted(problems)),
    )


def png(image: Tensor) -> bytes:
    """Write ``image`` (C, H, W) in [0, 1] into a PNG file without a manifest."""
    check_images(image.unsqueeze(0), "image")
    levels = (image.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(file, format="PNG")
    return file.getvalue()


def pixels(file: bytes) -> Tensor:
    """Open an image file and return its picture (3, H, W) in [0, 1], without anything else in it."""
    levels = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    return torch.from_numpy(levels.copy()).permute(2, 0, 1).float() / 255


def _history(manifests: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for ingredient in manifest.get("ingredients", []):
        if ingredient.get("active_manifest") in manifests:
            lines += _history(manifests, manifests[ingredient["active_manifest"]])
        found = ingredient.get("validation_results", {}).get("activeManifest", {})
        if {problem["code"] for problem in found.get("failure", [])} - {_UNTRUSTED}:
            lines.append(f"{_name(manifest)}: opened a broken file")
    for assertion in manifest.get("assertions", []):
        if assertion["label"].startswith("c2pa.actions"):
            for action in assertion["data"]["actions"]:
                source = action.get("digitalSourceType", "").removeprefix(_IPTC)
                words = action["action"].removeprefix("c2pa.") + (f" ({source})" if source else "")
                if words != "opened":
                    lines.append(f"{_name(manifest)}: {words}")
    return lines


def _name(manifest: dict[str, Any]) -> str | None:
    name = manifest.get("signature_info", {}).get("common_name")
    return None if name is None else str(name)


def _certificate(name: str, issuer: Authority | None) -> tuple[str, str]:
    if not name.strip():
        raise ValueError(f"name: expected some letters, got {name!r}")
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise ImportError(_MISSING) from error
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
        ]
    )
    signing_key: ec.EllipticCurvePrivateKey = key
    issued_by = subject
    if issuer is not None:
        loaded = serialization.load_pem_private_key(issuer.key.encode(), password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing_key = loaded
        issued_by = x509.load_pem_x509_certificate(issuer.certificate.encode()).subject
    now = datetime.datetime.now(datetime.UTC)
    is_authority = issuer is None
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issued_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
    )
    if not is_authority:  # the standard asks signers for a declared purpose, and allows this one
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    certificate = builder.sign(signing_key, hashes.SHA256())
    return (
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


_MISSING = (
    "signing and verifying need the packages c2pa-python and cryptography: "
    'pip install "course-lib[provenance]"'
)


def _c2pa() -> ModuleType:
    try:
        return importlib.import_module("c2pa")  # it declares no types
    except ImportError as error:
        raise ImportError(_MISSING) from error
