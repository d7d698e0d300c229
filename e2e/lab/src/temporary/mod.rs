//! Throw-away real servers for tests: PostgreSQL 17 and RabbitMQ 4 out of the lab's root folder.
//!
//! Each server lives in mount and PID namespaces of its own, with its data in memory, and ends with the
//! value that stands for it, or with the test process however that ends. Nothing is left behind.
//! Servers listen on free ports of 127.0.0.1. Needs root, as the lab does.

mod contained;
mod postgres;
mod rabbitmq;

pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context as _;

/// `count` different TCP ports of 127.0.0.1 that are free now. Another process may take one before it is
/// used, so whoever starts a server on one tries again with others.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // All are held until the last is known, or the same one could be handed out twice.
    let held = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()
        .context("no free TCP port on 127.0.0.1")?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The root folder that holds the servers' programs; made at the first call on a machine.
async fn rootfs() -> anyhow::Result<String> {
    let folder = tokio::task::spawn_blocking(crate::rootfs::ensure).await??;
    Ok(folder.display().to_string())
}
