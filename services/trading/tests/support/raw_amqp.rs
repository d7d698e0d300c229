//! As much of AMQP by hand as it takes to publish bytes that no client library would send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;

/// Publishes one message, and returns once the broker has taken it.
pub(super) async fn publish(
    port: u16,
    vhost: &str,
    exchange: &str,
    (flags, properties): (u16, &[u8]),
    body: &[u8],
) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    expect(&mut stream, (10, 10)).await;
    let start_ok = [&[0; 4], &short("PLAIN")[..], &long("\0guest\0guest"), &short("en_US")].concat();
    method(&mut stream, 0, (10, 11), &start_ok).await;
    expect(&mut stream, (10, 30)).await;
    // One channel, frames of 128 KiB, no heartbeats.
    method(&mut stream, 0, (10, 31), &[0, 1, 0, 2, 0, 0, 0, 0]).await;
    method(&mut stream, 0, (10, 40), &[&short(vhost)[..], &[0, 0]].concat()).await;
    expect(&mut stream, (10, 41)).await;
    method(&mut stream, 1, (20, 10), &[0]).await;
    expect(&mut stream, (20, 11)).await;
    method(&mut stream, 1, (60, 40), &[&[0, 0], &short(exchange)[..], &short(""), &[0]].concat()).await;
    let header =
        [&[0, 60, 0, 0], &(body.len() as u64).to_be_bytes()[..], &flags.to_be_bytes(), properties].concat();
    frame(&mut stream, HEADER, 1, &header).await;
    frame(&mut stream, BODY, 1, body).await;
    // The broker does things in order: once it has closed the channel, the message is in the queue.
    method(&mut stream, 1, (20, 40), &[0; 7]).await;
    expect(&mut stream, (20, 41)).await;
}

async fn method(stream: &mut TcpStream, channel: u16, (class, id): (u16, u16), arguments: &[u8]) {
    let payload = [&class.to_be_bytes(), &id.to_be_bytes(), arguments].concat();
    frame(stream, METHOD, channel, &payload).await;
}

async fn frame(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let size = u32::try_from(payload.len()).unwrap();
    let bytes = [&[kind], &channel.to_be_bytes()[..], &size.to_be_bytes(), payload, &[FRAME_END]].concat();
    stream.write_all(&bytes).await.unwrap();
}

/// Reads one frame, which must be this method.
async fn expect(stream: &mut TcpStream, (class, id): (u16, u16)) {
    let mut before = [0; 7];
    stream.read_exact(&mut before).await.unwrap();
    let size = u32::from_be_bytes([before[3], before[4], before[5], before[6]]) as usize;
    let mut payload = vec![0; size + 1];
    stream.read_exact(&mut payload).await.unwrap();
    let wanted = [class.to_be_bytes(), id.to_be_bytes()].concat();
    assert!(payload.starts_with(&wanted), "expected {class}.{id}: {}", String::from_utf8_lossy(&payload));
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn long(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}
