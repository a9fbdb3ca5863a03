//! UDP sockets, and the limits of the transport.

use quinn::IdleTimeout;
use quinn::TransportConfig;
use quinn::VarInt;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use std::io;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::time::Duration;

/// The socket's buffers in bytes; the kernel may give less (`net.core.rmem_max`).
const BUFFER: usize = 2 << 20;
/// What a peer may send ahead on one stream, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// What a peer may send ahead on all streams of a connection, in bytes.
pub(super) const WINDOW: u32 = 8 << 20;
/// The same before the peer's key was accepted.
pub(super) const WINDOW_BEFORE: u32 = 64 << 10;
/// A connection on which nothing was heard for this long is dead.
const IDLE_MILLIS: u32 = 45_000;

/// A UDP socket at `addr`. An unspecified IPv6 address serves IPv4 as well.
pub(super) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    // Smaller buffers only cost speed.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// The limits that both sides share: no stream may be opened towards us, none of the other side's data is buffered beyond the windows.
pub(super) fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MILLIS))));
    config
}

/// As [`transport`], and packets every `keep_alive` so that neither side nor a router forgets the connection.
pub(super) fn client_transport(keep_alive: Duration) -> TransportConfig {
    let mut config = transport();
    config.keep_alive_interval(Some(keep_alive));
    config
}
