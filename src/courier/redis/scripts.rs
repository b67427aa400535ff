//! What the server does as one step. A lease is a key that ends by itself; its value is the owner
//! and, behind that, the record.

use std::time::Duration;

use redis::{Cmd, cmd};

use crate::courier::engine::{Lease, OWNER_BYTES};
use crate::ipc::cluster::nodes::RECORD_BYTES_MAX;

/// The place of the last byte of a lease that is read: one more than any node writes. Whoever may
/// write to the server may write 512 MB.
const LAST_BYTE: usize = OWNER_BYTES + RECORD_BYTES_MAX;

/// Takes or keeps the lease, and says by a number that it was kept; or answers the holder's record.
const CLAIM: &str = "local held = redis.call('GETRANGE', KEYS[1], 0, ARGV[4]) \
    if held ~= '' and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] \
    then return string.sub(held, #ARGV[1] + 1) end \
    redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3]) \
    if held ~= '' then return 1 end return nil";

/// Gives the lease back.
const RELEASE: &str = "if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) == ARGV[1] \
    then redis.call('DEL', KEYS[1]) end return nil";

/// The beginnings of these leases; one that is not there is empty. What is no text is a lease that
/// no node writes.
const HOLDERS: &str = "local all = {} \
    for i, key in ipairs(KEYS) do \
    local held = redis.pcall('GETRANGE', key, 0, ARGV[1]) \
    if type(held) ~= 'string' then held = '?' end \
    all[i] = held end return all";

/// Raises the fields of a hash, one for each slot that there can be, to at least these numbers, and
/// answers with all of them. What is no number is not there.
const RAISE: &str = "local function kept(slot) \
    local kept = redis.call('HGET', KEYS[1], slot) \
    if kept and #kept < 20 and string.match(kept, '^%d+$') then return kept end end \
    for i = 1, #ARGV, 2 do \
    local before = kept(ARGV[i]) \
    if not before or tonumber(before) < tonumber(ARGV[i + 1]) \
    then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end end \
    local all = {} \
    for slot = 0, 255 do \
    local number = kept(slot) \
    if number then all[#all + 1] = tostring(slot) all[#all + 1] = number end end \
    return all";

/// Asks for [`HOLDERS`].
pub fn holders(keys: &[String]) -> Cmd {
    let mut holders = cmd("EVAL");
    holders.arg(HOLDERS).arg(keys.len()).arg(keys).arg(LAST_BYTE);
    holders
}

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
    claim.arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)).arg(LAST_BYTE);
    claim
}

/// Asks for [`RELEASE`].
pub fn release(lease: &Lease) -> Cmd {
    let mut release = cmd("EVAL");
    release.arg(RELEASE).arg(1).arg(&lease.key).arg(&lease.owner);
    release
}
