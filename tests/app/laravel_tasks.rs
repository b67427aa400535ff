//! LaravelS's tasks, events, tables, timer jobs and custom processes, in a whole server.

use std::collections::BTreeMap;

use crate::harness::{Client, until};
use crate::sites::Laravel;

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
    let task = ["in a task process: true", "finished: LOUD false"];
    assert_eq!(client.ask("deliver loud").await, "true");
    assert_eq!([client.receive().await, client.receive().await], task);
    assert_eq!(client.ask("later loud").await, "true");
    assert_eq!([client.receive().await, client.receive().await], task);
    assert_eq!(client.ask("fire news").await, "true");
    assert_eq!(client.receive().await, "heard news");

    let before = until("a job and the process", async || {
        let table = table(&mut client).await;
        (!jobs(&table).is_empty() && table.contains_key("beats")).then_some(table)
    })
    .await;
    assert_eq!((jobs(&before).len(), before["processes"]), (1, 1), "{before:?}");
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
