//! What the server does as one step. A lease is a key that ends by itself; its value is the owner
//! and, behind that, the record.

use std::time::Duration;

use redis::{Cmd, cmd};

use crate::courier::engine::{Lease, OWNER_BYTES};

/// Takes or keeps the lease, and says by a number that it was kept; or answers the holder's record.
const CLAIM: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] \
    then return string.sub(held, #ARGV[1] + 1) end \
    redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3]) \
    if held then return 1 end return nil";

/// Gives the lease back.
const RELEASE: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] \
    then redis.call('DEL', KEYS[1]) end return nil";

/// Raises the fields of a hash to at least these numbers, and answers with all of them.
const RAISE: &str = "for i = 1, #ARGV, 2 do \
    local kept = redis.call('HGET', KEYS[1], ARGV[i]) \
    if not kept or tonumber(kept) < tonumber(ARGV[i + 1]) \
    then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end end \
    return redis.call('HGETALL', KEYS[1])";

/// Asks for [`RAISE`].
pub fn raise(key: &str, numbers: &[(u8, u64)]) -> Cmd {
    let mut raise = cmd("EVAL");
    raise.arg(RAISE).arg(1).arg(key);
    for (name, number) in numbers {
        raise.arg(*name).arg(*number);
    }
    raise
}

/// Asks for [`CLAIM`].
pub fn claim(lease: &Lease, ttl: Duration) -> Cmd {
    debug_assert_eq!(lease.owner.len(), OWNER_BYTES);
    let mut claim = cmd("EVAL");
    claim.arg(CLAIM).arg(1).arg(&lease.key).arg(&lease.owner).arg(&lease.record[..]);
    claim.arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    claim
}

/// Asks for [`RELEASE`].
pub fn release(lease: &Lease) -> Cmd {
    let mut release = cmd("EVAL");
    release.arg(RELEASE).arg(1).arg(&lease.key).arg(&lease.owner);
    release
}
