//! The streams of a connection and their windows (protocol.md, section 3).

use crate::frame::Fault;

/// Credit of a new stream, each way.
pub const STREAM_WINDOW: u32 = 65_536;
/// What a busy stream's window may be widened to.
pub const WIDE_WINDOW: u32 = 262_144;
/// Credit of a new connection, each way.
pub const CONNECTION_WINDOW: u32 = 1_048_576;
/// No credit may lift a window above this.
pub const MAX_WINDOW: u32 = 1 << 20;
/// Streams that one side may have open at a time.
pub const MAX_STREAMS: usize = 1024;

/// Who is who: the host's streams have odd numbers, the guest's even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The host.
    Host,
    /// The guest.
    Guest,
}

impl Side {
    fn owns(self, stream: u32) -> bool {
        (stream % 2 == 1) == (self == Self::Host)
    }
}

/// Credit to send by.
pub(crate) struct SendWindow(u32);

impl SendWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self(size)
    }

    pub(crate) fn left(&self) -> u32 {
        self.0
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes as u32);
    }

    pub(crate) fn grant(&mut self, bytes: u32) -> Result<(), Fault> {
        let lifted = self.0.checked_add(bytes).filter(|window| *window <= MAX_WINDOW).ok_or(Fault::Credit)?;
        self.0 = lifted;
        Ok(())
    }
}

/// Credit that the peer sends by, and what of it is to be given back.
pub(crate) struct ReceiveWindow {
    size: u32,
    left: u32,
    owed: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self { size, left: size, owed: 0 }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(bytes as u32).ok_or(Fault::Window)?;
        Ok(())
    }

    /// `bytes` were consumed: the credit to send now, or 0. Given back by quarters of the window.
    pub(crate) fn give_back(&mut self, bytes: usize) -> u32 {
        self.owed += bytes as u32;
        if self.owed < self.size / 4 {
            return 0;
        }
        self.left += self.owed;
        std::mem::take(&mut self.owed)
    }

    /// More window than before: the credit to send now.
    pub(crate) fn widen(&mut self, size: u32) -> u32 {
        let more = size.saturating_sub(self.size);
        self.size += more;
        self.left += more;
        more
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) number: u32,
    pub(crate) token: u32,
    pub(crate) send: SendWindow,
    pub(crate) receive: ReceiveWindow,
    pub(crate) consumed: u32,
    pub(crate) ended_by_us: bool,
    pub(crate) ended_by_peer: bool,
}

/// Where a number stands.
pub(crate) enum Place {
    Open(usize),
    Closed,
}

/// The streams that one side opened, by number: new ones have the highest, so the list stays in order by itself.
pub(crate) struct Table {
    side: Side,
    last: u32,
    list: Vec<Stream>,
}

impl Table {
    pub(crate) fn new(side: Side) -> Self {
        Self { side, last: 0, list: Vec::new() }
    }

    pub(crate) fn owns(&self, stream: u32) -> bool {
        self.side.owns(stream)
    }

    pub(crate) fn clear(&mut self) {
        self.last = 0;
        self.list.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Takes the number of a new stream: false if there is no room for the stream.
    pub(crate) fn open(&mut self, number: u32, token: u32) -> Result<bool, Fault> {
        if !self.owns(number) || number <= self.last {
            return Err(Fault::Stream);
        }
        self.last = number;
        if self.list.len() >= MAX_STREAMS {
            return Ok(false);
        }
        self.list.push(Stream {
            number,
            token,
            send: SendWindow::new(STREAM_WINDOW),
            receive: ReceiveWindow::new(STREAM_WINDOW),
            consumed: 0,
            ended_by_us: false,
            ended_by_peer: false,
        });
        Ok(true)
    }

    /// The number that the next stream of this side gets; none when they are used up.
    pub(crate) fn next_number(&self) -> Option<u32> {
        match (self.last, self.side) {
            (0, Side::Host) => Some(1),
            (0, Side::Guest) => Some(2),
            (last, _) => last.checked_add(2),
        }
    }

    pub(crate) fn place(&self, number: u32) -> Result<Place, Fault> {
        match self.list.binary_search_by_key(&number, |stream| stream.number) {
            Ok(index) => Ok(Place::Open(index)),
            Err(_) if number <= self.last => Ok(Place::Closed),
            Err(_) => Err(Fault::Stream),
        }
    }

    pub(crate) fn at(&mut self, index: usize) -> &mut Stream {
        &mut self.list[index]
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Stream> {
        let index = self.list.binary_search_by_key(&number, |stream| stream.number).ok()?;
        self.list.get(index)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Stream> {
        let index = self.list.binary_search_by_key(&number, |stream| stream.number).ok()?;
        self.list.get_mut(index)
    }

    pub(crate) fn remove(&mut self, number: u32) {
        if let Ok(index) = self.list.binary_search_by_key(&number, |stream| stream.number) {
            self.list.remove(index);
        }
    }
}
