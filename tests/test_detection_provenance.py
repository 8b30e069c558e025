"""Signed pictures: what a seal proves, what breaks it, and what it cannot say."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch
from PIL import Image
from torch import Tensor

from course_lib.detection import provenance


@pytest.fixture(scope="module")
def root() -> provenance.Authority:
    return provenance.authority("Press Council")


@pytest.fixture(scope="module")
def news(root: provenance.Authority) -> provenance.Signer:
    return provenance.certify(root, "Evening News")


def picture(channels: int = 3, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (channels, 24, 20), generator=g).float() / 255


def flip(file: bytes, at: int) -> bytes:
    changed = bytearray(file)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_signed_picture_is_the_picture_and_names_its_signer(
    channels: int, root: provenance.Authority, news: provenance.Signer
) -> None:
    x = picture(channels)
    file = provenance.sign(x, news)
    assert torch.equal(provenance.pixels(file), x.expand(3, -1, -1))
    verdict = provenance.verify(file, trusted=[root])
    assert verdict.state == "trusted" and verdict.signer == "Evening News"
    assert verdict.history == ("Evening News: created (digitalCapture)",)
    assert verdict.problems == ()


def test_unknown_authorities_vouch_for_nobody(
    root: provenance.Authority, news: provenance.Signer
) -> None:
    file = provenance.sign(picture(), news)
    # Whoever likes can make an authority of the same name; the key is another.
    for trusted in ([], [provenance.authority("Press Council")]):
        verdict = provenance.verify(file, trusted=trusted)
        assert verdict.state == "valid"
        assert verdict.problems == ("signingCredential.untrusted",)
    assert provenance.verify(file, trusted=[provenance.authority("A"), root]).state == "trusted"


def test_an_impostor_may_write_any_name_but_is_not_trusted(root: provenance.Authority) -> None:
    impostor = provenance.certify(provenance.authority("Press Council"), "Evening News")
    verdict = provenance.verify(provenance.sign(picture(), impostor), trusted=[root])
    assert verdict.signer == "Evening News" and verdict.state == "valid"


def test_one_bit_anywhere_in_the_picture_breaks_the_seal(
    root: provenance.Authority, news: provenance.Signer
) -> None:
    file = provenance.sign(picture(), news)
    data = file.index(b"IDAT") + 4
    for at in range(data, len(file) - 20, 97):
        verdict = provenance.verify(flip(file, at), trusted=[root])
        assert verdict.state == "invalid"
        assert "assertion.dataHash.mismatch" in verdict.problems


def test_rewriting_the_name_breaks_the_signature(
    root: provenance.Authority, news: provenance.Signer
) -> None:
    file = provenance.sign(picture(), news)
    at = file.index(b"Evening News")
    verdict = provenance.verify(flip(file, at), trusted=[root])
    assert verdict.state == "invalid" and "claimSignature.mismatch" in verdict.problems


def test_saving_anew_leaves_no_manifest_and_so_no_verdict(news: provenance.Signer) -> None:
    file = provenance.sign(picture(), news)
    again = io.BytesIO()
    Image.open(io.BytesIO(file)).save(again, format="PNG")
    assert provenance.verify(again.getvalue()) == provenance.Verdict("absent")
    assert provenance.verify(provenance.png(picture())) == provenance.Verdict("absent")


def test_an_edit_keeps_the_history(root: provenance.Authority, news: provenance.Signer) -> None:
    paper = provenance.certify(root, "Morning Post")
    first = provenance.sign(picture(), news, source="generated")
    second = provenance.sign(picture()[:, :12], paper, edit="cropped", parent=first)
    verdict = provenance.verify(second, trusted=[root])
    assert verdict.state == "trusted" and verdict.signer == "Morning Post"
    assert verdict.history == (
        "Evening News: created (trainedAlgorithmicMedia)",
        "Morning Post: cropped",
    )


def test_an_edit_of_a_broken_file_is_said_in_the_history(
    root: provenance.Authority, news: provenance.Signer
) -> None:
    broken = flip(provenance.sign(picture(), news), -100)
    verdict = provenance.verify(
        provenance.sign(picture(), news, edit="resized", parent=broken), trusted=[root]
    )
    assert "Evening News: opened a broken file" in verdict.history


def test_an_edit_of_an_unsigned_file_claims_no_origin(
    root: provenance.Authority, news: provenance.Signer
) -> None:
    file = provenance.sign(picture(), news, edit="edited", parent=provenance.png(picture()))
    assert provenance.verify(file, trusted=[root]).history == ("Evening News: edited",)


def test_a_stolen_key_signs_as_well_as_its_owner(
    root: provenance.Authority, news: provenance.Signer
) -> None:
    thief = provenance.Signer(news.name, news.chain, news.key)
    assert provenance.verify(provenance.sign(picture(seed=9), thief), trusted=[root]).state == (
        "trusted"
    )


def test_private_keys_are_not_printed(root: provenance.Authority, news: provenance.Signer) -> None:
    assert "PRIVATE KEY" not in repr(root) + repr(news)
    assert "PRIVATE KEY" not in root.certificate + news.chain


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"image": torch.rand(1, 3, 8, 8)}, "image"),
        ({"image": torch.rand(2, 8, 8)}, "image"),
        ({"image": torch.full((3, 8, 8), 1.5)}, "image"),
        ({"image": torch.full((3, 8, 8), torch.nan)}, "image"),
        ({"source": "heaven"}, "source"),
        ({"edit": "forged", "parent": b"x"}, "edit"),
        ({"edit": "cropped"}, "edit, parent"),
        ({"parent": b"x"}, "edit, parent"),
    ],
)
def test_sign_refuses(settings: dict[str, object], argument: str, news: provenance.Signer) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        provenance.sign(**{"image": picture(), "by": news} | settings)  # type: ignore[arg-type]


def test_empty_names_and_files_are_refused(root: provenance.Authority) -> None:
    with pytest.raises(ValueError, match="name: expected"):
        provenance.authority(" ")
    with pytest.raises(ValueError, match="name: expected"):
        provenance.certify(root, "")
    with pytest.raises(ValueError, match="file: expected"):
        provenance.verify(b"")


def test_a_report_that_lists_no_failures_has_no_problems(
    root: provenance.Authority, news: provenance.Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = provenance._c2pa().Reader
    full = reader.json

    def shortened(self: object) -> str:
        found = json.loads(full(self))
        del found["validation_results"]["activeManifest"]["failure"]
        return json.dumps(found)

    monkeypatch.setattr(reader, "json", shortened)
    verdict = provenance.verify(provenance.sign(picture(), news), trusted=[root])
    assert verdict.state == "trusted" and verdict.problems == ()


@pytest.mark.parametrize("package", ["c2pa", "cryptography"])
def test_without_its_packages_it_names_the_extra(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    call = provenance.authority if package == "cryptography" else provenance.verify
    with pytest.raises(ImportError, match=r"course-lib\[provenance\]"):
        call("a" if package == "cryptography" else b"a")  # type: ignore[operator]
