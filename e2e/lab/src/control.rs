//! Speaks to the control port of the AWS simulator.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::address::port;
use crate::error::{Error, Result};
use crate::layout::Lab;
use crate::region::Place;

const BOUND: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes: a full call log.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Sends one request, for instance `("GET", "/calls", "")`, and gives the answer's body.
///
/// # Errors
/// When the simulator does not answer or refuses.
pub fn request(lab: &Lab, method: &str, path: &str, body: &str) -> Result<String> {
    let address = SocketAddr::from((lab.plan.address(Place::AWS), port::AWS_CONTROL));
    let failed = || Error::file("ask the AWS simulator's control port", Path::new(path));
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, BOUND)?;
        stream.set_read_timeout(Some(BOUND))?;
        stream.set_write_timeout(Some(BOUND))?;
        // HTTP/1.0: the server closes when it has answered.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(failed())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    let status = head.lines().next().unwrap_or("no answer");
    if status.split_whitespace().nth(1).is_some_and(|code| code.starts_with('2')) {
        return Ok(body.to_owned());
    }
    Err(Error::Request(format!("the AWS simulator refused {method} {path}: {status}: {}", body.trim())))
}
