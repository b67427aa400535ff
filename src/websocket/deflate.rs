//! permessage-deflate (RFC 7692): the compressors and the inflater that a worker's connections
//! share.
//!
//! A zlib context costs 189 to 319 KB, so no connection owns one. Where a context is taken over,
//! the connection keeps the last window of plaintext instead, and a shared context is primed
//! with it. It costs some microseconds a message, and the state is bytes that can be handed over.

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::event::Fault;
use super::extension::{self, Params};

/// What every message ends with before it is cut off (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// How often a stream may end and begin anew within one message. A peer may end a block with
/// BFINAL (RFC 7692 section 7.2.3.4), but each time costs a window, so not without bound.
const STREAMS_MAX: u32 = 16;

/// The least that a message is inflated into, in bytes.
const INFLATE_BYTES_MIN: usize = 512;

/// How compression is offered and done. Off by default: beside secrets it leaks them (CRIME).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeflateOptions {
    /// Whether it is agreed to at all.
    pub enabled: bool,
    /// 1 (fast) to 9 (small).
    pub level: u8,
    /// Shorter messages are sent plain, in bytes.
    pub threshold: usize,
    /// Compress every message by itself. Else a connection keeps a window, and a message costs
    /// about 50 µs more.
    pub server_no_context_takeover: bool,
    /// Ask clients to compress every message by itself. Else a connection keeps a window.
    pub client_no_context_takeover: bool,
    /// The largest window for what the server sends: 9 to 15, the base-2 logarithm of bytes.
    pub server_max_window_bits: u8,
    /// The largest window for what clients send: 9 to 15, where the client can be told.
    pub client_max_window_bits: u8,
    /// The bytes of kept windows a worker may come to hold. When they are given away, new
    /// connections get no context takeover.
    pub memory: usize,
}

impl Default for DeflateOptions {
    fn default() -> DeflateOptions {
        DeflateOptions {
            enabled: false,
            level: 3,
            threshold: 1024,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            memory: 64 << 20,
        }
    }
}

/// How a message may be compressed: equal variants can be sent equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    bits: u8,
}

impl Variant {
    /// How many variants there are.
    pub const COUNT: usize = 7;

    pub(super) fn new(bits: u8) -> Variant {
        Variant { bits: bits.clamp(9, 15) }
    }

    /// A number below [`Variant::COUNT`], to index a table with.
    pub fn index(self) -> usize {
        usize::from(self.bits) - 9
    }
}

/// What the connections of a worker share to compress and to inflate.
pub struct Codec {
    options: DeflateOptions,
    compressors: [Option<Box<Compress>>; Variant::COUNT],
    inflater: Option<Box<Decompress>>,
    context_bytes: usize,
}

impl Codec {
    /// Allocates nothing until the first compressed message.
    pub fn new(mut options: DeflateOptions) -> Codec {
        options.level = options.level.clamp(1, 9);
        options.server_max_window_bits = options.server_max_window_bits.clamp(9, 15);
        options.client_max_window_bits = options.client_max_window_bits.clamp(9, 15);
        Codec { options, compressors: Default::default(), inflater: None, context_bytes: 0 }
    }

