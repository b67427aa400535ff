//! Small scripts in the manner of public ones, run as their users run them.

use tokio_tungstenite::tungstenite::Message;

use crate::harness::Client;
use crate::sites::Script;
use crate::support::path;

async fn start(name: &str) -> Script {
    Script::start(&[&path(&format!("tests/app/fixtures/scripts/{name}.php"))]).await
}

#[tokio::test]
async fn a_script_that_asks_for_pings_and_pongs_gets_them_and_answers_itself() {
    let script = start("pings").await;
    let mut client = Client::connect(&script.address, "/").await;
    client.send_message(Message::Ping("a".into())).await.unwrap();
    assert_eq!(client.next_frame().await.unwrap().unwrap(), Message::Pong("own a".into()));
    client.send_message(Message::Pong("b".into())).await.unwrap();
    assert_eq!(client.receive().await, "pong b");
    assert_eq!(client.ask("c").await, "text c");
    script.stop().await;
}
