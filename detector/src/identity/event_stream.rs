//! The stream of containerd's events.
//!
//! containerd answers a subscription with the first event, not before: on a node where nothing happens, whoever waited for
//! the answer would wait for ever.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use containerd_client::types::Envelope;
use tonic::{Response, Status, Streaming};

type Answer = Result<Response<Streaming<Envelope>>, Status>;

/// Events, from the moment of the subscription.
pub(super) enum EventStream {
    /// The subscription is on its way; containerd has had no event since.
    Subscribing(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// There was one.
    Open(Box<Streaming<Envelope>>),
}

impl EventStream {
    /// Sends the subscription ahead of whatever is asked next over the same connection, and does not wait for its answer.
    pub(super) async fn begin(subscription: impl Future<Output = Answer> + Send + 'static) -> Result<Self, Status> {
        let mut subscription: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(subscription);
        // Polled once, it is on its way.
        match poll_fn(|context| Poll::Ready(subscription.as_mut().poll(context))).await {
            Poll::Ready(answer) => Ok(Self::Open(Box::new(answer?.into_inner()))),
            Poll::Pending => Ok(Self::Subscribing(subscription)),
        }
    }

    /// The next event; none at the end of the stream. Cancel-safe.
    pub(super) async fn message(&mut self) -> Result<Option<Envelope>, Status> {
        loop {
            match self {
                Self::Subscribing(subscription) => {
                    let opened = subscription.await?.into_inner();
                    *self = Self::Open(Box::new(opened));
                }
                Self::Open(events) => return events.message().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_subscription_without_an_answer_holds_nothing_up() {
        let mut events = EventStream::begin(std::future::pending()).await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(60), events.message()).await;
        assert!(waited.is_err(), "no event, and no failure either");
    }

    #[tokio::test]
    async fn a_subscription_that_is_refused_is_told() {
        let refused = EventStream::begin(async { Err(Status::unimplemented("no such service")) }).await;
        assert!(refused.is_err());
    }
}
