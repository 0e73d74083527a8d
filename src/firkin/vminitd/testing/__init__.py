"""A guest agent for tests, in this process: the real framing in the guest's role, with handlers that a test gives."""

from firkin.vminitd.testing.fake_agent import FakeAgent, linked

__all__ = ["FakeAgent", "linked"]
