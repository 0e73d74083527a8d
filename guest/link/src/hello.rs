//! The handshake: blocks of 64 bytes that are no frames (protocol.md, section 1).

use crate::checksum::crc32;

/// Bytes of a sentinel and of a nonce.
pub const NONCE_BYTES: usize = 16;
/// Bytes of a HELLO and of its answer.
pub const BLOCK_BYTES: usize = 64;
/// The protocol's major version: another one is refused.
pub const MAJOR: u16 = 1;
/// The protocol's minor version.
pub const MINOR: u16 = 0;
/// What a freshly booted guest looks for: the first 16 bytes of SHA-256 of `firkin guest link v1`.
pub const INITIAL_SENTINEL: [u8; NONCE_BYTES] =
    [0xd7, 0x55, 0x98, 0x3f, 0xb8, 0x0c, 0x01, 0x34, 0xee, 0x7c, 0x89, 0x10, 0xd0, 0xed, 0x74, 0xa3];

/// Who the guest is, for its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// First 16 bytes of SHA-256 of the `agent.proto` it was built from.
    pub schema: [u8; 16],
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
}

/// What a host says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sentinel that the guest waits for now.
    pub sentinel: [u8; NONCE_BYTES],
    /// The host's major version.
    pub major: u16,
    /// Echoed by the guest.
    pub nonce: [u8; NONCE_BYTES],
    /// The sentinel of the HELLO after this one.
    pub next: [u8; NONCE_BYTES],
}

impl Hello {
    /// The block as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..16].copy_from_slice(&self.sentinel);
        block[16..18].copy_from_slice(&self.major.to_le_bytes());
        block[18..20].copy_from_slice(&MINOR.to_le_bytes());
        block[24..40].copy_from_slice(&self.nonce);
        block[40..56].copy_from_slice(&self.next);
        seal(block)
    }

    /// The HELLO in `block`, unless its checksum is wrong. Minor version and flags are ignored.
    pub(crate) fn decode(block: &[u8]) -> Option<Self> {
        let block: &[u8; BLOCK_BYTES] = block.try_into().ok()?;
        (u32::from_le_bytes(array(block, 60)) == crc32(&block[..60])).then(|| Self {
            sentinel: array(block, 0),
            major: u16::from_le_bytes(array(block, 16)),
            nonce: array(block, 24),
            next: array(block, 40),
        })
    }
}

/// The guest's answer to the HELLO that carried `nonce`.
pub(crate) fn answer(nonce: &[u8; NONCE_BYTES], accepted: bool, identity: &Identity) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..16].copy_from_slice(nonce);
    block[16..18].copy_from_slice(&MAJOR.to_le_bytes());
    block[18..20].copy_from_slice(&MINOR.to_le_bytes());
    block[20..24].copy_from_slice(&u32::from(!accepted).to_le_bytes());
    block[24..40].copy_from_slice(&identity.schema);
    block[40..56].copy_from_slice(&identity.boot_id);
    seal(block)
}

fn seal(mut block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    let sum = crc32(&block[..60]);
    block[60..].copy_from_slice(&sum.to_le_bytes());
    block
}

fn array<const N: usize>(block: &[u8; BLOCK_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}
