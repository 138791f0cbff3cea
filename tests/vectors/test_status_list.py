"""The status lists that draft-ietf-oauth-status-list §4 prints: packed, compressed and read as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remit import jose
from tests.support import status_reader

PUBLISHED = json.loads((Path(__file__).parent / "published" / "published.json").read_text("utf-8"))["status_list"]
CASES: list[dict[str, Any]] = PUBLISHED["cases"]
# §4.1, figure 1: the statuses of the one-bit example, which the file has in bytes alone
ONE_BIT = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['bits']}-bit")
def test_a_printed_list_is_packed_and_read_as_printed(case: dict[str, Any]) -> None:
    statuses = case.get("statuses", ONE_BIT)
    packed = status_reader.pack(statuses, case["bits"])
    assert packed.hex() == case["statuses_bytes_hex"]
    assert [status_reader.status(packed, case["bits"], index) for index in range(len(statuses))] == statuses


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['bits']}-bit")
def test_a_printed_list_is_decompressed_and_compressed_as_printed(case: dict[str, Any]) -> None:
    lst = jose.encode(bytes.fromhex(case["zlib_hex"]))
    assert status_reader.decompress(lst).hex() == case["statuses_bytes_hex"]
    assert status_reader.compress(bytes.fromhex(case["statuses_bytes_hex"])) == lst
