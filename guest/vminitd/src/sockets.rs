//! Sockets between the guest and the host: AF_VSOCK of the guest's programs, and Unix sockets of containers.

use std::path::Path;

use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use crate::agent::{Agent, Node};
use crate::call::done;
use crate::failure::{Context, Failure, Result};
use crate::files::set_owner;
use crate::guest_root::{GuestRoot, absolute, fd_path};
use crate::messages::{ProxySocket, reply};
use crate::relay::{Relay, Role};
use crate::sys;

const BACKLOG: i32 = 64;
const MAX_PROXIES: usize = 256;
/// `sun_path`, without its NUL.
const MAX_PATH: usize = 107;
/// The library's own ports, which the guest dials and nobody else uses.
const RESERVED: std::ops::RangeInclusive<u32> = 0x1000_0000..=0x2000_0000;
const RPC_PORT: u32 = 1024;

/// A socket whose connections go to the host.
pub struct Listener {
    fd: OwnedFd,
    id: String,
    port: u32,
    /// Where its file is, to be removed with it.
    file: Option<(OwnedFd, std::ffi::OsString)>,
}

/// A port of the host's streams that leads to a Unix socket of a container.
pub struct Route {
    id: String,
    port: u32,
    container: String,
    path: String,
}

fn stream_socket(family: AddressFamily) -> std::result::Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn check_port(port: u32) -> Result<()> {
    if port == 0 || port == RPC_PORT || port == u32::MAX || RESERVED.contains(&port) {
        return Err(Failure::new("socket", Errno::ACCESS, format!("port {port} is reserved")));
    }
    Ok(())
}

impl Agent {
    fn check_proxy(&self, id: &str) -> Result<()> {
        let listeners = self.nodes.tokens(|node| matches!(node, Node::Listener(_))).len();
        let known = self.nodes.iter().any(|(_, node)| matches!(node, Node::Listener(listener) if listener.id == id));
        if known || self.routes.iter().any(|route| route.id == id) {
            return Err(Failure::new("socket", Errno::EXIST, format!("{id} exists")));
        }
        if listeners + self.routes.len() >= MAX_PROXIES {
            return Err(Failure::new("socket", Errno::MFILE, "too many sockets"));
        }
        Ok(())
    }

    fn add_listener(&mut self, listener: Listener) -> Result<()> {
        let token = self.insert(Node::Listener(listener))?;
        if let Some(Node::Listener(listener)) = self.nodes.get(token) {
            self.watch(&listener.fd, token, EventFlags::IN)?;
        }
        Ok(())
    }

    /// Listens on AF_VSOCK `port`; each connection becomes a stream to the host's same port.
    ///
    /// # Errors
    /// A reserved port, or as bind(2).
    pub fn vsock_listen(&mut self, port: u32) -> Result<reply::Result> {
        check_port(port)?;
        let id = format!("vsock:{port}");
        self.check_proxy(&id)?;
        let fd = stream_socket(AddressFamily::VSOCK).context("vsock", "socket")?;
        sys::vsock_bind(fd.as_fd(), port).context("vsock", &id)?;
        listen(&fd, BACKLOG).context("vsock", &id)?;
        self.add_listener(Listener { fd, id, port, file: None })?;
        Ok(done())
    }

    /// Joins a Unix socket of a container to a port, one way or the other.
    ///
    /// # Errors
    /// A reserved port, a path that is no place for a socket, or as bind(2).
    pub fn proxy_socket(&mut self, call: &ProxySocket) -> Result<reply::Result> {
        // Streams of a proxied socket are the library's own: any port is allowed but the agent's.
        if call.port == 0 || call.port == RPC_PORT {
            return Err(Failure::new("socket", Errno::ACCESS, format!("port {} is reserved", call.port)));
        }
        self.check_proxy(&call.id)?;
        let path = absolute("socket", &call.path)?;
        if call.into_guest {
            let root = self.root_of(&call.container)?;
            let listener = listen_at(&root, path, call).context("socket", &call.path)?;
            self.add_listener(listener)?;
        } else if self.routes.iter().any(|route| route.port == call.port) {
            return Err(Failure::new("socket", Errno::ADDRINUSE, format!("port {} is taken", call.port)));
        } else {
            let (id, container, path) = (call.id.clone(), call.container.clone(), call.path.clone());
            self.routes.push(Route { id, port: call.port, container, path });
        }
        Ok(done())
    }

    /// Stops a proxy; its connections go on.
    ///
    /// # Errors
    /// ENOENT.
    pub fn stop_proxy(&mut self, id: &str) -> Result<reply::Result> {
        let listeners = self.nodes.tokens(|node| matches!(node, Node::Listener(listener) if listener.id == id));
        let routes = self.routes.len();
        self.routes.retain(|route| route.id != id);
        if listeners.is_empty() && routes == self.routes.len() {
            return Err(Failure::new("socket", Errno::NOENT, format!("no proxy {id}")));
        }
        for token in listeners {
            if let Some(Node::Listener(Listener { file: Some((folder, name)), .. })) = self.nodes.remove(token) {
                // The container may have removed it.
                let _ = unlinkat(&folder, &name, AtFlags::empty());
            }
        }
        Ok(done())
    }

