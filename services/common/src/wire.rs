//! What comes from the broker, made readable for the client library.
//!
//! AMQP's short strings are bytes, and the broker passes on whatever a sender put into them. The client library
//! demands UTF-8 and ends the connection at anything else, and it reads nested headers by recursion: one message
//! of a customer would come back for ever and stop the queue. So the header of each message is looked at before
//! the library sees it. A string that is not UTF-8 becomes [`SUBSTITUTE`]s of the same length; headers that
//! cannot be read are left out.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite, IoSlice};
use lapin::AsyncTcpStream;

/// Stands for each byte of a string that was not UTF-8: the control character of that meaning.
pub const SUBSTITUTE: char = '\u{1a}';

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Largest frame that is waited for; brokers allow 128 KiB unless told otherwise.
const FRAME_MAX: usize = 16 * 1024 * 1024;
/// Tables within tables.
const DEPTH_MAX: usize = 8;
/// Type, channel, size before the payload; the end mark after it.
const BEFORE: usize = 7;
const AFTER: usize = 1;
/// Class, weight and body size come before the flags of the properties.
const FLAGS_AT: usize = BEFORE + 12;

/// How the properties of a message are written, in the order of their flags from bit 15 downwards.
const PROPERTIES: [Property; 14] = {
    use Property::{Fixed, Headers, Text};
    [Text, Text, Headers, Fixed(1), Fixed(1), Text, Text, Text, Text, Fixed(8), Text, Text, Text, Text]
};
const HEADERS_FLAG: u16 = 1 << 13;

#[derive(Clone, Copy)]
enum Property {
    Text,
    Headers,
    Fixed(usize),
}

/// Repairs the complete frames at the beginning of `buffer` and returns how many bytes they are.
fn repair(buffer: &mut Vec<u8>) -> io::Result<usize> {
    const METHOD_TO_HEARTBEAT: std::ops::RangeInclusive<u8> = 1..=8;
    const HEADER: u8 = 2;
    let mut at = 0;
    while let Some(before) = buffer.get(at..at + BEFORE) {
        if !METHOD_TO_HEARTBEAT.contains(&before[0]) {
            // No frame: the broker speaks another version. The library says so.
            return Ok(buffer.len());
        }
        let size = number(&before[3..]);
        if size > FRAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {size} bytes")));
        }
        let end = at + BEFORE + size + AFTER;
        if buffer.len() < end {
            break;
        }
        let removed = if before[0] == HEADER { repair_header(buffer, at, end - AFTER) } else { 0 };
        at = end - removed;
    }
    Ok(at)
}

/// Repairs the message header in `buffer[frame..end]`; returns by how many bytes it is shorter now. What is not
/// written as the protocol demands is left to the library.
fn repair_header(buffer: &mut Vec<u8>, frame: usize, end: usize) -> usize {
    let mut at = frame + FLAGS_AT;
    let Some(&[high, low]) = buffer[..end].get(at..at + 2) else { return 0 };
    let flags = u16::from_be_bytes([high, low]);
    at += 2;
    let mut unreadable = None;
    for (bit, property) in (0..16).rev().zip(PROPERTIES) {
        if flags & (1 << bit) == 0 {
            continue;
        }
        let length = match property {
            Property::Fixed(length) => length,
            Property::Text => 1 + buffer.get(at).copied().map_or(0, usize::from),
            Property::Headers => 4 + buffer.get(at..at + 4).map_or(0, number),
        };
        let Some(value) = buffer[..end].get_mut(at..at + length) else { return 0 };
        match property {
            Property::Text if std::str::from_utf8(&value[1..]).is_err() => value[1..].fill(SUBSTITUTE as u8),
            Property::Headers if table(&value[4..], DEPTH_MAX).is_none() => {
                unreadable = Some(at..at + length)
            }
            Property::Text | Property::Headers | Property::Fixed(_) => {}
        }
        at += length;
    }
    let Some(headers) = unreadable else { return 0 };
    let removed = headers.len();
    tracing::warn!(bytes = removed, "headers of a message cannot be read: left out");
    buffer.drain(headers);
    let flags_at = frame + FLAGS_AT;
    buffer[flags_at..flags_at + 2].copy_from_slice(&(flags & !HEADERS_FLAG).to_be_bytes());
    let size = u32::try_from(end - frame - BEFORE - removed).unwrap_or_default();
    buffer[frame + 3..frame + BEFORE].copy_from_slice(&size.to_be_bytes());
    removed
}

