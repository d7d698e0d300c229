//! The address under which a server is reached, as an endpoint of RDS or Amazon MQ: it can lead elsewhere, end what is
//! connected, or let nothing pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::Struck;

/// Bytes that one direction holds at most.
const BUFFER: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
struct Way {
    server: SocketAddr,
    /// Connections of an earlier one are ended.
    generation: u64,
    silent: bool,
}

pub(crate) struct Gateway {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    accepting: AbortHandle,
}

impl Gateway {
    pub(crate) async fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = local(port);
        let way = Arc::new(watch::Sender::new(Way { server, generation: 0, silent: false }));
        let ways = way.clone();
        let accepting = tokio::spawn(async move {
            loop {
                // Out of files at worst: the next one may go well.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(connection(client, ways.subscribe()));
            }
        });
        Ok(Self { address, way, accepting: accepting.abort_handle() })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) -> Struck {
        self.way.send_modify(|way| way.generation += 1);
        Ok(())
    }

    /// Ends all connections; new ones lead to another server.
    pub(crate) fn lead_to(&self, port: u16) {
        self.way.send_modify(|way| {
            way.generation += 1;
            way.server = local(port);
        });
    }

    /// Lets nothing pass for so long, in neither direction; what was held passes then.
    pub(crate) async fn silent(&self, lasts: Duration) -> Struck {
        let begun = self.way.send_if_modified(|way| !std::mem::replace(&mut way.silent, true));
        if !begun {
            return Err("it is silent already");
        }
        sleep(lasts).await;
        self.way.send_modify(|way| way.silent = false);
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = self.cut();
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn connection(client: TcpStream, mut way: watch::Receiver<Way>) {
    let Way { server, generation, .. } = *way.borrow_and_update();
    let passing = way.clone();
    let through = async {
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::join!(pass(from_client, to_server, passing.clone()), pass(from_server, to_client, passing));
    };
    let ended = async {
        let _ = way.wait_for(|way| way.generation != generation).await;
    };
    tokio::select! {
        () = through => {}
        () = ended => {}
    }
}

/// Passes bytes on until one side ends.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let gone = way.wait_for(|way| !way.silent).await.is_err();
        if gone || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
