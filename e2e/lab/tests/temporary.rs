//! Throw-away servers start, are reached, survive a crash with their data, and end without a trace.

use std::net::TcpStream;

use lab::temporary::{Postgres, RabbitMq};

#[tokio::test]
async fn a_standby_streams_from_its_primary_and_both_vanish_when_dropped() {
    let primary = Postgres::start().await.unwrap();
    let standby = Postgres::standby(&primary).await.unwrap();
    for server in [&primary, &standby] {
        TcpStream::connect((server.host(), server.port())).unwrap();
    }

    primary.restart().await.unwrap();
    TcpStream::connect((primary.host(), primary.port())).unwrap();
    primary.restart_fast().await.unwrap();
    TcpStream::connect((primary.host(), primary.port())).unwrap();

    let ports = [primary.port(), standby.port()];
    drop((primary, standby));
    for port in ports {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "port {port} still answers");
    }
}

#[tokio::test]
async fn two_brokers_run_beside_each_other_start_again_where_they_were_and_vanish_when_dropped() {
    let (one, two) = tokio::join!(RabbitMq::start(), RabbitMq::start());
    let (one, two) = (one.unwrap(), two.unwrap());
    let ports = [one.amqp_port(), two.amqp_port()];
    for port in ports {
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    let (restarted, crashed) = tokio::join!(one.restart(), two.crash());
    restarted.unwrap();
    crashed.unwrap();
    for port in ports {
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    drop((one, two));
    for port in ports {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "port {port} still answers");
    }
}