/// The first four bytes as a number.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// `Some` when these bytes are a table that the library can read.
fn table(mut rest: &[u8], depth: usize) -> Option<()> {
    while let Some((length, after)) = rest.split_first() {
        let (name, after) = after.split_at_checked(usize::from(*length))?;
        std::str::from_utf8(name).ok()?;
        rest = value(after, depth)?;
    }
    Some(())
}

fn array(mut rest: &[u8], depth: usize) -> Option<()> {
    while !rest.is_empty() {
        rest = value(rest, depth)?;
    }
    Some(())
}

/// What follows the value at the beginning of these bytes.
fn value(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    let (kind, after) = bytes.split_first()?;
    let fixed = match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'L' | b'l' | b'd' | b'T' => 8,
        b'S' | b'x' | b'F' | b'A' => {
            let (length, after) = after.split_at_checked(4)?;
            let (content, after) = after.split_at_checked(number(length))?;
            match kind {
                b'F' => table(content, depth.checked_sub(1)?)?,
                b'A' => array(content, depth.checked_sub(1)?)?,
                _ => {}
            }
            return Some(after);
        }
        _ => return None,
    };
    after.get(fixed..)
}

type Plain = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// A connection to the broker whose incoming frames are repaired.
pub(crate) struct Repaired {
    stream: Plain,
    buffer: Vec<u8>,
    /// Bytes at the beginning of the buffer that the library may have.
    readable: usize,
}

impl Repaired {
    /// What comes over `stream`, repaired.
    pub(crate) fn new(stream: Plain) -> Self {
        Self { stream, buffer: Vec::new(), readable: 0 }
    }
}

impl AsyncRead for Repaired {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        while this.readable == 0 {
            let filled = this.buffer.len();
            this.buffer.resize(filled + CHUNK, 0);
            let read = Pin::new(&mut this.stream).poll_read(context, &mut this.buffer[filled..]);
            let count = if let Poll::Ready(Ok(count)) = &read { *count } else { 0 };
            this.buffer.truncate(filled + count);
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(0));
            }
            this.readable = repair(&mut this.buffer)?;
        }
        let count = this.readable.min(target.len());
        target[..count].copy_from_slice(&this.buffer[..count]);
        this.buffer.drain(..count);
        this.readable -= count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Repaired {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// Tokio, with streams that repair.
#[derive(Clone, Debug)]
pub(crate) struct Repairing(Tokio);

/// The runtime of the client library: everything is tokio's but the type of its streams.
pub(crate) fn runtime() -> Runtime<RuntimeParts<Tokio, Repairing>> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Repairing(Tokio::current())))
}

