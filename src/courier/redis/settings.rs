//! What a server says of itself, and which of its settings cost a cluster messages.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{InfoDict, RedisResult, cmd};

use super::faults::told;
use crate::courier::engine::Description;
use crate::error::Result;

/// Bytes below which the server cuts a courier off that is behind for a moment: Redis's own
/// defaults (redis.conf, `client-output-buffer-limit pubsub 32mb 8mb 60`).
const HARD_BYTES_MIN: u64 = 32 * 1024 * 1024;
const SOFT_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Asks the server.
pub async fn describe(connection: &mut MultiplexedConnection) -> Result<Description> {
    let info: RedisResult<InfoDict> = cmd("INFO").arg("server").query_async(connection).await;
    let info = info.map_err(|error| told(&error))?;
    let field = |name: &str| info.get::<String>(name);
    let what = match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "an engine that does not say which it is".to_owned(),
    };
    let mut question = cmd("CONFIG");
    question.arg("GET").arg("client-output-buffer-limit");
    // A user that may not ask that is no reason for doubt.
    let limits: RedisResult<HashMap<String, String>> = question.query_async(connection).await;
    let limits = limits.ok().and_then(|pairs| pairs.into_values().next());
    let memory: RedisResult<InfoDict> = cmd("INFO").arg("memory").query_async(connection).await;
    let eviction = memory.ok().and_then(|memory| {
        eviction(memory.get("maxmemory")?, &memory.get::<String>("maxmemory_policy")?)
    });
    let doubts = limits.as_deref().and_then(doubt).into_iter().chain(eviction).collect();
    Ok(Description { what, doubts })
}

/// What is doubtful about how the server makes room.
fn eviction(maxmemory: u64, policy: &str) -> Option<String> {
    (maxmemory > 0 && policy != "noeviction").then(|| {
        format!(
            "maxmemory-policy is {policy}: an engine that is full may evict the lease of a node, \
             which the others then take for dead; write `maxmemory-policy noeviction` into its \
             configuration"
        )
    })
}

/// What is doubtful about the limits of output buffers, which are told as words: a class, its
/// limit, a limit for a while, and how long that is.
fn doubt(limits: &str) -> Option<String> {
    let words: Vec<&str> = limits.split_whitespace().collect();
    let of_pubsub = words.chunks(4).find(|words| words.first() == Some(&"pubsub"))?;
    let bytes = |place: usize| of_pubsub.get(place)?.parse::<u64>().ok();
    let (hard, soft) = (bytes(1)?, bytes(2)?);
    let is_low = |bytes: u64, least: u64| (1..least).contains(&bytes);
    (is_low(hard, HARD_BYTES_MIN) || is_low(soft, SOFT_BYTES_MIN)).then(|| {
        format!(
            "client-output-buffer-limit pubsub is {hard} {soft}: the engine cuts off a node that \
             is behind for a moment; write at least `pubsub 32mb 8mb 60` into its configuration"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_lower_than_the_defaults_are_doubted() {
        let limits = |pubsub: &str| format!("normal 0 0 0 slave 268435456 67108864 60 {pubsub}");
        for good in ["pubsub 33554432 8388608 60", "pubsub 0 0 0"] {
            assert_eq!(doubt(&limits(good)), None, "{good}");
        }
        assert!(doubt(&limits("pubsub 1048576 0 0")).unwrap().contains("1048576"));
        assert!(doubt(&limits("pubsub 0 4096 1")).is_some());
        assert_eq!(doubt("nonsense"), None);
    }

    #[test]
    fn an_engine_that_may_evict_a_lease_is_doubted() {
        assert_eq!(eviction(0, "allkeys-lru"), None, "without a limit nothing is evicted");
        assert_eq!(eviction(1 << 30, "noeviction"), None);
        assert!(eviction(1 << 30, "volatile-ttl").unwrap().contains("noeviction"));
    }
}
