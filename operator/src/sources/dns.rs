//! One question by UDP to a given DNS server, or to the system's resolver: which addresses does a name have?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::net::{UdpSocket, lookup_host};

use crate::deadline::within;

/// Longest UDP answer.
const MOST_BYTES: usize = 4096;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// `host:port`; `None` asks the system.
    server: Option<String>,
    deadline: Duration,
}

impl Resolver {
    /// Asks `server` (`host:port`), or the system's resolver without one.
    pub fn new(server: Option<String>, deadline: Duration) -> Self {
        Self { server, deadline }
    }

    /// The IPv4 addresses of a name. A name that does not exist has none.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let who = self
            .server
            .as_deref()
            .map_or("the system's resolver".to_owned(), |server| format!("DNS server {server}"));
        let asked = async {
            match &self.server {
                Some(server) => ask(server, name).await,
                None => system(name).await,
            }
        };
        match within(self.deadline, &who, asked).await {
            Ok(answer) => answer.map_err(|why| format!("{who} about {name}: {why}")),
            Err(late) => Err(late.to_string()),
        }
    }
}

async fn system(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = lookup_host((name, 0)).await.map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).filter(IpAddr::is_ipv4).collect())
}

async fn ask(server: &str, name: &str) -> Result<Vec<IpAddr>, String> {
    let server: SocketAddr = lookup_host(server)
        .await
        .map_err(|error| error.to_string())?
        .next()
        .ok_or_else(|| "the server's name has no address".to_owned())?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(|error| error.to_string())?;
    // A connected socket takes answers from that server only.
    socket.connect(server).await.map_err(|error| error.to_string())?;
    let id = question_id();
    let question = question(id, name)?;
    socket.send(&question).await.map_err(|error| error.to_string())?;
    let mut buffer = vec![0; MOST_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| error.to_string())?;
        if let Some(answer) = read_answer(id, &buffer[..length])? {
            return Ok(answer);
        }
    }
}

fn question_id() -> u16 {
    let random = uuid::Uuid::new_v4();
    u16::from_be_bytes([random.as_bytes()[0], random.as_bytes()[1]])
}

fn question(id: u16, name: &str) -> Result<Vec<u8>, String> {
    let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
    name.set_fqdn(true);
    let mut query = Query::query(name, RecordType::A);
    query.set_query_class(DNSClass::IN);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query);
    message.to_vec().map_err(|error| error.to_string())
}

/// `None`: an answer to another question.
fn read_answer(id: u16, bytes: &[u8]) -> Result<Option<Vec<IpAddr>>, String> {
    let message = Message::from_vec(bytes).map_err(|error| error.to_string())?;
    if message.metadata.id != id || message.metadata.message_type != MessageType::Response {
        return Ok(None);
    }
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Ok(Some(Vec::new())),
        other => return Err(format!("it answered {other}")),
    }
    let addresses = message.answers.iter().filter_map(|record| match record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    });
    Ok(Some(addresses.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_question_is_passed_over() {
        let asked = question(7, "mq.example.com").unwrap();
        let mut message = Message::from_vec(&asked).unwrap();
        assert_eq!(read_answer(7, &asked).unwrap(), None, "a question is no answer");
        message.metadata.message_type = MessageType::Response;
        let answer = message.to_vec().unwrap();
        assert_eq!(read_answer(8, &answer).unwrap(), None);
        assert_eq!(read_answer(7, &answer).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn a_failing_server_is_not_a_name_without_addresses() {
        let mut message = Message::from_vec(&question(7, "mq.example.com").unwrap()).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code = ResponseCode::ServFail;
        assert!(read_answer(7, &message.to_vec().unwrap()).is_err());
    }
}
