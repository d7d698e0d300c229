//! What a test breaks is put back however the test ends.

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// Puts one thing back: by [`Undo::now`], or when it is dropped.
#[must_use = "what is dropped at once is put back at once"]
pub struct Undo {
    what: String,
    act: Option<BoxFuture<'static, Result<()>>>,
}

impl Undo {
    /// `act` puts `what` back.
    pub fn new(what: impl Into<String>, act: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self { what: what.into(), act: Some(Box::pin(act)) }
    }

    /// Puts it back now and tells whether that went well.
    pub async fn now(mut self) -> Result<()> {
        match self.act.take() {
            Some(act) => act.await.with_context(|| format!("putting back {}", self.what)),
            None => Ok(()),
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(act) = self.act.take() else { return };
        if let Err(error) = block_in_place(|| Handle::current().block_on(act)) {
            eprintln!("{} could not be put back: {error:#}", self.what);
        }
    }
}
