//! What every service of the data plane shares: the gate, the broker, the database, the stage rule and the
//! process around them. Nothing in here knows of trades.

pub mod amqp;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod gate;
pub mod health;
mod link;
pub mod metrics;
pub mod postgres;
pub mod shutdown;
pub mod stage;
pub mod telemetry;
pub mod trace;
pub mod wire;
