//! The channels of one subscription.

use std::time::Duration;

use lapin::Channel;
use tokio::time::timeout;

use crate::amqp::{self, Publisher};

/// Longest wait for the broker to close them.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A channel to take from, and one to publish on.
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) publisher: Publisher,
}

impl Link {
    /// Resolves when one of the channels is no longer open.
    pub(crate) async fn lost(&self) {
        tokio::select! {
            () = amqp::lost(&self.channel) => {}
            () = self.publisher.lost() => {}
        }
    }

    /// Dead or alive, the channels are done with; closing them is what gives messages back.
    pub(crate) async fn close(self) {
        let closing = async { (self.channel.close(200, "".into()).await, self.publisher.close().await) };
        let _ = timeout(CLOSE_DEADLINE, closing).await;
    }
}