    /// A guest's program connects: the host is dialled.
    pub fn accept_all(&mut self, token: u32) {
        while let Some(Node::Listener(listener)) = self.nodes.get(token) {
            let port = listener.port;
            match accept_with(&listener.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(connection) => {
                    // Without a stream for it the connection is closed: the program sees that.
                    let _ = self.dial(port, 0, Role::Socket, Some(connection));
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    /// The host opened a stream to a port: it is joined to a socket of the guest.
    pub fn connect(&mut self, stream: u32, port: u32) {
        if let Err(failure) = self.join_socket(stream, port) {
            let refused = Errno::CONNREFUSED.raw_os_error();
            let errno = if failure.errno == Errno::NOENT.raw_os_error() { refused } else { failure.errno };
            self.link.reset(stream, errno as u32);
        }
    }

    fn join_socket(&mut self, stream: u32, port: u32) -> Result<()> {
        let (socket, pending) = match self.routes.iter().find(|route| route.port == port) {
            Some(route) => {
                let root = self.root_of(&route.container)?;
                (connect_unix(&root, Path::new(&route.path)).context("socket", &route.path)?, false)
            }
            None if check_port(port).is_err() => return Err(Errno::CONNREFUSED).context("vsock", "reserved"),
            None => connect_vsock(port).context("vsock", "connect")?,
        };
        let token = self.insert(Node::Relay(Relay::new(Role::Socket, stream, 0, None)))?;
        if let Some(Node::Relay(relay)) = self.nodes.get_mut(token) {
            relay.connecting = pending;
        }
        self.link.attach(stream, token);
        self.join(token, socket)
    }

    /// A connection that was pending is made, or refused.
    pub fn connected(&mut self, token: u32) {
        let Some(Node::Relay(relay)) = self.nodes.get_mut(token) else { return };
        let outcome = relay.fd().map_or(Ok(Ok(())), socket_error);
        if outcome == Ok(Ok(())) {
            relay.connecting = false;
            self.node_event(token, EventFlags::IN | EventFlags::OUT);
            return;
        }
        let stream = relay.stream;
        self.link.reset(stream, Errno::CONNREFUSED.raw_os_error() as u32);
        self.close(token);
    }

    /// The root of a container, or the agent's own for an empty name.
    ///
    /// # Errors
    /// There is no such container.
    pub fn root_of(&self, container: &str) -> Result<GuestRoot> {
        if container.is_empty() {
            GuestRoot::at("/")
        } else {
            GuestRoot::of_container(container, self.init_pid(container))
        }
    }
}

fn listen_at(root: &GuestRoot, path: &Path, call: &ProxySocket) -> std::result::Result<Listener, Errno> {
    let (folder, name) = root.parent(path, true)?;
    if let Ok(found) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        // A socket that an earlier run left; anything else stays.
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
            return Err(Errno::EXIST);
        }
        unlinkat(&folder, name, AtFlags::empty())?;
    }
    let fd = stream_socket(AddressFamily::UNIX)?;
    let address = [fd_path(&folder).as_bytes(), b"/", name.as_encoded_bytes()].concat();
    if address.len() > MAX_PATH {
        return Err(Errno::NAMETOOLONG);
    }
    bind(&fd, &SocketAddrUnix::new(address)?)?;
    let mode = if call.mode == 0 { 0o600 } else { call.mode & 0o777 };
    set_owner(&folder, name, call.uid, call.gid)?;
    chmodat(&folder, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    listen(&fd, BACKLOG)?;
    Ok(Listener { fd, id: call.id.clone(), port: call.port, file: Some((folder, name.to_owned())) })
}

fn connect_unix(root: &GuestRoot, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let target = root.open(path, OFlags::PATH, 0)?;
    let fd = stream_socket(AddressFamily::UNIX)?;
    connect(&fd, &SocketAddrUnix::new(fd_path(&target))?)?;
    Ok(fd)
}

fn connect_vsock(port: u32) -> std::result::Result<(OwnedFd, bool), Errno> {
    let fd = stream_socket(AddressFamily::VSOCK)?;
    match sys::vsock_connect(fd.as_fd(), port) {
        Ok(()) => Ok((fd, false)),
        Err(Errno::INPROGRESS) => Ok((fd, true)),
        // The loopback answers with a reset where nobody listens.
        Err(Errno::CONNRESET) => Err(Errno::CONNREFUSED),
        Err(errno) => Err(errno),
    }
}
