//! Redis and Valkey as an engine: one connection for everything, with RESP3, so that what is
//! subscribed, published and leased has one order.
//!
//! - [`faults`]: what an operator is told when the server refuses.
//! - [`places`]: where the server is, also where Sentinels have to be asked.
//! - [`scripts`]: what the server does as one step.
//! - [`settings`]: what the server says of itself.

mod faults;
mod places;
mod scripts;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, Value, cmd,
};

use self::faults::told;
use super::engine::{Asked, Claimed, Description, Engine, Lease, Message, OWNER_BYTES, Session};
use super::inbox::Inbox;
use crate::config::EngineAddress;
use crate::error::Result;

/// For a connection to be made.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// For an answer to what was asked. An engine that is slower is away.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// A Redis or Valkey, or the Sentinels that know where it is.
pub struct RedisEngine {
    address: EngineAddress,
    password: Option<String>,
}

impl RedisEngine {
    /// The engine at an address.
    pub fn new(address: EngineAddress, password: Option<String>) -> RedisEngine {
        RedisEngine { address, password }
    }

    fn settings(&self) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            // One command less that a user has to be allowed.
            .set_skip_set_lib_name()
            .set_db(i64::from(self.address.database));
        if let Some(user) = &self.address.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        settings
    }

    async fn open(
        &self,
        place: ConnectionAddr,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection> {
        let info = place.into_connection_info().map_err(|error| told(&error))?;
        let client = Client::open(info.set_redis_settings(self.settings()));
        let client = client.map_err(|error| told(&error))?;
        let config = config
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(ANSWER_TIME));
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        connected.map_err(|error| told(&error))
    }

    async fn begin(&self, inbox: Arc<Inbox>) -> Result<RedisSession> {
        let place = places::find(&self.address.place).await?;
        let subscribed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&subscribed);
        let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
            on_push(push, &inbox, &count);
            Ok::<(), std::convert::Infallible>(())
        });
        let mut connection = self.open(place, config).await?;
        if !self.address.is_direct() {
            places::check_master(&mut connection).await?;
        }
        Ok(RedisSession { connection, subscribed })
    }
}

/// The server says something that nobody asked for just now.
fn on_push(push: PushInfo, inbox: &Inbox, subscribed: &AtomicU64) {
    let mut data = push.data;
    match (push.kind, data.pop()) {
        (PushKind::Message, Some(Value::BulkString(payload))) => inbox.put(payload),
        (PushKind::Subscribe | PushKind::Unsubscribe, Some(Value::Int(count))) => {
            subscribed.store(u64::try_from(count).unwrap_or_default(), Ordering::Relaxed);
        }
        _ => {}
    }
}

struct RedisSession {
    connection: MultiplexedConnection,
    /// Channels that the server says this connection has.
    subscribed: Arc<AtomicU64>,
}

impl Engine for RedisEngine {
    fn connect(&self, inbox: Arc<Inbox>) -> Asked<'_, Box<dyn Session>> {
        Box::pin(async move { Ok(Box::new(self.begin(inbox).await?) as Box<dyn Session>) })
    }
}

impl Session for RedisSession {
    fn publish<'a>(&'a mut self, messages: &'a [Message]) -> Asked<'a, Vec<u32>> {
        Box::pin(async move {
            let mut pipeline = Pipeline::with_capacity(messages.len());
            for message in messages {
                pipeline.cmd("PUBLISH").arg(&message.channel).arg(&message.payload[..]);
            }
            let counts = pipeline.query_async(&mut self.connection).await;
            counts.map_err(|error| told(&error))
        })
    }

    fn subscribe<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, Option<u64>> {
        Box::pin(async move {
            self.connection.subscribe(channels).await.map_err(|error| told(&error))?;
            Ok(Some(self.subscribed.load(Ordering::Relaxed)))
        })
    }

    fn unsubscribe<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, ()> {
        Box::pin(async move {
            self.connection.unsubscribe(channels).await.map_err(|error| told(&error))
        })
    }

    fn subscribers<'a>(&'a mut self, channels: &'a [String]) -> Asked<'a, Vec<u32>> {
        Box::pin(async move {
            let mut question = cmd("PUBSUB");
            question.arg("NUMSUB").arg(channels);
            let counts = question.query_async(&mut self.connection).await;
            // Each channel and its count, in the order of the question.
            let counts: Vec<(String, u32)> = counts.map_err(|error| told(&error))?;
            Ok(counts.into_iter().map(|(_, count)| count).collect())
        })
    }

    fn claim<'a>(&'a mut self, lease: &'a Lease, ttl: Duration) -> Asked<'a, Claimed> {
        Box::pin(async move {
            let claim = scripts::claim(lease, ttl);
            let claimed = claim.query_async(&mut self.connection).await;
            Ok(match claimed.map_err(|error| told(&error))? {
                Value::BulkString(record) => Claimed::Held(record),
                Value::Int(_) => Claimed::Kept,
                _ => Claimed::Taken,
            })
        })
    }

    fn release<'a>(&'a mut self, lease: &'a Lease) -> Asked<'a, ()> {
        Box::pin(async move {
            let release = scripts::release(lease);
            release.exec_async(&mut self.connection).await.map_err(|error| told(&error))
        })
    }

    fn raise<'a>(
        &'a mut self,
        key: &'a str,
        numbers: &'a [(u8, u64)],
    ) -> Asked<'a, Vec<(u8, u64)>> {
        Box::pin(async move {
            let raise = scripts::raise(key, numbers);
            raise.query_async(&mut self.connection).await.map_err(|error| told(&error))
        })
    }

    fn forget<'a>(&'a mut self, key: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            let forgotten = cmd("DEL").arg(key).exec_async(&mut self.connection).await;
            forgotten.map_err(|error| told(&error))
        })
    }

    fn describe(&mut self) -> Asked<'_, Description> {
        Box::pin(settings::describe(&mut self.connection))
    }

    fn holders<'a>(&'a mut self, keys: &'a [String]) -> Asked<'a, Vec<Option<Vec<u8>>>> {
        Box::pin(async move {
            let holders = scripts::holders(keys).query_async(&mut self.connection).await;
            let holders: Vec<Vec<u8>> = holders.map_err(|error| told(&error))?;
            let record = |held: Vec<u8>| {
                let record = held.get(OWNER_BYTES..).unwrap_or_default().to_vec();
                (!held.is_empty()).then_some(record)
            };
            Ok(holders.into_iter().map(record).collect())
        })
    }
}
