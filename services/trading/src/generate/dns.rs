//! One question to one DNS server: the address of a name.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

/// Largest answer that is read; ours have one record.
const ANSWER_MAX: usize = 1232;

/// Asks for the IPv4 address of a name over UDP. The caller bounds the time.
///
/// # Errors
/// The question could not be sent, or the answer holds no address.
pub(super) async fn query(server: SocketAddr, host: &str) -> std::io::Result<Ipv4Addr> {
    let mut name = Name::from_str(host).map_err(std::io::Error::other)?;
    name.set_fqdn(true);
    let mut question = Message::query();
    question.add_query(Query::query(name, RecordType::A));
    question.metadata.recursion_desired = true;
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec().map_err(std::io::Error::other)?).await?;
    let mut buffer = [0; ANSWER_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(&buffer[..length]).map_err(std::io::Error::other)?;
        // An answer to somebody else's question is not ours.
        if answer.metadata.id == question.metadata.id {
            return address(&answer).ok_or_else(|| std::io::Error::other(format!("{host} has no address")));
        }
    }
}

fn address(answer: &Message) -> Option<Ipv4Addr> {
    answer.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    })
}
