//! The grain of all deadlines.

/// The grain of all timers, in milliseconds.
pub(in crate::worker) const TICK_MS: u64 = 250;
/// A moment, counted in ticks of the monotonic clock. The same in every process of the machine.
pub(in crate::worker) type Tick = u32;

/// No moment at all.
pub(in crate::worker) const NEVER: Tick = Tick::MAX;

/// The tick of a moment.
pub(in crate::worker) fn tick(now_ms: u64) -> Tick {
    (now_ms / TICK_MS) as Tick
}

/// How many ticks a time takes, at least one.
pub(in crate::worker) fn ticks(time: std::time::Duration) -> Tick {
    let ticks = (time.as_millis() as u64).div_ceil(TICK_MS).max(1);
    Tick::try_from(ticks).unwrap_or(NEVER / 2).min(NEVER / 2)
}
