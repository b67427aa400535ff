//! The machines of old workers, new workers and the manager against each other: random
//! interleavings, with deaths of each between any two steps, and what every client got is counted.
//!
//! The model has the reload, the passes, the router and the workers' [`Transit`] as they ship. What
//! it plays is around them: links with a kernel's queue and a queue of the process, workers that
//! have clients and send, a master that starts whoever died.

mod manager;
mod play;
mod relay;
mod worker;
mod world;

use world::{Broken, World};

/// Runs of the random test. Each plays some hundreds of steps.
const RUNS: u64 = 12_000;
/// Runs within which a broken variant has to be caught.
const BROKEN_RUNS: u64 = 40_000;

fn run(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let mut world = World::new(seed, broken);
    world.play()
}

#[test]
fn every_client_that_lives_gets_every_message_once_and_in_order() {
    let found = (0..RUNS).filter_map(|seed| Some((seed, run(seed, None).err()?)));
    let found: Vec<(u64, String)> = found.take(5).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// Tells a run: `MODEL_SEED=7 cargo test --lib one_run -- --ignored --nocapture`.
#[test]
#[ignore = "it tells what happens in one run"]
fn one_run() {
    let seed = std::env::var("MODEL_SEED").expect("MODEL_SEED is a number");
    let mut world = World::new(seed.parse().expect("MODEL_SEED is a number"), None);
    world.trace = Some(Vec::new());
    println!("{:?}", world.play());
}

#[test]
fn each_broken_variant_is_caught() {
    for broken in Broken::ALL {
        let mut seeds = (0..BROKEN_RUNS).filter(|seed| broken.may_show(*seed));
        let caught = seeds.any(|seed| run(seed, Some(*broken)).is_err());
        assert!(caught, "{broken:?} was not caught");
    }
}
