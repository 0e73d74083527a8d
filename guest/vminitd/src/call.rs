//! One RPC: a stream that carries a request one way and a reply the other (protocol.md, section 5).

use link::Endpoint;
use prost::Message;

use crate::failure::Result;
use crate::messages::{Done, Reply, reply};
use crate::output::Output;
use crate::relay::Progress;

const LENGTH_BYTES: usize = 4;
/// No message is longer.
pub const MAX_MESSAGE: usize = 1 << 20;
/// What all requests that are not complete yet may hold together.
pub const MAX_PARTIAL: usize = 16 << 20;

/// What has to be undone when a caller gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Nothing: the call only waits.
    Nothing,
    /// A process that is being made, by its token.
    Process(u32),
    /// A helper at work, by its token.
    Helper(u32),
}

/// A call, from its first byte to its answer's last.
pub struct Call {
    /// Its stream.
    pub stream: u32,
    /// It is in the list of those that may have something to send.
    pub queued: bool,
    /// Monotonic nanoseconds after which it fails.
    pub deadline: Option<i64>,
    /// What to do if it is cancelled.
    pub undo: Undo,
    /// The request was complete and the work has begun.
    pub begun: bool,
    request: Vec<u8>,
    reply: Vec<u8>,
    sent: usize,
}

/// What more bytes of a request made of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Assembly {
    /// More is needed.
    Partial,
    /// The message.
    Complete(Vec<u8>),
    /// Longer than a message may be, or followed by what does not belong to it.
    Malformed,
}

impl Call {
    /// A call that has said nothing yet.
    pub fn new(stream: u32) -> Self {
        Self {
            stream,
            queued: false,
            deadline: None,
            undo: Undo::Nothing,
            begun: false,
            request: Vec::new(),
            reply: Vec::new(),
            sent: 0,
        }
    }

    /// Bytes it holds of an incomplete request.
    pub fn held(&self) -> usize {
        self.request.len()
    }

    /// Adds bytes to the request.
    pub fn assemble(&mut self, bytes: &[u8]) -> Assembly {
        if self.begun {
            return Assembly::Malformed;
        }
        self.request.extend_from_slice(bytes);
        let Some(length) = self.request.first_chunk::<LENGTH_BYTES>() else { return Assembly::Partial };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_MESSAGE || self.request.len() > LENGTH_BYTES + length {
            return Assembly::Malformed;
        }
        if self.request.len() < LENGTH_BYTES + length {
            return Assembly::Partial;
        }
        self.begun = true;
        let mut message = std::mem::take(&mut self.request);
        message.drain(..LENGTH_BYTES);
        Assembly::Complete(message)
    }

    /// Sets the answer. The first one stands.
    pub fn answer(&mut self, result: Result<reply::Result>) {
        if !self.reply.is_empty() {
            return;
        }
        let result = result.unwrap_or_else(|failure| reply::Result::Error(failure.into_message()));
        let reply = Reply { result: Some(result) };
        self.reply.reserve(LENGTH_BYTES + reply.encoded_len());
        self.reply.extend_from_slice(&(reply.encoded_len() as u32).to_le_bytes());
        reply.encode_raw(&mut self.reply);
    }

    /// There is an answer.
    pub fn answered(&self) -> bool {
        !self.reply.is_empty()
    }

    /// Sends one frame of the answer.
    pub fn produce(&mut self, link: &mut Endpoint, output: &mut Output) -> Progress {
        let room = output.room();
        if room == 0 {
            return Progress::Full;
        }
        let count = link.budget(self.stream).min(room).min(self.reply.len() - self.sent);
        if count == 0 {
            return Progress::Waits;
        }
        output.payload(count).copy_from_slice(&self.reply[self.sent..self.sent + count]);
        output.commit(link.data_header(self.stream, count), count);
        self.sent += count;
        if self.sent < self.reply.len() {
            return Progress::More;
        }
        if let Some(end) = link.end(self.stream) {
            output.append(end);
        }
        Progress::Done
    }
}

/// The answer of a call that has nothing to say.
pub fn done() -> reply::Result {
    reply::Result::Done(Done {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_in_any_pieces() {
        let wire = [&5_u32.to_le_bytes()[..], b"hello"].concat();
        for cut in 1..wire.len() {
            let mut call = Call::new(1);
            assert_eq!(call.assemble(&wire[..cut]), Assembly::Partial);
            assert_eq!(call.assemble(&wire[cut..]), Assembly::Complete(b"hello".to_vec()));
            assert_eq!(call.assemble(b"more"), Assembly::Malformed);
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let mut call = Call::new(1);
        assert_eq!(call.assemble(&(MAX_MESSAGE as u32 + 1).to_le_bytes()), Assembly::Malformed);
        let mut call = Call::new(1);
        assert_eq!(call.assemble(&[1, 0, 0, 0, 7, 7]), Assembly::Malformed);
    }
}
