"""What a guest may reach: the shield by default, what the user allows and denies, as one frozen value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.network.shield import Block, block_of, embedded, parse_block

__all__ = ["Place", "Policy", "Rule", "normal_name"]

Protocol = Literal["tcp", "udp", "icmp"]
Place = Literal["", "host", "neighbour", "broadcast", "unreachable"]
"""What the host's routes say of an address: its own, on another link than the default route's, no place at all."""

_RULE = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+(?:/\d{1,3})?)\]|(?P<four>all|\d[\d.]*(?:/\d{1,2})?))"
    r"(?::(?P<low>\d{1,5})(?:-(?P<high>\d{1,5}))?(?:/(?P<protocol>tcp|udp))?)?"
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MOST_RULES = 1024
_EVERYTHING: Final = (parse_block("0.0.0.0/0"), parse_block("::/0"))
_MAX_POLICY = 1 << 20
# A socket of the host takes the unspecified address for its loopback.
_NEVER: Final = ("multicast", "unspecified")


class Rule(NamedTuple):
    """A range of addresses and of ports; `protocol` None is every one. ICMP has no ports: only a rule without any
    takes it in."""

    block: Block
    low: int = 0
    high: int = 0xFFFF
    protocol: str | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[Rule, ...]:
        """Read `CIDR[:PORT[-PORT][/tcp|udp]]`, an IPv6 one before a port in brackets, or `all` for both versions.

        Raises `InvalidInputError`.
        """
        match = _RULE.fullmatch(text if text.count(":") < 2 or text.startswith("[") else f"[{text}]")
        if match is None:
            raise InvalidInputError(f"{text!r} is not a network", value=text, hint="write CIDR[:PORT[/tcp|udp]]")
        cidr, low = match["six"] or match["four"], match["low"]
        first = int(low) if low else 0
        last = int(match["high"] or low) if low else 0xFFFF
        if last > 0xFFFF or first > last or (low and not first):
            raise InvalidInputError(f"{text!r} has no range of ports", value=text, hint="1 to 65535")
        try:
            blocks = _EVERYTHING if cidr == "all" else (parse_block(cidr),)
        except ValueError as error:
            raise InvalidInputError(f"{text!r} is not a network: {error}", value=text, hint="as 10.1.0.0/16") from error
        return tuple(cls(block, first, last, match["protocol"]) for block in blocks)

    def holds(self, address: bytes, port: int, protocol: Protocol) -> bool:
        """Whether the rule is about this address (4 or 16 bytes), port and protocol."""
        if self.protocol is not None and self.protocol != protocol:
            return False
        return self.low <= port <= self.high and self.block.holds(address)

    def __str__(self) -> str:
        if not self.low:
            return str(self.block)
        ports = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        base = f"[{self.block}]" if self.block.bits == 128 else str(self.block)
        return f"{base}:{ports}" + (f"/{self.protocol}" if self.protocol else "")


@dataclass(frozen=True, slots=True)
class Policy:
    """The public Internet, unless `allow` or `domains` name what alone may be reached; `deny` wins over both.

    A shielded range is open only to a rule that lies within it, an address of the host's own only to a rule for just
    that address, a neighbouring link's to any rule but the whole Internet's. `domains` are names, or `*.` and a name
    for all below it, or `*`; each opens public addresses only, those of its answers for as long as they say.
    """

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    domains: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, *, allow_net: Iterable[str] = (), deny_net: Iterable[str] = (), allow_domain: Iterable[str] = ()
    ) -> Self:
        """The policy of the texts of `--allow-net`, `--deny-net` and `--allow-domain`. Raises `InvalidInputError`."""
        allow = tuple(rule for text in _texts(allow_net) for rule in Rule.parse(text))
        deny = tuple(rule for text in _texts(deny_net) for rule in Rule.parse(text))
        domains = tuple(dict.fromkeys(_pattern(text) for text in _texts(allow_domain)))
        if len(allow) + len(deny) + len(domains) > _MOST_RULES:
            raise InvalidInputError(f"a policy has at most {_MOST_RULES} rules", value=len(allow) + len(deny))
        return cls(allow, deny, domains)

    @property
    def listed(self) -> bool:
        """Whether only what is named may be reached."""
        return bool(self.allow or self.domains)

    def refusal(
        self, address: bytes, port: int, protocol: Protocol, place: Place = "", *, pinned: bool = False
    ) -> str | None:
        """Why `address` may not be reached, in one word, or None. `pinned`: a name that is allowed has it now."""
        if place in ("broadcast", "unreachable"):
            return place
        inner = embedded(address)
        if any(rule.holds(each, port, protocol) for rule in self.deny for each in (address, inner) if each):
            return "denied"
        if inner is not None and (why := self._refusal(inner, port, protocol, "", pinned)):
            return why
        return self._refusal(address, port, protocol, place, pinned)

    def _refusal(self, address: bytes, port: int, protocol: Protocol, place: Place, pinned: bool) -> str | None:
        fitting = [rule.block for rule in self.allow if rule.holds(address, port, protocol)]
        if place == "host":
            return None if any(block.single for block in fitting) else "host"
        if shielded := block_of(address):
            block, kind = shielded
            return None if kind not in _NEVER and any(rule.within(block) for rule in fitting) else kind
        if place == "neighbour":
            return None if any(block.prefix for block in fitting) else "neighbour"
        return None if fitting or pinned or not self.listed else "unlisted"

    @property
    def closed(self) -> bool:
        """Whether nothing may be reached at all."""
        whole = {rule.block for rule in self.deny if not rule.low and rule.protocol is None}
        return whole.issuperset(_EVERYTHING)

    def allows_name(self, name: str) -> bool:
        """Whether `name` (see `normal_name`) may be asked for."""
        if self.closed:
            return False
        if not self.listed:
            return True
        labels = name.split(".")
        candidates = {name, "*", *("*." + ".".join(labels[start:]) for start in range(1, len(labels)))}
        return any(domain in candidates for domain in self.domains)

    def as_document(self) -> dict[str, list[str]]:
        """As `firkin inspect` shows it, and the reverse of `of`."""
        return {
            "allow_net": [str(rule) for rule in self.allow],
            "deny_net": [str(rule) for rule in self.deny],
            "allow_domain": list(self.domains),
        }

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of `as_document`, checked as `of` does. Raises `InvalidInputError`."""
        try:
            given: dict[str, Any] = json.loads(text) if len(text) <= _MAX_POLICY else {"too": "long"}
            return cls.of(**{name: [str(each) for each in texts] for name, texts in given.items()})
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError("malformed policy", value=text[:100]) from error


def normal_name(name: str) -> str:
    """A domain name as it is compared: small ASCII letters, no last dot."""
    return name.lower().removesuffix(".")


def _pattern(text: str) -> str:
    name = normal_name(text.strip())
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise InvalidInputError(f"{text!r} is not a domain name", value=text) from error
    labels = name.removeprefix("*.").split(".")
    if name != "*" and (len(name) > 253 or not all(map(_LABEL.fullmatch, labels))):
        raise InvalidInputError(f"{text!r} is not a domain name", value=text, hint="as example.com or *.example.com")
    return name


def _texts(given: Iterable[str]) -> Iterable[str]:
    return (given,) if isinstance(given, str) else given
