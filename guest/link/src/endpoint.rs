//! One side of the link: bytes in, events out.

use std::ops::Range;

use crate::frame::{Fault, HEADER_BYTES, Header, Kind, MAX_PAYLOAD, credit_amount, encode_header};
use crate::hello::{BLOCK_BYTES, Hello, Identity, MAJOR, NONCE_BYTES, answer};
use crate::search::Search;
use crate::streams::{
    CONNECTION_WINDOW, Place, ReceiveWindow, STREAM_WINDOW, SendWindow, Side, Stream, Table, WIDE_WINDOW,
};

/// Room for three frames: what is read at once is parsed in place.
const BUFFER_BYTES: usize = 96 * 1024;
/// [`Endpoint::space`] is at least this.
const MIN_SPACE: usize = 16 * 1024;
/// While this much control output waits, no more input should be read: it may call for more output.
const CONTROL_LIMIT: usize = 64 * 1024;
/// A stream that has consumed this much gets the wide window.
const BUSY_BYTES: u32 = 2 * STREAM_WINDOW;
/// A stream more than is allowed is answered by a RESET with this.
const EMFILE: u32 = 24;

/// What the peer did. `token` is what [`Endpoint::attach`] gave the stream, 0 before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A HELLO: all streams are gone. A refused one leaves nothing to do but wait for another.
    Hello {
        /// The peers understand each other.
        accepted: bool,
    },
    /// The peer opened a stream. It is accepted unless reset.
    Opened {
        /// Its number.
        stream: u32,
        /// Where it wants to go.
        port: u32,
    },
    /// Bytes of a stream, to be had from [`Endpoint::bytes`] until the next [`Endpoint::space`].
    Data {
        /// Its number.
        stream: u32,
        /// Its owner's mark.
        token: u32,
        /// Where the bytes are.
        payload: Range<usize>,
    },
    /// The peer sends no more on the stream.
    Ended {
        /// Its number.
        stream: u32,
        /// Its owner's mark.
        token: u32,
    },
    /// The stream is gone.
    Reset {
        /// Its number.
        stream: u32,
        /// Its owner's mark.
        token: u32,
        /// Why, as an errno.
        errno: u32,
    },
    /// More may be sent on the stream, or, for stream 0, on all.
    Credit {
        /// Its number.
        stream: u32,
        /// Its owner's mark.
        token: u32,
        /// How much more.
        bytes: u32,
    },
    /// The peer answered a PING.
    Pong([u8; 8]),
    /// The peer broke the protocol. All streams are gone; a guest waits for a HELLO.
    Fault(Fault),
}

/// Why no stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// As many as allowed are open.
    TooMany,
    /// No connection.
    NotConnected,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Open,
    Broken,
}

/// One side of a link.
pub struct Endpoint {
    identity: Identity,
    search: Option<Search>,
    state: State,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// No whole sentinel begins before this.
    searched: usize,
    control: Vec<u8>,
    ours: Table,
    theirs: Table,
    send: SendWindow,
    receive: ReceiveWindow,
}

impl Endpoint {
    /// A guest's side, which waits for a HELLO with `sentinel`.
    #[must_use]
    pub fn guest(sentinel: [u8; NONCE_BYTES], identity: Identity) -> Self {
        Self::new(Side::Guest, Some(Search::new(sentinel)), identity, State::Waiting)
    }

    /// A host's side, after its handshake.
    #[must_use]
    pub fn host() -> Self {
        Self::new(Side::Host, None, Identity::default(), State::Open)
    }

    fn new(side: Side, search: Option<Search>, identity: Identity, state: State) -> Self {
        let other = if side == Side::Host { Side::Guest } else { Side::Host };
        Self {
            identity,
            search,
            state,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            searched: 0,
            control: Vec::new(),
            ours: Table::new(side),
            theirs: Table::new(other),
            send: SendWindow::new(CONNECTION_WINDOW),
            receive: ReceiveWindow::new(CONNECTION_WINDOW),
        }
    }

