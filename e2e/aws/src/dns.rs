//! Route 53: answers names from the state of controls and clusters, over UDP and TCP.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, SOA};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use crate::clock;
use crate::config::{Config, ControlState, FailoverName, FailoverTarget};
use crate::faults::DnsMode;
use crate::world::{Inner, World};

/// A TCP client that is silent for so long is cut off.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Answers that wait for a TCP client to read them.
const TCP_ANSWERS: usize = 32;

/// Starts the server; it stops when the result is shut down or dropped.
pub(crate) fn serve((udp, tcp): (UdpSocket, TcpListener), world: &Arc<World>) -> Server<Handler> {
    let mut server = Server::new(Handler { world: Arc::clone(world) });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS);
    server
}

/// What the zone says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// An address and its TTL in seconds.
    Address(Ipv4Addr, u32),
    /// The zone has no such name.
    NoName,
    /// Not in the zone.
    Foreign,
}

/// Looks a name up. `name` is lower-case without a final dot.
pub(crate) fn lookup(config: &Config, state: &Inner, name: &str, now: Instant) -> Found {
    let dns = &config.dns;
    let is = |candidate: &str| candidate.trim_end_matches('.').eq_ignore_ascii_case(name);
    if let Some((_, address)) = dns.static_names.iter().find(|(candidate, _)| is(candidate)) {
        return Found::Address(*address, dns.ttl_seconds);
    }
    if let Some(failover) = dns.failover_names.iter().find(|candidate| is(&candidate.name)) {
        let ttl = failover.ttl_seconds.unwrap_or(dns.ttl_seconds);
        return Found::Address(failover_answer(failover, state, now).address, ttl);
    }
    if let Some(cluster) = state.clusters.iter().find(|cluster| is(&cluster.config.writer_endpoint)) {
        let ttl = cluster.config.ttl_seconds.unwrap_or(dns.ttl_seconds);
        if let std::net::IpAddr::V4(address) = cluster.endpoint_target(now).address.ip() {
            return Found::Address(address, ttl);
        }
    }
    let zone = dns.zone.trim_end_matches('.').to_ascii_lowercase();
    if name == zone || name.ends_with(&format!(".{zone}")) { Found::NoName } else { Found::Foreign }
}

fn failover_answer<'f>(failover: &'f FailoverName, state: &Inner, now: Instant) -> &'f FailoverTarget {
    // The health checks are the register's last observer, after the endpoints.
    let health_checks = state.throttles.len();
    let healthy = |target: &FailoverTarget| {
        let control = state.register.find(&target.control);
        control.is_some_and(|index| state.register.seen(index, health_checks, now) == ControlState::On)
    };
    if !healthy(&failover.primary) && healthy(&failover.secondary) {
        &failover.secondary
    } else {
        &failover.primary
    }
}

/// Answers queries from the shared state.
pub(crate) struct Handler {
    world: Arc<World>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut reply: R,
    ) -> ResponseInfo {
        let mode = self.world.faults.borrow().dns;
        let (code, answers, authority) = match mode {
            DnsMode::Ok => self.answer(request),
            DnsMode::Servfail => (ResponseCode::ServFail, Vec::new(), Vec::new()),
            DnsMode::Hung => return without_answer(request),
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.authoritative = code != ResponseCode::Refused;
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answers,
            &[],
            &authority,
            &[],
        );
        match reply.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "DNS answer not sent");
                without_answer(request)
            }
        }
    }
}

impl Handler {
    fn answer(&self, request: &Request) -> (ResponseCode, Vec<Record>, Vec<Record>) {
        let failed = |code| (code, Vec::new(), Vec::new());
        if request.metadata.op_code != OpCode::Query {
            return failed(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return failed(ResponseCode::FormErr) };
        let query = info.query;
        if query.query_class() != DNSClass::IN {
            return failed(ResponseCode::Refused);
        }
        let name = query.name().to_string();
        let name = name.trim_end_matches('.');
        let found = lookup(&self.world.config, &self.world.lock(), name, clock::now().instant);
        let wants_address = matches!(query.query_type(), RecordType::A | RecordType::ANY);
        match found {
            Found::Address(address, ttl) if wants_address => {
                let owner = query.original().name().clone();
                let record = Record::from_rdata(owner, ttl, RData::A(A(address)));
                (ResponseCode::NoError, vec![record], Vec::new())
            }
            Found::Address(_, ttl) => (ResponseCode::NoError, Vec::new(), self.authority(ttl)),
            Found::NoName => {
                (ResponseCode::NXDomain, Vec::new(), self.authority(self.world.config.dns.ttl_seconds))
            }
            Found::Foreign => failed(ResponseCode::Refused),
        }
    }

    /// The SOA that lets a resolver remember a negative answer for `ttl` seconds.
    fn authority(&self, ttl: u32) -> Vec<Record> {
        let Ok(zone) = Name::from_utf8(format!("{}.", self.world.config.dns.zone.trim_end_matches('.')))
        else {
            return Vec::new();
        };
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 7_200, 900, 1_209_600, ttl);
        vec![Record::from_rdata(zone, ttl, RData::SOA(soa))]
    }
}

fn without_answer(request: &Request) -> ResponseInfo {
    let metadata = Metadata::response_from_request(&request.metadata);
    ResponseInfo::from(hickory_server::proto::op::Header { metadata, counts: Default::default() })
}