    /// Answers the `Sec-WebSocket-Extensions` of a client: what was agreed, and the header to
    /// send back. The connection's context memory is booked until [`Codec::release`].
    pub fn negotiate<'a>(
        &mut self,
        offers: impl IntoIterator<Item = &'a str>,
    ) -> Option<(Params, String)> {
        let most = 2 << 15;
        let contexts = self.context_bytes + most <= self.options.memory;
        let agreed = extension::negotiate(offers, &self.options, contexts)?;
        self.book(Some(agreed.0));
        Some(agreed)
    }

    /// Books the context memory of a connection that was handed over.
    pub fn book(&mut self, params: Option<Params>) {
        self.context_bytes += params.map_or(0, |params| params.context_bytes());
    }

    /// Gives back what was booked for a connection, when it ends or is handed on.
    pub fn release(&mut self, params: Option<Params>) {
        let bytes = params.map_or(0, |params| params.context_bytes());
        self.context_bytes = self.context_bytes.saturating_sub(bytes);
    }

    /// Compresses a message for all peers of a variant; its frame then has RSV1 set. `None`: send
    /// it plain, since it is below the threshold or would not shrink.
    pub fn compress(&mut self, data: &[u8], variant: Variant) -> Option<Bytes> {
        self.compress_after(&[], data, variant)
    }

    /// Compresses a message that may refer to `window`.
    pub(super) fn compress_after(
        &mut self,
        window: &[u8],
        data: &[u8],
        variant: Variant,
    ) -> Option<Bytes> {
        if data.len() < self.options.threshold {
            return None;
        }
        let level = Compression::new(self.options.level.into());
        let compressor = self.compressors[variant.index()].get_or_insert_with(|| {
            Box::new(Compress::new_with_window_bits(level, false, variant.bits))
        });
        compressor.reset();
        if !window.is_empty() {
            compressor.set_dictionary(window).ok()?;
        }
        // Room for no more than the message itself: what needs more is better sent plain.
        let mut out = Vec::with_capacity(data.len() + TAIL.len());
        compressor.compress_vec(data, &mut out, FlushCompress::Sync).ok()?;
        let whole = compressor.total_in() == data.len() as u64 && out.len() < out.capacity();
        let payload = out.strip_suffix(&TAIL).filter(|_| whole)?.len();
        out.truncate(payload);
        out.shrink_to_fit();
        Some(Bytes::from(out))
    }

    /// Inflates a message that may refer to `window`, and stops as soon as it is longer than
    /// `limit` bytes.
    pub(super) fn inflate(
        &mut self,
        data: &[u8],
        window: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, Fault> {
        let inflater =
            self.inflater.get_or_insert_with(|| Box::new(Decompress::new(false))).as_mut();
        let mut inflating = Inflating { inflater, window, limit, streams: 0, out: Vec::new() };
        inflating.begin()?;
        inflating.feed(data)?;
        inflating.feed(&TAIL)?;
        Ok(inflating.out)
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec")
            .field("options", &self.options)
            .field("context_bytes", &self.context_bytes)
            .finish_non_exhaustive()
    }
}

/// One message being inflated.
struct Inflating<'a> {
    inflater: &'a mut Decompress,
    window: &'a [u8],
    limit: usize,
    streams: u32,
    out: Vec<u8>,
}

impl Inflating<'_> {
    /// Begins a stream that may refer to all that came out so far.
    fn begin(&mut self) -> Result<(), Fault> {
        self.streams += 1;
        if self.streams > STREAMS_MAX {
            return Err(bad_data());
        }
        self.inflater.reset(false);
        const WINDOW_BYTES: usize = 1 << 15;
        let recent = &self.out[self.out.len().saturating_sub(WINDOW_BYTES)..];
        let older = self.window.len().min(WINDOW_BYTES - recent.len());
        let older = &self.window[self.window.len() - older..];
        if older.is_empty() && recent.is_empty() {
            return Ok(());
        }
        self.inflater.set_dictionary(&[older, recent].concat()).map_err(|_| bad_data())?;
        Ok(())
    }

    fn feed(&mut self, mut input: &[u8]) -> Result<(), Fault> {
        loop {
            self.make_room(input.len());
            let (read, written) = (self.inflater.total_in(), self.out.len());
            let status = self
                .inflater
                .decompress_vec(input, &mut self.out, FlushDecompress::Sync)
                .map_err(|_| bad_data())?;
            let read = (self.inflater.total_in() - read) as usize;
            input = &input[read..];
            if self.out.len() > self.limit {
                return Err(Fault::too_big());
            }
            let full = self.out.len() == self.out.capacity();
            let stuck = read == 0 && self.out.len() == written && !full;
            match status {
                Status::StreamEnd => self.begin()?,
                Status::Ok | Status::BufError if stuck && !input.is_empty() => {
                    return Err(bad_data());
                }
                Status::Ok | Status::BufError => {}
            }
            if input.is_empty() && !full {
                return Ok(());
            }
        }
    }

    /// Doubles, up to one byte above the limit: that byte tells that the limit was passed.
    fn make_room(&mut self, input: usize) {
        let len = self.out.len();
        if len < self.out.capacity() {
            return;
        }
        let want = len.max(input.saturating_mul(3)).max(INFLATE_BYTES_MIN);
        let most = self.limit.saturating_add(1) - len;
        self.out.reserve_exact(want.min(most));
    }
}

