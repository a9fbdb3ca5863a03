//! Dice: real replicas and a real sequencer live through random days with crashes, broken connections, late registrations and
//! offline edits; one seed is one world. `SEEDS=n` runs more of them, `SEED=n` replays one, `TRACE=1` tells its story.

mod client;
mod dice;
mod disk;
mod monitor;
mod people;
mod policy;
mod world;

use world::World;

/// Lines that both kept, then what either added, in one order for both.
pub fn merge_lines(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    match syncfs::merge::text::merge(base, ours, theirs) {
        syncfs::merge::text::Merge::Clean(bytes) => Some(bytes),
        _ => None,
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..3 {
        let steps = 100 + world.dice.below(600);
        world.live(steps);
        world.rest();
        for _ in 0..100 {
            let Some(at) = (0..world.clients.len())
                .find(|at| world.clients[*at].running.as_ref().is_some_and(|running| !running.replica.conflicts().is_empty()))
            else {
                break;
            };
            people::resolve(&mut world, at);
            world.rest();
        }
        monitor::at_rest(&mut world);
    }
    monitor::restart_is_silent(&mut world);
}

fn fails(seed: u64) -> Option<String> {
    let result = std::panic::catch_unwind(|| run(seed));
    result.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Whatever happens to hub and clients: trees equal at rest, nothing saved is lost, nothing deleted comes back, the log holds what is
/// not applied and nothing else, a restart changes nothing, and the world comes to rest.
#[test]
fn worlds() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1000);
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let bad: Vec<(u64, String)> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    (first..seeds)
                        .step_by(threads as usize)
                        .filter_map(|seed| Some((seed, fails(seed)?)))
                        .take(5)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        runs.into_iter().flat_map(|run| run.join().unwrap_or_default()).collect()
    });
    let _ = std::panic::take_hook();
    for (seed, why) in &bad {
        println!("seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
    assert!(bad.is_empty(), "{} worlds of {seeds} went wrong; replay one with SEED=n TRACE=1", bad.len());
}