    /// Where to put what was read from the port; [`Endpoint::filled`] says how much it was.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.searched = 0;
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < MIN_SPACE {
            self.buffer.copy_within(self.start..self.end, 0);
            self.searched = self.searched.saturating_sub(self.start);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes of [`Endpoint::space`] were filled.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The bytes of an [`Event::Data`].
    #[must_use]
    pub fn bytes(&self, payload: Range<usize>) -> &[u8] {
        self.buffer.get(payload).unwrap_or_default()
    }

    /// Whether more input should wait until output has left.
    #[must_use]
    pub fn congested(&self) -> bool {
        self.control.len() >= CONTROL_LIMIT
    }

    /// Frames to be sent ahead of any DATA that is not yet on its way.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// The next event among the bytes so far; none: more bytes are needed.
    pub fn poll(&mut self) -> Option<Event> {
        let (limit, hello) = self.find_hello();
        if self.state == State::Open {
            match self.next_frame(limit) {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(fault) => {
                    self.forget();
                    self.state = if self.search.is_some() { State::Waiting } else { State::Broken };
                    return Some(Event::Fault(fault));
                }
            }
        } else {
            // Nothing but a HELLO counts, and the last bytes may be the beginning of one.
            self.start = limit.min(self.searched);
        }
        let hello = hello?;
        self.start = limit + BLOCK_BYTES;
        self.searched = self.start;
        Some(self.greet(&hello))
    }

    /// How far the bytes may be parsed: up to a HELLO, whole or begun, or to their end.
    fn find_hello(&mut self) -> (usize, Option<Hello>) {
        let Some(search) = &self.search else { return (self.end, None) };
        self.searched = self.searched.max(self.start);
        while let Some(offset) = search.find(&self.buffer[self.searched..self.end]) {
            let place = self.searched + offset;
            self.searched = place;
            if self.end - place < BLOCK_BYTES {
                return (place, None);
            }
            if let Some(hello) = Hello::decode(&self.buffer[place..place + BLOCK_BYTES]) {
                return (place, Some(hello));
            }
            self.searched += 1;
        }
        self.searched = self.searched.max(self.end.saturating_sub(NONCE_BYTES - 1));
        (self.end - search.pending(&self.buffer[self.start..self.end]), None)
    }

    fn greet(&mut self, hello: &Hello) -> Event {
        let accepted = hello.major == MAJOR;
        self.forget();
        self.state = if accepted { State::Open } else { State::Waiting };
        self.search = Some(Search::new(hello.next));
        self.control.extend_from_slice(&answer(&hello.nonce, accepted, &self.identity));
        Event::Hello { accepted }
    }

    fn forget(&mut self) {
        self.control.clear();
        self.ours.clear();
        self.theirs.clear();
        self.send = SendWindow::new(CONNECTION_WINDOW);
        self.receive = ReceiveWindow::new(CONNECTION_WINDOW);
    }

    fn next_frame(&mut self, limit: usize) -> Result<Option<Event>, Fault> {
        loop {
            let body = self.start + HEADER_BYTES;
            let Some(header) = self.buffer[..limit].get(self.start..body) else { return Ok(None) };
            let header: &[u8; HEADER_BYTES] = header.try_into().map_err(|_| Fault::Length)?;
            let header = Header::decode(header)?;
            let payload = body..body + header.length;
            if payload.end > limit {
                return Ok(None);
            }
            self.start = payload.end;
            if let Some(event) = self.handle(&header, payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn handle(&mut self, header: &Header, payload: Range<usize>) -> Result<Option<Event>, Fault> {
        let stream = header.stream;
        match header.kind {
            Kind::Open => self.opened(stream, self.word(&payload)),
            Kind::Data => self.data(stream, payload),
            Kind::End => {
                let Some(entry) = self.find(stream)? else { return Ok(None) };
                if std::mem::replace(&mut entry.ended_by_peer, true) {
                    return Err(Fault::Ended);
                }
                let (token, gone) = (entry.token, entry.ended_by_us);
                if gone {
                    self.drop_stream(stream);
                }
                Ok(Some(Event::Ended { stream, token }))
            }
            Kind::Reset => {
                let errno = self.word(&payload);
                let Some(token) = self.find(stream)?.map(|entry| entry.token) else { return Ok(None) };
                self.drop_stream(stream);
                Ok(Some(Event::Reset { stream, token, errno }))
            }
            Kind::Credit => self.credited(stream, credit_amount(self.word(&payload))?),
            Kind::Ping => {
                let mark: [u8; 8] = self.buffer[payload].try_into().map_err(|_| Fault::Length)?;
                self.push_control(Kind::Pong, 0, &mark);
                Ok(None)
            }
            Kind::Pong => Ok(self.buffer[payload].try_into().ok().map(Event::Pong)),
        }
    }

    fn opened(&mut self, stream: u32, port: u32) -> Result<Option<Event>, Fault> {
        if self.theirs.open(stream, 0)? {
            return Ok(Some(Event::Opened { stream, port }));
        }
        self.push_control(Kind::Reset, stream, &EMFILE.to_le_bytes());
        Ok(None)
    }

    fn data(&mut self, stream: u32, payload: Range<usize>) -> Result<Option<Event>, Fault> {
        let found = self.find(stream)?.is_some();
        // Bytes of a stream that was reset meanwhile have used the connection's credit all the same.
        self.receive.take(payload.len())?;
        let credit = self.receive.give_back(payload.len());
        if credit > 0 {
            self.push_control(Kind::Credit, 0, &credit.to_le_bytes());
        }
        if !found {
            return Ok(None);
        }
        let Some(entry) = self.find(stream)? else { return Ok(None) };
        if entry.ended_by_peer {
            return Err(Fault::Ended);
        }
        entry.receive.take(payload.len())?;
        Ok(Some(Event::Data { stream, token: entry.token, payload }))
    }

    fn credited(&mut self, stream: u32, bytes: u32) -> Result<Option<Event>, Fault> {
        let token = if stream == 0 {
            self.send.grant(bytes)?;
            0
        } else {
            let Some(entry) = self.find(stream)? else { return Ok(None) };
            entry.send.grant(bytes)?;
            entry.token
        };
        Ok(Some(Event::Credit { stream, token, bytes }))
    }

    fn word(&self, payload: &Range<usize>) -> u32 {
        self.buffer[payload.clone()].try_into().map_or(0, u32::from_le_bytes)
    }

    fn push_control(&mut self, kind: Kind, stream: u32, payload: &[u8]) {
        self.control.extend_from_slice(&encode_header(kind, stream, payload.len()));
        self.control.extend_from_slice(payload);
    }

    /// The stream, if it is open; an error if it never was.
    fn find(&mut self, stream: u32) -> Result<Option<&mut Stream>, Fault> {
        let table = if self.ours.owns(stream) { &mut self.ours } else { &mut self.theirs };
        Ok(match table.place(stream)? {
            Place::Open(index) => Some(table.at(index)),
            Place::Closed => None,
        })
    }

    fn table(&mut self, stream: u32) -> &mut Table {
        if self.ours.owns(stream) { &mut self.ours } else { &mut self.theirs }
    }

    fn drop_stream(&mut self, stream: u32) {
        self.table(stream).remove(stream);
    }

    /// Opens a stream to the peer's `port`; its events will carry `token`.
    ///
    /// # Errors
    /// As many streams as allowed are open, or there is no connection.
    pub fn open(&mut self, port: u32, token: u32) -> Result<u32, OpenError> {
        if self.state != State::Open {
            return Err(OpenError::NotConnected);
        }
        let number = self.ours.next_number().ok_or(OpenError::TooMany)?;
        if self.ours.len() >= crate::MAX_STREAMS || !self.ours.open(number, token).unwrap_or(false) {
            return Err(OpenError::TooMany);
        }
        self.push_control(Kind::Open, number, &port.to_le_bytes());
        Ok(number)
    }

    /// Marks a stream: its events will carry `token`.
    pub fn attach(&mut self, stream: u32, token: u32) {
        if let Some(entry) = self.table(stream).get_mut(stream) {
            entry.token = token;
        }
    }

    /// How many bytes of DATA may be sent on the stream now.
    #[must_use]
    pub fn budget(&self, stream: u32) -> usize {
        let table = if self.ours.owns(stream) { &self.ours } else { &self.theirs };
        match table.get(stream) {
            Some(entry) if !entry.ended_by_us => {
                entry.send.left().min(self.send.left()).min(MAX_PAYLOAD as u32) as usize
            }
            _ => 0,
        }
    }

    /// The header of a DATA frame of `length` bytes, at most [`Endpoint::budget`]; the payload follows it.
    pub fn data_header(&mut self, stream: u32, length: usize) -> [u8; HEADER_BYTES] {
        debug_assert!(length <= self.budget(stream), "DATA beyond the peer's credit");
        self.send.take(length);
        if let Some(entry) = self.table(stream).get_mut(stream) {
            entry.send.take(length);
        }
        encode_header(Kind::Data, stream, length)
    }

    /// The END of our direction, to be sent behind its DATA; none if the stream is gone or was ended.
    pub fn end(&mut self, stream: u32) -> Option<[u8; HEADER_BYTES]> {
        let entry = self.table(stream).get_mut(stream)?;
        if std::mem::replace(&mut entry.ended_by_us, true) {
            return None;
        }
        if entry.ended_by_peer {
            self.drop_stream(stream);
        }
        Some(encode_header(Kind::End, stream, 0))
    }

    /// Ends a stream at once, both ways.
    pub fn reset(&mut self, stream: u32, errno: u32) {
        if self.table(stream).get(stream).is_some() {
            self.drop_stream(stream);
            self.push_control(Kind::Reset, stream, &errno.to_le_bytes());
        }
    }

    /// The stream's consumer took `count` bytes: credit is given back, and more of it to a busy stream.
    pub fn consumed(&mut self, stream: u32, count: usize) {
        let Some(entry) = self.table(stream).get_mut(stream) else { return };
        if entry.ended_by_peer {
            return;
        }
        let mut credit = entry.receive.give_back(count);
        if entry.receive.size() < WIDE_WINDOW {
            entry.consumed = entry.consumed.saturating_add(count as u32);
            if entry.consumed >= BUSY_BYTES && credit > 0 {
                credit += entry.receive.widen(WIDE_WINDOW);
            }
        }
        if credit > 0 {
            self.push_control(Kind::Credit, stream, &credit.to_le_bytes());
        }
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self, mark: [u8; 8]) {
        self.push_control(Kind::Ping, 0, &mark);
    }
}
