//! The global number of a client: one `Fd` names one connection of the whole server, for ever.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bits of the serial: 549 billion connections for each slot.
const SERIAL_BITS: u32 = 39;
/// Bits of the slot: up to 256 workers.
const SLOT_BITS: u32 = 8;
/// Bits of the node of a cluster; 0 without one.
const NODE_BITS: u32 = 6;

/// The largest serial a slot may hand out.
pub const SERIAL_MAX: u64 = (1 << SERIAL_BITS) - 1;
/// The largest value of an [`Fd`]: below 2^53, so JSON and JavaScript keep it exact.
pub const FD_MAX: u64 = (1 << (NODE_BITS + SLOT_BITS + SERIAL_BITS)) - 1;

/// A worker's place in the process table, 0 to 255. Swoole's `worker_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u8);

impl Slot {
    /// The first `count` slots in their order; at most 256, which is all there are.
    pub fn first(count: u16) -> impl DoubleEndedIterator<Item = Slot> + Clone {
        (0..=u8::MAX).take(usize::from(count)).map(Slot)
    }

    /// The slot's place as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One worker process: the `epoch`th that served in `slot` since the master started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId {
    /// Its place.
    pub slot: Slot,
    /// How many processes were started for that place before it, plus one.
    pub epoch: u32,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.epoch)
    }
}

/// The global number of a client, usable from any process of the server.
///
/// Layout, from the high end: `node:6 | slot:8 | serial:39`. Never 0, never reused: a push to an
/// `Fd` whose client has left is told `gone`, and never reaches somebody else. It is a name and
/// not a secret: knowing it gives no right.
///
/// Swoole calls the same thing `$fd` and counts it from 1 after each restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Fd(NonZeroU64);

impl Fd {
    /// Builds a number from its parts. `None` where a part is out of range or the serial is 0.
    pub fn new(node: u8, slot: Slot, serial: u64) -> Option<Fd> {
        let in_range = serial > 0 && serial <= SERIAL_MAX && node < (1 << NODE_BITS);
        let high = (u64::from(node) << SLOT_BITS | u64::from(slot.0)) << SERIAL_BITS;
        if in_range { NonZeroU64::new(high | serial).map(Fd) } else { None }
    }

    /// The number itself.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// The slot that opened this connection. It may live elsewhere by now.
    pub fn slot(self) -> Slot {
        Slot((self.as_u64() >> SERIAL_BITS) as u8)
    }

    /// The node that opened this connection.
    pub fn node(self) -> u8 {
        (self.as_u64() >> (SERIAL_BITS + SLOT_BITS)) as u8
    }

    /// The count of the connection in its slot.
    pub fn serial(self) -> u64 {
        self.as_u64() & SERIAL_MAX
    }
}

impl TryFrom<u64> for Fd {
    type Error = FdError;

    fn try_from(number: u64) -> Result<Fd, FdError> {
        if number > FD_MAX || number & SERIAL_MAX == 0 {
            return Err(FdError);
        }
        NonZeroU64::new(number).map(Fd).ok_or(FdError)
    }
}

impl From<Fd> for u64 {
    fn from(fd: Fd) -> u64 {
        fd.as_u64()
    }
}

impl FromStr for Fd {
    type Err = FdError;

    fn from_str(text: &str) -> Result<Fd, FdError> {
        // As it is printed: with a sign or a zero before it, it is a slip, or another's number.
        if !text.starts_with(|first: char| matches!(first, '1'..='9')) {
            return Err(FdError);
        }
        text.parse::<u64>().map_err(|_| FdError)?.try_into()
    }
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fd({}/{}/{})", self.node(), self.slot(), self.serial())
    }
}

/// The text or number is not a client's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdError;

impl fmt::Display for FdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a client's fd: a whole number from 1 to {FD_MAX} as printed by `connections`"
        )
    }
}

impl std::error::Error for FdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_out() {
        let fd = Fd::new(5, Slot(200), 77).unwrap();
        assert_eq!((fd.node(), fd.slot(), fd.serial()), (5, Slot(200), 77));
        assert_eq!(Fd::try_from(fd.as_u64()), Ok(fd));
        assert_eq!(fd.to_string().parse(), Ok(fd));
    }

    #[test]
    fn numbers_stay_exact_in_javascript() {
        let top = Fd::new(63, Slot(255), SERIAL_MAX).unwrap();
        assert_eq!(top.as_u64(), FD_MAX);
        assert_eq!(FD_MAX, (1 << 53) - 1);
    }

    #[test]
    fn zero_serials_and_large_numbers_are_no_fds() {
        for number in [0, 1 << SERIAL_BITS, FD_MAX + 1, u64::MAX] {
            assert_eq!(Fd::try_from(number), Err(FdError), "{number}");
        }
        assert!(Fd::new(64, Slot(0), 1).is_none());
    }

    #[test]
    fn text_is_an_fd_only_as_it_is_printed() {
        assert_eq!("7".parse(), Ok(Fd::new(0, Slot(0), 7).unwrap()));
        for text in ["", "+7", "-7", "007", " 7", "7 ", "0x7", "7.0"] {
            assert_eq!(text.parse::<Fd>(), Err(FdError), "{text:?}");
        }
    }
}