#[cold]
fn bad_data() -> Fault {
    Fault::protocol("bad compressed data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::Cause;

    fn codec() -> Codec {
        Codec::new(DeflateOptions { enabled: true, threshold: 0, ..DeflateOptions::default() })
    }

    fn pack(data: &[u8]) -> Bytes {
        codec().compress(data, Variant::new(15)).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfc_inflate() {
        // RFC 7692 sections 7.2.3.1 to 7.2.3.5.
        let hello: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for packed in hello {
            assert_eq!(codec().inflate(packed, &[], 5).unwrap(), b"Hello", "{packed:x?}");
        }
        let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(codec().inflate(&again, b"Hello", 5).unwrap(), b"Hello");
        assert_eq!(codec().inflate(&[0x00], b"Hello", 5).unwrap(), b"");
    }

    #[test]
    fn a_client_with_a_smaller_window_reads_what_was_compressed_for_it() {
        // Noise that comes again behind the window is a temptation for any larger one.
        const NOISE: usize = 600;
        let mut state = 7u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 & 0x3f
        })
        .take(NOISE)
        .collect();
        for bits in 9..=15 {
            let gap = vec![b'x'; 1 << bits];
            let data = [&noise[..], &gap, &noise].concat();
            let packed = codec().compress(&data, Variant::new(bits)).unwrap();
            // The inflater at hand reads what refers further back, but others do not.
            assert!(packed.len() > 2 * NOISE * 6 / 8, "{bits} bits: {}", packed.len());
            let out = codec().inflate(&packed, &[], data.len()).unwrap();
            assert_eq!(out, data, "{bits} bits");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_allocates_no_more() {
        let limit = 64 << 10;
        let bomb = pack(&vec![0; 4 << 20]);
        let mut inflater = Decompress::new(false);
        for window in [&b""[..], &[0; 1 << 15]] {
            let (streams, out) = (0, Vec::new());
            let mut inflating = Inflating { inflater: &mut inflater, window, limit, streams, out };
            inflating.begin().unwrap();
            let fault = inflating.feed(&bomb).unwrap_err();
            assert_eq!(fault.cause, Cause::MessageTooBig);
            assert_eq!(inflating.out.capacity(), limit + 1);
            assert!(inflating.inflater.total_in() < 1024, "most of the bomb was never read");
        }
    }

    #[test]
    fn a_message_of_exactly_the_limit_passes() {
        let packed = pack(&[7; 5000]);
        assert_eq!(codec().inflate(&packed, &[], 5000).unwrap().len(), 5000);
        let fault = codec().inflate(&packed, &[], 4999).unwrap_err();
        assert_eq!(fault.cause, Cause::MessageTooBig);
    }

    #[test]
    fn streams_within_a_message_are_counted() {
        // An empty final block, again and again: two bytes that would each cost a window.
        let message = |count| [3, 0].repeat(count);
        assert_eq!(codec().inflate(&message(15), &[1; 1 << 15], 10).unwrap(), b"");
        let fault = codec().inflate(&message(16), &[1; 1 << 15], 10).unwrap_err();
        assert_eq!(fault.cause, Cause::ProtocolError);
    }

    #[test]
    fn bad_data_is_a_protocol_error() {
        for bad in [&[0x07][..], &[0xff, 0xff, 0xff], &[0x00, 1, 2, 3, 4, 5], &[0xf2, 0x00, 0x11]]
        {
            let fault = codec().inflate(bad, &[], 100).unwrap_err();
            assert_eq!(fault.cause, Cause::ProtocolError, "{bad:x?}");
        }
    }

    #[test]
    fn what_does_not_shrink_or_is_short_is_sent_plain() {
        let noise: Vec<u8> =
            (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut codec = codec();
        assert_eq!(codec.compress(b"", Variant::new(15)), None);
        assert_eq!(codec.compress(b"short", Variant::new(15)), None);
        let packed = codec.compress(&noise, Variant::new(15));
        assert!(packed.is_none_or(|packed| packed.len() < noise.len()));
        let mut codec = Codec::new(DeflateOptions { threshold: 100, ..codec.options });
        assert_eq!(codec.compress(&[7; 99], Variant::new(15)), None);
        assert!(codec.compress(&[7; 100], Variant::new(15)).is_some());
    }

    #[test]
    fn when_the_memory_for_contexts_is_given_away_new_connections_get_none() {
        let mut codec = Codec::new(DeflateOptions {
            enabled: true,
            client_no_context_takeover: false,
            memory: 3 << 15,
            ..DeflateOptions::default()
        });
        let agree = |codec: &mut Codec| codec.negotiate(["permessage-deflate"]).unwrap().0;
        let first = agree(&mut codec);
        let second = agree(&mut codec);
        let third = agree(&mut codec);
        let takeovers = [first, second, third].map(|params| params.decompress.takeover);
        assert_eq!(takeovers, [true, true, false]);
        codec.release(Some(first));
        assert!(agree(&mut codec).decompress.takeover);
    }
}
