//! Messages with a header, as customers who trace send them, and answers with theirs.

use std::collections::BTreeMap;

use futures::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::timeout;
use trading::message::Response;
use trading::names;

use super::{PATIENCE, World, connected};

/// Publishes a customer's message with the header `traceparent`.
pub async fn publish_traced(world: &World, (id, body): &(String, String), traceparent: AMQPValue) {
    let connection = connected(&world.name, "traced").await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), traceparent);
    let properties = BasicProperties::default().with_correlation_id(id.as_str().into()).with_headers(headers);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish(names::IN.into(), "".into(), options, body.as_bytes(), properties).await;
    let confirmed = sent.unwrap().await.unwrap();
    assert!(matches!(confirmed, lapin::Confirmation::Ack(None)), "{confirmed:?}");
    connection.close(200, "".into()).await.unwrap();
}

/// A header as client libraries write text.
pub fn text(traceparent: &str) -> AMQPValue {
    AMQPValue::LongString(traceparent.into())
}

/// The header of the answer with this id and status, once there are so many answers. None must differ from its repeats.
pub async fn answered(world: &World, count: usize) -> BTreeMap<(String, String), Option<String>> {
    let connection = connected(&world.name, "answers").await;
    let channel = connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(names::OUT.into(), "".into(), options, FieldTable::default()).await.unwrap();
    let mut answers = BTreeMap::new();
    while answers.len() < count {
        let next = timeout(PATIENCE, consumer.next()).await;
        let delivery = next.unwrap_or_else(|_| panic!("only {answers:?}")).unwrap().unwrap();
        let response: Response = serde_json::from_slice(&delivery.data).unwrap();
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let header = headers.inner().get("traceparent").map(|value| match value {
            AMQPValue::LongString(text) => text.to_string(),
            other => panic!("{other:?}"),
        });
        let key = (response.id, response.status);
        let before = answers.insert(key, header.clone());
        assert!(before.is_none_or(|before| before == header), "a repeat with another trace: {answers:?}");
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
    answers
}
