//! Where the server is: at its address, or where one of the Sentinels says that it is now.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisResult, Value, cmd};

use super::faults::{told, words};
use crate::config::EnginePlace;
use crate::error::{Error, Result};

/// For one Sentinel to answer.
const SENTINEL_TIME: Duration = Duration::from_millis(500);

/// Where to connect to now.
pub async fn find(place: &EnginePlace) -> Result<ConnectionAddr> {
    let (sentinels, service) = match place {
        EnginePlace::Tcp(host, port) => return Ok(ConnectionAddr::Tcp(host.clone(), *port)),
        EnginePlace::Unix(path) => return Ok(ConnectionAddr::Unix(path.clone())),
        EnginePlace::Sentinel { sentinels, service } => (sentinels, service),
    };
    let mut last = "no Sentinel is named".to_owned();
    for (host, port) in sentinels {
        match ask(ConnectionAddr::Tcp(host.clone(), *port), service).await {
            Ok(Some((host, port))) => return Ok(ConnectionAddr::Tcp(host, port)),
            Ok(None) => last = format!("the Sentinel {host}:{port} knows no service {service}"),
            Err(error) => last = format!("the Sentinel {host}:{port}: {}", words(&error)),
        }
    }
    Err(Error::new(last))
}

async fn ask(sentinel: ConnectionAddr, service: &str) -> RedisResult<Option<(String, u16)>> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SENTINEL_TIME))
        .set_response_timeout(Some(SENTINEL_TIME));
    let client = Client::open(sentinel)?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(service);
    question.query_async(&mut connection).await
}

/// A server that was the master may not know yet that it is no more.
pub async fn check_master(connection: &mut MultiplexedConnection) -> Result<()> {
    let role: RedisResult<Vec<Value>> = cmd("ROLE").query_async(connection).await;
    let role = role.map_err(|error| told(&error))?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        _ => Err(Error::new("the Sentinels name a server that is not the master now")),
    }
}
