//! Whatever fails on the way, the readings of a device arrive in their order, each once.

use std::collections::HashMap;

use axum::{http::StatusCode, response::IntoResponse};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;

use crate::{
    gateway::{Gateway, reading},
    receiver::{TestReceiver, acknowledge, refusal},
};

const DEVICES: usize = 7;
const READINGS: usize = 150;

#[tokio::test]
async fn order_of_each_device_is_kept_through_every_failure() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let receiver = TestReceiver::ruled(move |items| match random.random_range(0..8) {
            0 => Some(StatusCode::OK.into_response()),
            1 => Some(refusal(503, "overloaded")(items)),
            2 if items.len() > 20 => Some(refusal(413, "body_too_large")(items)),
            _ => None,
        })
        .await;
        let mut random = StdRng::seed_from_u64(seed + 50);
        receiver.log().afterthought = Some(Box::new(move |ids| match random.random_range(0..8) {
            0 => Some(StatusCode::BAD_GATEWAY.into_response()),
            1 => Some(acknowledge(&ids[..ids.len().div_ceil(2)])),
            2 => Some(acknowledge(&ids[ids.len() / 2..])),
            _ => None,
        }));
        let gateway = Gateway::new().await;
        let mut forwarding = gateway.forward(&receiver.url());
        let mut draw = StdRng::seed_from_u64(seed + 100);
        let mut counts = [0; DEVICES];
        for _ in 0..DEVICES * READINGS / 30 {
            let list = (0..30).map(|_| {
                // Some measure far more often than others.
                let device = draw.random_range(0..DEVICES * DEVICES).isqrt();
                counts[device] += 1;
                reading(&format!("d{device}"), format!("[{device}, {}]", counts[device]))
            });
            gateway.put(list.collect()).await;
        }
        let status = forwarding.until_accepted((DEVICES * READINGS) as u64).await;
        assert_eq!(status.refused, 0, "seed {seed}");
        gateway.until_waiting(0).await;
        let mut arrived = HashMap::<u64, u64>::new();
        for text in &receiver.log().taken {
            let pair: Value = serde_json::from_str(text).unwrap();
            let last = arrived.entry(pair[0].as_u64().unwrap()).or_default();
            assert_eq!(pair[1].as_u64(), Some(*last + 1), "seed {seed}");
            *last += 1;
        }
        assert_eq!(arrived.values().sum::<u64>(), (DEVICES * READINGS) as u64);
    }
}