impl Reactor for Repairing {
    type TcpStream = Repaired;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Repaired::new(AsyncTcpStream::Plain(connecting.await?))) }
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::basic::parse_properties;

    use super::*;

    const CORRELATION_ID: u16 = 1 << 10;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[0xce]].concat()
    }

    fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
        frame(2, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4], &flags.to_be_bytes()[..], properties].concat())
    }

    /// A table with one entry.
    fn entry(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        let content = [&[length], name, &[kind], value].concat();
        [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], &content].concat()
    }

    /// Whether the library can read the properties of this header.
    fn library_reads(header: &[u8]) -> bool {
        let properties = &header[FLAGS_AT..header.len() - AFTER];
        parse_properties(properties).is_ok_and(|(rest, _)| rest.is_empty())
    }

    fn repaired(mut bytes: Vec<u8>) -> (usize, Vec<u8>) {
        let readable = repair(&mut bytes).unwrap();
        (readable, bytes)
    }

    #[test]
    fn what_is_readable_stays_as_it_is() {
        let deep = (0..DEPTH_MAX).fold(entry(b"a", b'V', b""), |inner, _| entry(b"a", b'F', &inner));
        let text = entry("ä".as_bytes(), b'S', &[0, 0, 0, 2, 0xff, 0xfe]);
        for headers in [vec![0; 4], deep, text, entry(b"a", b'A', &[0, 0, 0, 3, b't', 1, b'V'])] {
            let properties = [&headers[..], &[2, b'i', b'd']].concat();
            let bytes = [frame(1, b"method"), header(HEADERS_FLAG | CORRELATION_ID, &properties)].concat();
            assert_eq!(repaired(bytes.clone()), (bytes.len(), bytes));
        }
    }

    #[test]
    fn a_string_that_is_not_utf_8_is_substituted_and_all_around_it_is_kept() {
        let broken = header(CORRELATION_ID | 1 << 7, &[2, b'a', 0xff, 1, b'm']);
        assert!(!library_reads(&broken), "then there is nothing left to repair");
        let (readable, bytes) = repaired(broken);
        assert!(library_reads(&bytes));
        assert_eq!(bytes, header(CORRELATION_ID | 1 << 7, &[2, 0x1a, 0x1a, 1, b'm']));
        assert_eq!(readable, bytes.len());
    }

    #[test]
    fn headers_that_the_library_cannot_read_are_left_out() {
        let deep = (0..=DEPTH_MAX).fold(entry(b"a", b'V', b""), |inner, _| entry(b"a", b'F', &inner));
        let bad = [deep, entry(&[0xff], b'V', b""), entry(b"a", b'?', b""), entry(b"a", b'S', &[0, 0, 0, 9])];
        for headers in bad {
            let properties = [&headers[..], &[2, b'i', b'd']].concat();
            let next = frame(3, b"body");
            let bytes = [header(HEADERS_FLAG | CORRELATION_ID, &properties), next.clone()].concat();
            let expected = [header(CORRELATION_ID, &[2, b'i', b'd']), next].concat();
            assert_eq!(repaired(bytes), (expected.len(), expected));
        }
    }

    #[test]
    fn an_incomplete_frame_waits_for_the_rest() {
        let whole = header(CORRELATION_ID, &[1, 0xff]);
        for length in 0..whole.len() {
            assert_eq!(repaired(whole[..length].to_vec()), (0, whole[..length].to_vec()));
        }
        let (first, second) = (frame(8, b""), &whole[..9]);
        assert_eq!(repaired([&first, second].concat()).0, first.len());
    }

    #[test]
    fn whatever_bytes_the_strings_hold_the_library_can_read_them_afterwards() {
        let seed = u64::from(uuid::Uuid::new_v4().as_fields().0) | 1;
        eprintln!("seed {seed}");
        let mut random = Xorshift(seed);
        for _ in 0..5_000 {
            let flags = u16::from_be_bytes([random.byte(), random.byte() & 0xfc]);
            let mut properties = Vec::new();
            for (bit, property) in (0..16).rev().zip(PROPERTIES) {
                if flags & (1 << bit) == 0 {
                    continue;
                }
                let length = match property {
                    Property::Fixed(length) => length,
                    Property::Text => usize::from(random.byte() % 6),
                    Property::Headers => {
                        let name = random.bytes(3);
                        properties.extend(entry(&name, b'b', &[0]));
                        continue;
                    }
                };
                if matches!(property, Property::Text) {
                    properties.push(u8::try_from(length).unwrap());
                }
                properties.extend(random.bytes(length));
            }
            let (readable, after) = repaired(header(flags, &properties));
            assert!(readable == after.len() && library_reads(&after), "{flags:x} {properties:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_fail_or_grow() {
        let seed = u64::from(uuid::Uuid::new_v4().as_fields().0) | 1;
        eprintln!("seed {seed}");
        let mut random = Xorshift(seed);
        for _ in 0..5_000 {
            let length = usize::from(random.byte() % 60);
            let payload: Vec<u8> = random.bytes(length).iter().map(|byte| byte % 7).collect();
            let bytes = frame(2, &payload);
            let (readable, after) = repaired(bytes.clone());
            assert!(readable == after.len() && after.len() <= bytes.len(), "{bytes:?}");
        }
    }

    struct Xorshift(u64);

    impl Xorshift {
        fn byte(&mut self) -> u8 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_be_bytes()[3]
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            (0..count).map(|_| self.byte()).collect()
        }
    }
}
