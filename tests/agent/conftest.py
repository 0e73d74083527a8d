"""One VM for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from firkin.oci import Image, ImageStore
from tests.agent.guest import Guest, booted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(store: ImageStore, busybox_image: Image) -> AsyncIterator[Guest]:
    async with booted(store, busybox_image) as guest:
        yield guest
