"""The guest link: framing, RPC and the agent's client."""
