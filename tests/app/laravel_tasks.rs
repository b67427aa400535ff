//! LaravelS's tasks, events, tables, timer jobs and custom processes, in a whole server.

use std::collections::BTreeMap;

use crate::harness::{Client, until};
use crate::sites::Laravel;

/// Several processes say these, so that any may come first.
fn sorted<const N: usize>(mut heard: [String; N]) -> [String; N] {
    heard.sort();
    heard
}

async fn table(client: &mut Client) -> BTreeMap<String, u64> {
    serde_json::from_str(&client.ask("table").await).unwrap()
}

/// The processes that run the timer job, and how often each did.
fn jobs(table: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let jobs = table.iter().filter(|(key, _)| key.starts_with("job of "));
    jobs.map(|(key, runs)| (key.clone(), *runs)).collect()
}

#[tokio::test]
async fn tasks_events_processes_and_jobs_of_laravels_run() {
    let laravel = Laravel::start_with("\nTASKS=true\n").await;
    let mut client = Client::connect(&laravel.address(), "/ws").await;
    client.receive().await;
    for words in ["deliver loud", "later loud"] {
        client.send(words).await;
        let heard = [client.receive().await, client.receive().await, client.receive().await];
        assert_eq!(sorted(heard), ["finished: LOUD false", "in a task process: true", "true"]);
    }
    // It throws at the first try, which the tries of the task make up for.
    client.send("deliver fourth time").await;
    let heard = [client.receive().await, client.receive().await, client.receive().await];
    assert_eq!(sorted(heard)[0], "finished: FOURTH TIME false");
    // A task process gives no tasks, so a worker does so for it.
    client.send("relay loud").await;
    let heard = [client.receive().await, client.receive().await, client.receive().await];
    assert_eq!(sorted(heard), ["finished: LOUD false", "in a task process: true", "true"]);
    client.send("fire news").await;
    let heard = [client.receive().await, client.receive().await, client.receive().await];
    assert_eq!(sorted(heard), ["heard news", "then heard news", "true"]);

    let before = until("a job and the process", async || {
        let table = table(&mut client).await;
        (!jobs(&table).is_empty() && table.contains_key("beats")).then_some(table)
    })
    .await;
    assert_eq!((jobs(&before).len(), before["processes"]), (1, 1), "{before:?}");
    assert_eq!(before["set job every 30"], 1, "it began at once and ended itself: {before:?}");
    laravel.php(&["bin/laravels", "reload"]).await;
    // One process runs the jobs before and after, and the custom process was told to stop.
    until("the job's next process", async || {
        let table = table(&mut client).await;
        (jobs(&table).len() == 2 && table.contains_key("stopped")).then_some(())
    })
    .await;
    let now = table(&mut client).await;
    until("more runs", async || {
        let later = table(&mut client).await;
        let grown =
            jobs(&later).into_iter().filter(|(key, runs)| now.get(key) != Some(runs)).count();
        assert!(grown <= 1, "{now:?} {later:?}");
        (grown == 1 && later["beats"] > now["beats"]).then_some(())
    })
    .await;
    laravel.php(&["bin/laravels", "stop"]).await;
}
