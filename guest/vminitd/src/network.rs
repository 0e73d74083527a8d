//! Interfaces, addresses and routes.

use std::net::IpAddr;

use rustix::io::Errno;

use crate::failure::{Context, Failure, Result};
use crate::messages::{AddAddress, AddRoute, NetworkIdentity, SetLink};
pub use crate::netlink::Netlink;
use crate::netlink::{Message, NLM_F_CREATE, NLM_F_REPLACE};
use crate::sys;

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

fn index_of(netlink: &Netlink, name: &str) -> Result<u32> {
    netlink.index_of(name).map_err(|_| Failure::new("link", Errno::NODEV, format!("no interface {name:?}")))
}

/// `struct ifinfomsg`.
fn link_body(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// Brings an interface up or down, and changes its MTU (0: not) and hardware address (empty: not).
///
/// # Errors
/// No such interface, or what the kernel says.
pub fn set_link(netlink: &mut Netlink, name: &str, up: bool, mtu: u32, mac: &[u8]) -> Result<()> {
    // All that a clone's card needs is another address, which costs half the code that a message does.
    if let (true, 0, Ok(mac)) = (up, mtu, <[u8; 6]>::try_from(mac))
        && sys::is_up(netlink.socket(), name) == Ok(true)
        && sys::set_mac(netlink.socket(), name, mac).is_ok()
    {
        return Ok(());
    }
    let index = index_of(netlink, name)?;
    let state = if up { IFF_UP } else { 0 };
    let message = || {
        let mut message = Message::new(RTM_NEWLINK, 0, &link_body(index, state, IFF_UP));
        if mtu != 0 {
            message = message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        if !mac.is_empty() {
            message = message.attribute(IFLA_ADDRESS, mac);
        }
        message
    };
    match netlink.request(message()) {
        // A link that goes down loses its routes, so that is for drivers which change the address in no other way.
        Err(Errno::BUSY) if !mac.is_empty() => {
            let down = Message::new(RTM_NEWLINK, 0, &link_body(index, 0, IFF_UP));
            netlink.request(down).context("link", name)?;
            netlink.request(message()).context("link", name)
        }
        result => result.context("link", name),
    }
}

struct Prefix {
    family: u8,
    bytes: Vec<u8>,
    length: u8,
}

fn parse_ip(text: &str) -> Option<(u8, Vec<u8>)> {
    Some(match text.parse().ok()? {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    })
}

fn parse_prefix(stage: &'static str, text: &str) -> Result<Prefix> {
    let wrong = || Failure::new(stage, Errno::INVAL, format!("{text:?} is no address with a prefix"));
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let (family, bytes) = parse_ip(address).ok_or_else(wrong)?;
    let length: u8 = length.parse().map_err(|_| wrong())?;
    if usize::from(length) > 8 * bytes.len() {
        return Err(wrong());
    }
    Ok(Prefix { family, bytes, length })
}

/// `struct ifaddrmsg`.
fn address_body(family: u8, length: u8, index: u32) -> [u8; 8] {
    let index = index.to_ne_bytes();
    // No duplicate address detection: it would keep an IPv6 address unusable for a second.
    let flags = if family == AF_INET6 { IFA_F_NODAD } else { 0 };
    [family, length, flags, 0, index[0], index[1], index[2], index[3]]
}

/// Gives an interface an address.
///
/// # Errors
/// A malformed address, no such interface, or what the kernel says.
pub fn add_address(netlink: &mut Netlink, call: &AddAddress) -> Result<()> {
    let index = index_of(netlink, &call.link)?;
    let prefix = parse_prefix("address", &call.address)?;
    let body = address_body(prefix.family, prefix.length, index);
    let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
        .attribute(IFA_LOCAL, &prefix.bytes)
        .attribute(IFA_ADDRESS, &prefix.bytes);
    netlink.request(message).context("address", &call.address)
}

/// Adds or replaces a route.
///
/// # Errors
/// A malformed address, no such interface, or what the kernel says.
pub fn add_route(netlink: &mut Netlink, call: &AddRoute) -> Result<()> {
    let gateway = match call.gateway.as_str() {
        "" => None,
        text => {
            Some(parse_ip(text).ok_or_else(|| Failure::new("route", Errno::INVAL, format!("{text:?} is no address")))?)
        }
    };
    let destination = match call.destination.as_str() {
        "" | "default" => None,
        text => Some(parse_prefix("route", text)?),
    };
    let family = destination.as_ref().map(|prefix| prefix.family).or(gateway.as_ref().map(|(family, _)| *family));
    let family = family.ok_or_else(|| Failure::new("route", Errno::INVAL, "neither destination nor gateway"))?;
    let length = destination.as_ref().map_or(0, |prefix| prefix.length);
    let scope = if gateway.is_none() { RT_SCOPE_LINK } else { 0 };
    let body = [family, length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body);
    if let Some(prefix) = &destination {
        message = message.attribute(RTA_DST, &prefix.bytes);
    }
    if let Some((_, address)) = &gateway {
        message = message.attribute(RTA_GATEWAY, address);
    }
    if !call.link.is_empty() {
        message = message.attribute(RTA_OIF, &index_of(netlink, &call.link)?.to_ne_bytes());
    }
    netlink.request(message).context("route", if call.destination.is_empty() { "default" } else { &call.destination })
}

/// Replaces what an interface had: its old addresses go, and with them their routes.
///
/// # Errors
/// As the parts.
pub fn replace_identity(netlink: &mut Netlink, identity: &NetworkIdentity) -> Result<()> {
    if let Some(link) = &identity.link {
        let index = index_of(netlink, &link.name)?;
        flush_addresses(netlink, index)?;
        let SetLink { name, up, mtu, mac } = link;
        set_link(netlink, name, *up, *mtu, mac)?;
    }
    identity.addresses.iter().try_for_each(|address| add_address(netlink, address))?;
    identity.routes.iter().try_for_each(|route| add_route(netlink, route))
}

fn flush_addresses(netlink: &mut Netlink, index: u32) -> Result<()> {
    let mut found = Vec::new();
    netlink
        .dump(Message::new(RTM_GETADDR, 0, &[0; 8]), |kind, content| {
            let owner = content.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
            if kind == RTM_NEWADDR && owner == Some(index) {
                found.push(content.to_vec());
            }
        })
        .context("address", "list")?;
    for content in found {
        // The listing's own header and attributes name the address to be deleted.
        match netlink.request(Message::new(RTM_DELADDR, 0, &content)) {
            // A secondary address goes with its primary.
            Ok(()) | Err(Errno::ADDRNOTAVAIL) => {}
            Err(errno) => return Err(errno).context("address", "delete"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_checked() {
        let prefix = parse_prefix("address", "192.0.2.2/24").expect("well-formed");
        assert_eq!((prefix.family, prefix.length, prefix.bytes), (AF_INET, 24, vec![192, 0, 2, 2]));
        for wrong in ["192.0.2.2", "192.0.2.2/33", "x/8", "2001:db8::1/129", ""] {
            assert!(parse_prefix("address", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let netlink = Netlink::open().expect("a socket");
        assert_eq!(index_of(&netlink, "lo").expect("is there"), 1);
        for wrong in ["", "../etc", "a/b", ".", "an-interface-of-too-long-a-name"] {
            assert_eq!(index_of(&netlink, wrong).expect_err("refused").errno, Errno::NODEV.raw_os_error());
        }
    }
}
